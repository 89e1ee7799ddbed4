"""``ratelimiting``: so many traces a second, with bursts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind

from tracekit._ot_state import with_threshold
from tracekit.interfaces import Sampler
from tracekit.model import Attributes, Decision, SamplingResult
from tracekit.samplers._bucket import TokenBucket
from tracekit.samplers._parent import parent_trace_state
from tracekit.samplers._per_second import made_per_second

__all__ = ["RateLimitingSampler"]

DEFAULT_PER_SECOND = 100.0


class RateLimitingSampler:
    """Keep the first traces of each second, ``per_second`` on average.

    Which are kept depends on when they come, so that services which limit by themselves keep
    different traces: wrap it in ``ParentBased``. No threshold is written, since nobody knows for
    how many traces a kept one stands, and one that the parent wrote does not hold any more.

    Args:
        burst: Most that are kept at once, after a quiet time; by default a second's.
        clock: Seconds that never go back; the machine's by default.

    Raises:
        InvalidValueError: ``per_second`` is not above 0, or ``burst`` is below 1.
    """

    def __init__(
        self,
        per_second: float = DEFAULT_PER_SECOND,
        burst: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._bucket = TokenBucket(per_second, burst, clock)

    @classmethod
    def from_argument(cls, argument: Any) -> Sampler:
        """Make the sampler that ``OTEL_TRACES_SAMPLER_ARG`` describes; 100 when it is empty."""
        return made_per_second(cls, argument, DEFAULT_PER_SECOND)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        state = with_threshold(parent_trace_state(parent_context), None)
        decision = Decision.RECORD_AND_SAMPLE if self._bucket.take() else Decision.DROP
        return SamplingResult(decision, None, state)

    def get_description(self) -> str:
        return f"RateLimitingSampler{{{self._bucket.per_second:g}/s,{self._bucket.burst:g}}}"

    def __repr__(self) -> str:
        return self.get_description()


plugin: type[RateLimitingSampler] = RateLimitingSampler
