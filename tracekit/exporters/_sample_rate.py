"""Telling a destination how many spans a sampled one stands for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.interfaces import ReadableSpan

__all__ = ["sample_rate", "with_sample_rate"]

_ALL = 1 << 56
_MAX_DIGITS = 14


class _WeightedSpan:
    """A span with one attribute more; everything else is asked of the span itself."""

    def __init__(self, span: ReadableSpan, name: str, rate: int) -> None:
        self._span, self._added = span, {name: rate}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._span, name)

    @property
    def attributes(self) -> Mapping[str, Any]:
        # What the program says of its own sampling is known better than what is computed.
        return {**self._added, **(self._span.attributes or {})}


def with_sample_rate(spans: Sequence[ReadableSpan], attribute: str) -> list[ReadableSpan]:
    """Return the spans, those of which a sampling threshold is known with the attribute."""
    return [_weighted(span, attribute) for span in spans]


def _weighted(span: Any, attribute: str) -> Any:
    try:
        header = _trace_state(span)
        rate = sample_rate(header) if header else None
    except Exception:
        return span
    return span if rate is None else _WeightedSpan(span, attribute, rate)


def _trace_state(span: Any) -> str:
    state: Any = getattr(span, "trace_state_header", None)
    if state is None:
        state = span.context.trace_state.to_header() if span.context.trace_state else ""
    return str(state)


def sample_rate(trace_state: str) -> int | None:
    """Return how many spans one stands for, from ``ot=th:…`` in a tracestate; at least 1.

    Source: https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
    """
    for member in trace_state.split(","):
        key, _, value = member.strip().partition("=")
        if key == "ot":
            return _rate_of(value)
    return None


def _rate_of(value: str) -> int | None:
    for part in value.split(";"):
        name, _, digits = part.partition(":")
        if name == "th" and 1 <= len(digits) <= _MAX_DIGITS:
            try:
                threshold = int(digits.ljust(_MAX_DIGITS, "0"), 16)
            except ValueError:
                return None
            return max(1, round(_ALL / (_ALL - threshold)))
    return None
