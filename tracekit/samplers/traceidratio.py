"""``traceidratio``: a fixed share of traces, chosen by the trace id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind, TraceState

from tracekit._ot_state import (
    MAX_THRESHOLD,
    OtState,
    instead_of_parents,
    threshold_of,
    with_threshold,
)
from tracekit.errors import InvalidValueError
from tracekit.interfaces import Sampler
from tracekit.model import Attributes, Decision, SamplingResult
from tracekit.samplers._parent import parent_trace_state

__all__ = ["TraceIdRatioBased"]


class TraceIdRatioBased:
    """Keep a trace when the 56 random bits of its id reach a threshold.

    The bits and the comparison are those of W3C level-2 randomness and of consistent
    probability sampling: every service with the same ratio keeps the same traces, and one
    with a higher ratio keeps those too.

    Args:
        rate: Share that is kept, from 0.0 to 1.0.

    Raises:
        InvalidValueError: The rate is outside of that.

    Source: https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
    """

    def __init__(self, rate: float) -> None:
        if not 0.0 <= rate <= 1.0:
            raise InvalidValueError("sampling rate", rate, "a number from 0.0 to 1.0")
        self._rate = rate
        self.threshold = threshold_of(rate)
        self.root_trace_state = self._state_of(None)

    @property
    def rate(self) -> float:
        return self._rate

    @classmethod
    def from_argument(cls, argument: Any) -> Sampler:
        """Make the sampler that ``OTEL_TRACES_SAMPLER_ARG`` describes; 1.0 when it is empty.

        Args:
            argument: A text, or a number out of pyproject.toml.
        """
        try:
            return cls(1.0 if argument in (None, "") else float(argument))
        except (TypeError, ValueError):
            raise InvalidValueError(
                "sampler argument", argument, "a number from 0.0 to 1.0"
            ) from None

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        state = parent_trace_state(parent_context)
        if OtState.of(state).randomness_of(trace_id) < self.threshold:
            return SamplingResult(Decision.DROP, None, instead_of_parents(state, MAX_THRESHOLD))
        return SamplingResult(Decision.RECORD_AND_SAMPLE, None, self._state_of(state))

    def _state_of(self, state: TraceState | None) -> TraceState | None:
        """Say the share, so that whoever counts knows how many traces a kept one stands for."""
        if self._rate < 1:
            return with_threshold(state, self.threshold)
        return instead_of_parents(state, 0)

    def get_description(self) -> str:
        return f"TraceIdRatioBased{{{self._rate:f}}}"

    def __repr__(self) -> str:
        return self.get_description()


plugin: type[TraceIdRatioBased] = TraceIdRatioBased
