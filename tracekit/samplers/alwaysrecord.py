"""``alwaysrecord``: what another sampler drops is still recorded, only not exported."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind

from tracekit.interfaces import Sampler
from tracekit.model import Attributes, Decision, SamplingResult
from tracekit.samplers.always_on import AlwaysOnSampler

__all__ = ["AlwaysRecordSampler"]


class AlwaysRecordSampler:
    """Turn each DROP of ``root`` into RECORD_ONLY, so that processors see every span.

    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#alwaysrecord
    """

    def __init__(self, root: Sampler) -> None:
        self._root = root

    @classmethod
    def from_argument(cls, _argument: str | None) -> Sampler:
        return cls(AlwaysOnSampler())

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        result = self._root.should_sample(parent_context, trace_id, name, kind, attributes, links)
        if result.decision.is_recording():
            return result
        return SamplingResult(Decision.RECORD_ONLY, result.attributes, result.trace_state)

    def get_description(self) -> str:
        return f"AlwaysRecordSampler{{{self._root.get_description()}}}"

    def __repr__(self) -> str:
        return self.get_description()


plugin: type[AlwaysRecordSampler] = AlwaysRecordSampler
