"""What became of a process's spans, read from its ledger and told in plain words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Fate", "explain", "fate_of"]

_REASONS = {
    "queue_full": "the queue was full: more spans than the exporter could take "
    "(OTEL_BSP_MAX_QUEUE_SIZE bounds it)",
    "exporter_hangs": "the exporter did not return from several batches",
    "after_shutdown": "they ended after tracekit.shutdown()",
    "exit": "the process ended before the exporter was done (it waits a few seconds)",
    "timeout": "the exporter took longer than OTEL_BSP_EXPORT_TIMEOUT",
    "refused": "the exporter could not deliver them; the program's log says why",
}


@dataclass
class Fate:
    """Counts of spans, by exporter where there are several; ``lost`` by reason."""

    started: int = 0
    sampled_out: int = 0
    inherited: int = 0
    live: int = 0
    waiting: int = 0
    exported: dict[str, int] = field(default_factory=dict)
    lost: Counter[str] = field(default_factory=Counter)


def fate_of(ledger: Mapping[str, Any]) -> Fate:
    """Add up a ledger; what another version wrote otherwise counts as nothing."""
    stats = ledger.get("stats", {})
    fate = Fate(
        started=_number(stats, "started"),
        sampled_out=_number(stats, "sampled_out"),
        inherited=_number(stats, "inherited_by_fork"),
        live=_number(stats, "live"),
    )
    for processor in stats.get("processors", ()):
        fate.waiting += _number(processor, "queued")
        fate.lost.update(_counts(processor, "dropped"))
        for lane in processor.get("exporters", ()):
            name = str(lane.get("exporter", ""))
            fate.exported[name] = fate.exported.get(name, 0) + _number(lane, "exported")
            fate.waiting += _number(lane, "pending")
            fate.lost.update(_counts(lane, "failed"))
            fate.lost.update(_counts(lane, "dropped"))
    return fate


def _number(counts: Mapping[str, Any], key: str) -> int:
    value = counts.get(key, 0)
    return value if isinstance(value, int) else 0


def _counts(part: Mapping[str, Any], key: str) -> dict[str, int]:
    found = part.get(key, {})
    return {str(name): number for name, number in found.items() if number}


def explain(fate: Fate, running: bool) -> list[str]:
    """Say of every span that did not arrive where it is."""
    lines = [
        f"{count} lost: {_REASONS.get(reason, f'the exporter {reason}')}"
        for reason, count in sorted(fate.lost.items())
    ]
    if not fate.exported and fate.started:
        lines.append("no exporter was set: its spans went nowhere")
    unsaid = fate.live + fate.waiting
    if unsaid and not running:
        lines.append(
            f"{unsaid} open or queued when it was last seen: it was killed (SIGKILL, out of "
            "memory, os._exit), or its spans were never ended"
        )
    if fate.inherited:
        lines.append(f"{fate.inherited} ended here that belong to the process it was forked from")
    return lines
