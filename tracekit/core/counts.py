"""The counters of the span path; what happens after the end is counted by the processors."""

from __future__ import annotations

from typing import Any

from tracekit import _fork as fork
from tracekit._ledger import Counter, Tally

__all__ = ["Counts"]


class Counts:
    """How many spans were started, sampled out, and treated strangely, in this process.

    ``filtered`` is by rule.
    """

    def __init__(self) -> None:
        self.started = Counter()
        self.sampled_out = Counter()
        self.filtered = Tally()
        self.recorded_only = Counter()
        self.late_writes = Counter()
        self.foreign_scope_exits = Counter()
        self.inherited_by_fork = Counter()
        self.processor_errors = Counter()
        self.ended = Counter()
        fork.on_fork_in_child(self)

    def after_fork_in_child(self) -> None:
        for counter in vars(self).values():
            counter.after_fork_in_child()

    def read(self) -> dict[str, Any]:
        return {name: counter.read() for name, counter in vars(self).items()}
