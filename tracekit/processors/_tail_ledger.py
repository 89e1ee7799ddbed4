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

    Concurrency: under the lock of the stage.
    """

    def __init__(self) -> None:
        self._verdicts: dict[tuple[bool, str, int], Verdict] = {}
        self._early: Counter[str] = Counter()

    def verdict(self, is_kept: bool, label: str, threshold: int = 0) -> Verdict:
        """Return the one verdict of that kind, which counts what it was given to."""
        key = (is_kept, label, threshold)
        found = self._verdicts.get(key)
        if found is None:
            if len(self._verdicts) >= MOST_LABELS and label != "other":
                return self.verdict(is_kept, "other", threshold)
            found = self._verdicts[key] = Verdict(*key)
        return found

    def forget(self) -> None:
        """Count from zero again."""
        self._early.clear()
        for verdict in self._verdicts.values():
            verdict.traces = verdict.spans = 0

    def count_early(self, why: str) -> None:
        self._early[why] += 1

    def sampled_out(self) -> int:
        """Return how many spans were not kept."""
        return sum([each.spans for each in self._verdicts.values() if not each.is_kept])

    def stats(self) -> dict[str, Any]:
        spans: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        traces: tuple[Counter[str], Counter[str]] = (Counter(), Counter())
        for verdict in self._verdicts.values():
            if verdict.traces or verdict.spans:
                spans[verdict.is_kept][verdict.label] += verdict.spans
                traces[verdict.is_kept][verdict.label] += verdict.traces
        return {
            "kept": dict(spans[True]),
            "sampled_out": dict(spans[False]),
            "traces": {"kept": dict(traces[True]), "sampled_out": dict(traces[False])},
            "decided_early": dict(self._early),
        }
