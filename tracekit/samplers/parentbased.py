"""``parentbased_*``: children follow their parent; roots are decided by another sampler."""

from __future__ import annotations

from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind

from tracekit.interfaces import Sampler
from tracekit.model import Attributes, SamplingResult
from tracekit.samplers._parent import followed_trace_state, parent_span_context
from tracekit.samplers.always_off import AlwaysOffSampler
from tracekit.samplers.always_on import AlwaysOnSampler
from tracekit.samplers.traceidratio import TraceIdRatioBased

__all__ = ["ParentBased", "ParentBasedTraceIdRatio"]

_ON, _OFF = AlwaysOnSampler(), AlwaysOffSampler()
_FOLLOWS = (AlwaysOffSampler, AlwaysOnSampler)
"""What decides as a parent did that was not sampled, or was: the parent's threshold holds on."""


class ParentBased:
    """Ask one of five samplers: for roots, and for each kind of parent.

    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#parentbased
    """

    def __init__(
        self,
        root: Sampler,
        remote_parent_sampled: Sampler = _ON,
        remote_parent_not_sampled: Sampler = _OFF,
        local_parent_sampled: Sampler = _ON,
        local_parent_not_sampled: Sampler = _OFF,
    ) -> None:
        self.root_sampler = root
        self._remote = (remote_parent_not_sampled, remote_parent_sampled)
        self._local = (local_parent_not_sampled, local_parent_sampled)
        self.follows_local_parent = (
            type(local_parent_sampled) is AlwaysOnSampler
            and type(local_parent_not_sampled) is AlwaysOffSampler
        )
        # Not for a class that inherits and decides otherwise.
        self.follows_remote_parent = (
            type(remote_parent_sampled) is AlwaysOnSampler
            and type(remote_parent_not_sampled) is AlwaysOffSampler
            and type(self).should_sample is ParentBased.should_sample
        )

    def with_root(self, root: Sampler) -> ParentBased:
        """Return the same with another sampler for roots."""
        return ParentBased(
            root,
            remote_parent_sampled=self._remote[1],
            remote_parent_not_sampled=self._remote[0],
            local_parent_sampled=self._local[1],
            local_parent_not_sampled=self._local[0],
        )

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        parent = parent_span_context(parent_context)
        sampler = self.root_sampler if parent is None else self._sampler_for(parent)
        if parent is not None and type(sampler) is _FOLLOWS[parent.trace_flags.sampled]:
            return SamplingResult(sampler.decision, None, followed_trace_state(parent))
        return sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def _sampler_for(self, parent: SpanContext) -> Sampler:
        return (self._remote if parent.is_remote else self._local)[parent.trace_flags.sampled]

    def get_description(self) -> str:
        names = ["root", "remoteParentNotSampled", "remoteParentSampled"]
        names += ["localParentNotSampled", "localParentSampled"]
        parts = zip(names, (self.root_sampler, *self._remote, *self._local), strict=True)
        inner = ",".join(f"{name}:{part.get_description()}" for name, part in parts)
        return f"ParentBased{{{inner}}}"

    def __repr__(self) -> str:
        return self.get_description()


class ParentBasedTraceIdRatio(ParentBased):
    """Keep a share of the traces that begin here, and follow the parent otherwise."""

    def __init__(self, rate: float) -> None:
        super().__init__(root=TraceIdRatioBased(rate))


plugin: type[ParentBased] = ParentBased
