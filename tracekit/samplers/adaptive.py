"""``adaptive``: so many traces a second, spread so that rare operations are seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind

from tracekit import semconv
from tracekit._ot_state import RANDOM_MASK, OtState, with_threshold
from tracekit.interfaces import Sampler
from tracekit.model import Attributes, Decision, SamplingResult
from tracekit.samplers._clock import clock_in_use
from tracekit.samplers._composable import SamplingIntent, Start
from tracekit.samplers._operations import OperationShares
from tracekit.samplers._parent import parent_trace_state
from tracekit.samplers._per_second import made_per_second

__all__ = ["AdaptiveSampler"]

DEFAULT_PER_SECOND = 20.0
MAX_OPERATIONS = 1000

_DROP = SamplingResult(Decision.DROP)
# What differs from one request to the next: a number, an id with digits in it.
_VARIABLE_SEGMENT = re.compile(r"(?<=/)[^/]*\d[^/]*")


class AdaptiveSampler:
    """Keep about ``per_second`` traces, of each operation a share that its popularity sets.

    An operation is a span's name, with its route or, where a server knows that later, its path
    without the segments that have digits. A rare one is kept whole; the shares of popular ones
    follow within a second when their traffic changes. The share is written as a threshold, so
    that what is kept can be counted right, and taken from the trace's randomness, so that
    services which share an operation's rate agree; wrap it in ``ParentBased`` all the same.

    Args:
        per_second: Traces of this process, on average; a process with less traffic keeps all.
        max_operations: So many are told apart; what else comes is one operation together. One
            that has not come for ten minutes makes room.
        clock: Seconds that never go back; the machine's by default.

    Raises:
        InvalidValueError: ``per_second`` is not above 0, or ``max_operations`` is below 1.

    Concurrency: from any thread, without a lock.
    Cost: a decision takes about as long as a fixed share's, 1 µs; a root span costs more with it
    than with that one, whose answer a tracer knows before it asks.
    """

    def __init__(
        self,
        per_second: float = DEFAULT_PER_SECOND,
        max_operations: int = MAX_OPERATIONS,
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._shares = OperationShares(per_second, max_operations, clock or clock_in_use())

    @classmethod
    def from_argument(cls, argument: Any) -> Sampler:
        """Make the sampler that ``OTEL_TRACES_SAMPLER_ARG`` describes; 20 when it is empty."""
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
        state = parent_trace_state(parent_context)
        randomness = OtState.of(state).randomness_of(trace_id) if state else trace_id & RANDOM_MASK
        operation, threshold = self._shares.decide(_operation_key(name, attributes), randomness)
        if randomness < threshold:
            return SamplingResult(Decision.DROP, None, state) if state else _DROP
        kept = with_threshold(state, threshold) if state else operation.state_of(threshold)
        return SamplingResult(Decision.RECORD_AND_SAMPLE, None, kept)

    def sampling_intent(self, start: Start) -> SamplingIntent:
        """Say the threshold to a composite sampler instead of deciding."""
        randomness = OtState.of(start.parent_state).randomness_of(start.trace_id)
        key = _operation_key(start.name, start.attributes)
        return SamplingIntent(self._shares.decide(key, randomness)[1])

    def get_description(self) -> str:
        return f"AdaptiveSampler{{{self._shares.per_second:g}/s}}"

    def __repr__(self) -> str:
        return self.get_description()


def _operation_key(name: str, attributes: Attributes | None) -> Hashable:
    if not attributes:
        return name
    route = attributes.get(semconv.HTTP_ROUTE)
    if isinstance(route, str):
        return name, route
    path = attributes.get(semconv.URL_PATH)
    return (name, _VARIABLE_SEGMENT.sub("*", path)) if isinstance(path, str) else name


plugin: type[AdaptiveSampler] = AdaptiveSampler
