"""``always_on``: every span is recorded and exported."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind

from tracekit._ot_state import instead_of_parents
from tracekit.interfaces import Sampler
from tracekit.model import Attributes, Decision, SamplingResult
from tracekit.samplers._parent import parent_trace_state

__all__ = ["AlwaysOnSampler"]


class AlwaysOnSampler:
    """Keep everything.

    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#alwayson
    """

    decision = Decision.RECORD_AND_SAMPLE
    threshold = 0

    @classmethod
    def from_argument(cls, _argument: str | None) -> Sampler:
        return cls()

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
        return SamplingResult(self.decision, None, instead_of_parents(state, self.threshold))

    def get_description(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        return self.get_description()


plugin: type[AlwaysOnSampler] = AlwaysOnSampler
