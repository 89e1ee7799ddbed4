"""What a tail sampler adds to a span."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import Effort, Figures, compare, row
from benchmarks.sides import Discard, with_and_without
from benchmarks.spans import SPANS, roots, trees
from tracekit.exporters._otlp_encoder import encode
from tracekit.processors.tail import TailSampler, TailSettings


def _compared(settings: TailSettings, work: Any, exporter: Any, effort: Effort) -> Figures:
    def stage(batch: Any) -> TailSampler:
        return TailSampler(batch, settings)

    with with_and_without(stage, exporter) as (without, with_tail):
        # Longer rounds than elsewhere: a flush decides at once, which a program does seldom.
        items = 5 * SPANS
        return compare(without.contestant(work), with_tail.contestant(work), items, effort)


@row("tail.all", "beside a tail sampler that keeps all, against none", must=1.15, aim=1.08)
def keeping_all(effort: Effort) -> Figures:
    return _compared(TailSettings(share=1.0), trees, lambda: Discard(encode), effort)


@row("tail.tenth", "beside one that keeps a tenth, against none", must=1.15, aim=0.7)
def keeping_a_tenth(effort: Effort) -> Figures:
    return _compared(TailSettings(share=0.1), trees, lambda: Discard(encode), effort)


@row("tail.roots", "the same of bare root spans")
def single_spans(effort: Effort) -> Figures:
    return _compared(TailSettings(share=0.1), roots, lambda: Discard(encode), effort)


@row("tail.discard", "beside one that keeps all, nothing exported")
def nothing_exported(effort: Effort) -> Figures:
    return _compared(TailSettings(share=1.0), trees, Discard, effort)
