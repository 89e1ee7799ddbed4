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
    "rejected": "the destination refused them for good",
    "unreachable": "nobody answered, and there is no spool (TRACEKIT_SPOOL)",
    "unavailable": "the destination asked to come back later, and there is no spool",
    "throttled": "the destination asked for a longer pause, and there is no spool",
    "destination_down": "the destination was down, and there is no spool (TRACEKIT_SPOOL)",
    "too_large": "the destination takes no request as large as one of these spans",
    "unreadable": "they hold what cannot be sent, such as no ids",
    "spool_failed": "they could be neither sent nor kept; the program's log says why",
    "spool_full": "the spool was full, the oldest had to go (TRACEKIT_SPOOL_MAX_BYTES)",
    "spool_expired": "they were too old when the destination was back (TRACEKIT_SPOOL_MAX_AGE)",
    "spool_unreadable": "the disk gave back something else than what was written",
}


@dataclass
class Fate:
    """Counts of spans, by exporter where there are several; ``lost`` by reason.

    ``spooled`` are this process's spans that went to the disk, wherever they are now. What this
    process did with what it found there, its own or others' spans, is ``recovered`` and
    ``lost_from_spool``. Summed up over all processes, what started is what was exported,
    recovered, or lost, or is open, held, queued, sampled out, filtered (by rule), compressed, or
    still in the spool.

    ``sampled_out`` has those of the sampler and of the tail sampler; ``tail_sampled_out`` are the
    latter by reason, and ``tail_kept`` counts traces.
    """

    started: int = 0
    sampled_out: int = 0
    filtered: Counter[str] = field(default_factory=Counter)
    compressed: int = 0
    inherited: int = 0
    live: int = 0
    waiting: int = 0
    held: int = 0
    tail_kept: Counter[str] = field(default_factory=Counter)
    tail_sampled_out: Counter[str] = field(default_factory=Counter)
    exported: dict[str, int] = field(default_factory=dict)
    spooled: int = 0
    recovered: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    lost_from_spool: Counter[str] = field(default_factory=Counter)
    rejected_for: Counter[str] = field(default_factory=Counter)


def fate_of(ledger: Mapping[str, Any]) -> Fate:
    """Add up a ledger; what another version wrote otherwise counts as nothing."""
    stats = ledger.get("stats", {})
    fate = Fate(
        started=_number(stats, "started"),
        sampled_out=_number(stats, "sampled_out"),
        inherited=_number(stats, "inherited_by_fork"),
        live=_number(stats, "live"),
    )
    fate.filtered.update(_counts(stats, "filtered"))
    for processor in stats.get("processors", ()):
        _add_tail(fate, _part(processor, "tail"))
        fate.filtered.update(_counts(processor, "filtered"))
        fate.waiting += _number(processor, "queued") + _number(processor, "compressing")
        fate.compressed += _number(processor, "compressed")
        fate.lost.update(_counts(processor, "dropped"))
        for lane in processor.get("exporters", ()):
            name = str(lane.get("exporter", ""))
            fate.exported[name] = fate.exported.get(name, 0) + _number(lane, "exported")
            fate.spooled += _number(lane, "spooled")
            fate.waiting += _number(lane, "pending")
            fate.lost.update(_counts(lane, "failed"))
            fate.lost.update(_counts(lane, "dropped"))
            _add_delivery(fate, _part(lane, "delivery"))
    return fate


def _add_tail(fate: Fate, told: Mapping[str, Any]) -> None:
    """Add what a tail sampler holds, and what it did not keep."""
    fate.held += _number(told, "held")
    fate.tail_sampled_out.update(_counts(told, "sampled_out"))
    fate.sampled_out += sum(_counts(told, "sampled_out").values())
    fate.tail_kept.update(_counts(_part(told, "traces"), "kept"))


def _add_delivery(fate: Fate, told: Mapping[str, Any]) -> None:
    """Add what an exporter counts itself, where it counts more than batches."""
    fate.recovered += _number(told, "recovered")
    fate.rejected_for.update(_counts(told, "rejected_for"))
    spool = _part(told, "spool")
    fate.lost_from_spool.update(_counts(spool, "dropped"))
    if rejected := _number(spool, "rejected"):
        fate.lost_from_spool["rejected"] += rejected


def _part(part: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = part.get(key)
    return found if isinstance(found, Mapping) else {}


def _number(counts: Mapping[str, Any], key: str) -> int:
    value = counts.get(key, 0)
    return value if isinstance(value, int) else 0


def _counts(part: Mapping[str, Any], key: str) -> dict[str, int]:
    found = _part(part, key)
    return {str(name): n for name, n in found.items() if isinstance(n, int) and n}


def explain(fate: Fate, running: bool) -> list[str]:
    """Say of every span that did not arrive where it is."""
    lines = [
        *(f"{count} lost: {_because(reason)}" for reason, count in _sorted(fate.lost)),
        *(f'{count} of them: "{said}"' for said, count in _sorted(fate.rejected_for)),
    ]
    if fate.compressed:
        lines.append(f"{fate.compressed} told by siblings that were alike (TRACEKIT_COMPRESS)")
    lines += [f"{count} filtered: {_rule(name)}" for name, count in _sorted(fate.filtered)]
    if fate.spooled:
        lines.append(f"{fate.spooled} kept on the disk until their destination is back")
    if fate.recovered:
        lines.append(f"{fate.recovered} sent from there, its own or other processes'")
    for reason, count in _sorted(fate.lost_from_spool):
        lines.append(f"{count} lost from there: {_because(reason)}")
    if not fate.exported and fate.started:
        lines.append("no exporter was set: its spans went nowhere")
    if fate.tail_kept or fate.tail_sampled_out:
        lines.append(_told_tail(fate))
    unsaid = fate.live + fate.held + fate.waiting
    if unsaid and not running:
        lines.append(
            f"{unsaid} open, held or queued when it was last seen: it was killed (SIGKILL, out of "
            "memory, os._exit), or its spans were never ended"
        )
    if fate.inherited:
        lines.append(f"{fate.inherited} ended here that belong to the process it was forked from")
    return lines


def _told_tail(fate: Fate) -> str:
    """Say why traces were kept that were over, and why the others were not."""
    kept = ", ".join(f"{count} {label}" for label, count in _sorted(fate.tail_kept))
    out = ", ".join(f"{count} {label}" for label, count in _sorted(fate.tail_sampled_out))
    return f"tail sampler kept of traces: {kept or 'none'}; sampled out of spans: {out or 'none'}"


def _rule(name: str) -> str:
    if name == "health":
        return "health checks, which are dropped by default (TRACEKIT_DROP=none keeps them)"
    return f"the rule {name!r} of TRACEKIT_DROP"


def _because(reason: str) -> str:
    return _REASONS.get(reason, f"the exporter {reason}")


def _sorted(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted((reason, count) for reason, count in counts.items() if count)
