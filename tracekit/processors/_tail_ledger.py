"""What a tail sampler decided, counted by reason."""

from __future__ import annotations

from collections import Counter
from typing import Any

from tracekit.processors._held_trace import Verdict

__all__ = ["TailLedger"]

MOST_LABELS = 64
"""Reasons come from programs too; one with an id in it must not make a counter for each trace."""


class TailLedger:
    """Spans and traces that were kept, and those that were sampled out, by reason.

    Concurrency: written under the lock of the stage.
    """

    def __init__(self) -> None:
        self._spans: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._traces: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        self._early: Counter[str] = Counter()

    def count_trace(self, verdict: Verdict, why_early: str) -> None:
        _add(self._traces[verdict.is_kept], verdict.label, 1)
        if why_early:
            self._early[why_early] += 1

    def count_spans(self, verdict: Verdict, count: int) -> None:
        _add(self._spans[verdict.is_kept], verdict.label, count)

    def sampled_out(self) -> int:
        return self._spans[False].total()

    def stats(self) -> dict[str, Any]:
        sampled_out, kept = self._spans
        traces_out, traces_kept = self._traces
        return {
            "kept": dict(kept),
            "sampled_out": dict(sampled_out),
            "traces": {"kept": dict(traces_kept), "sampled_out": dict(traces_out)},
            "decided_early": dict(self._early),
        }


def _add(counter: Counter[str], label: str, count: int) -> None:
    if label not in counter and len(counter) >= MOST_LABELS:
        label = "other"
    counter[label] += count
