"""Root spans that the sampler drops."""

from __future__ import annotations

from opentelemetry.sdk.trace import sampling

from benchmarks.harness import Effort, Figures, compare, row
from benchmarks.sides import both_sides
from benchmarks.spans import roots
from tracekit import sdk

SPANS = 4000


@row("dropped.ratio", "dropped: parent-based ratio 0.0", must=0.15, aim=0.08)
def dropped_by_ratio(effort: Effort) -> Figures:
    samplers = (sampling.ParentBasedTraceIdRatio(0.0), sdk.ParentBasedTraceIdRatio(0.0))
    with both_sides(samplers) as (theirs, ours):
        return compare(theirs.contestant(roots), ours.contestant(roots), SPANS, effort)


@row("dropped.always_off", "dropped: always_off", must=0.15, aim=0.08)
def dropped_always(effort: Effort) -> Figures:
    with both_sides((sampling.ALWAYS_OFF, sdk.ALWAYS_OFF)) as (theirs, ours):
        return compare(theirs.contestant(roots), ours.contestant(roots), SPANS, effort)
