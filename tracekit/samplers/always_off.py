"""``always_off``: no span is recorded."""

from __future__ import annotations

from tracekit.model import Decision
from tracekit.samplers.always_on import AlwaysOnSampler

__all__ = ["AlwaysOffSampler"]


class AlwaysOffSampler(AlwaysOnSampler):
    """Drop everything; contexts are still propagated, with the sampled flag off.

    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#alwaysoff
    """

    decision = Decision.DROP
    threshold = 1 << 56


plugin: type[AlwaysOffSampler] = AlwaysOffSampler
