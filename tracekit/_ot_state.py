"""The ``ot`` member of a tracestate: the sampling threshold and explicit randomness.

Source: https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/
"""

from __future__ import annotations

import re
from typing import NamedTuple

from opentelemetry.trace import TraceState

__all__ = [
    "MAX_THRESHOLD",
    "RANDOM_MASK",
    "OtState",
    "instead_of_parents",
    "threshold_of",
    "with_threshold",
]

MAX_THRESHOLD = 1 << 56
"""The threshold that no randomness reaches."""

RANDOM_MASK = MAX_THRESHOLD - 1

_THRESHOLD = re.compile(r"[0-9a-f]{1,14}")
_RANDOMNESS = re.compile(r"[0-9a-f]{14}")
_REST = re.compile(r"[a-z][a-z0-9]*:[A-Za-z0-9._-]*")
MAX_LENGTH = 256
"""Longest value that a tracestate member may have."""


class OtState(NamedTuple):
    """What the member says: threshold and randomness where they are valid, and the rest."""

    threshold: int | None = None
    randomness: int | None = None
    rest: tuple[str, ...] = ()

    @classmethod
    def of(cls, state: TraceState | None) -> OtState:
        """Read a trace state; what is malformed counts as absent."""
        text = state.get("ot") if state else None
        threshold = randomness = None
        rest: list[str] = []
        for pair in (text or "").split(";"):
            key, _, value = pair.partition(":")
            if key == "th" and _THRESHOLD.fullmatch(value):
                threshold = int(value.ljust(14, "0"), 16)
            elif key == "rv" and _RANDOMNESS.fullmatch(value):
                randomness = int(value, 16)
            elif key not in ("th", "rv") and _REST.fullmatch(pair):
                rest.append(pair)
        return cls(threshold, randomness, tuple(rest))

    def randomness_of(self, trace_id: int) -> int:
        """Return the explicit randomness, else the random bits of the trace id."""
        return trace_id & RANDOM_MASK if self.randomness is None else self.randomness

    def keeps(self, trace_id: int) -> bool:
        """Whether the trace's randomness reaches the threshold."""
        return self.randomness_of(trace_id) >= (self.threshold or 0)

    def to_text(self) -> str:
        parts = []
        if self.threshold is not None:
            parts.append(f"th:{self.threshold:014x}".rstrip("0") if self.threshold else "th:0")
        if self.randomness is not None:
            parts.append(f"rv:{self.randomness:014x}")
        text = ";".join((*parts, *self.rest))
        return text if len(text) <= MAX_LENGTH else ";".join(parts)


def threshold_of(ratio: float) -> int:
    """Return the threshold that a share of ``ratio`` of all randomness reaches.

    Rounded to 16 bits of precision, which is 4 hexadecimal digits for the usual ratios.
    """
    if ratio <= 0:
        return MAX_THRESHOLD
    exact = round((1.0 - ratio) * MAX_THRESHOLD)
    # More digits as the ratio gets smaller: the leading f's of its threshold say little.
    digits = 4
    while digits < 14 and ratio < 16.0 ** -(digits - 3):
        digits += 1
    unit = 1 << (4 * (14 - digits))
    return min(MAX_THRESHOLD - 1, round(exact / unit) * unit)


def with_threshold(state: TraceState | None, threshold: int | None) -> TraceState:
    """Return the trace state that says ``threshold``; None takes it out."""
    base = state if state is not None else TraceState()
    ot = OtState.of(base)._replace(threshold=threshold)
    text = ot.to_text()
    if text:
        return base.update("ot", text)
    return base.delete("ot") if "ot" in base else base


def instead_of_parents(state: TraceState | None, threshold: int) -> TraceState | None:
    """Return the trace state of a span that was decided about whatever its parent's threshold.

    That one does not hold for it and is replaced; where there is none, none is added.
    """
    if not state or OtState.of(state).threshold is None:
        return state
    return with_threshold(state, threshold if threshold < MAX_THRESHOLD else None)
