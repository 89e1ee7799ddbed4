"""Traces for the commands, from wherever they are kept, with what is usual there."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from tracekit.findings._history import History
    from tracekit.trace import Trace

__all__ = ["Asked", "Traces", "Wanted"]


class Wanted(NamedTuple):
    """Which of many traces: those since then that have a span of a service, and of a name."""

    since_ns: int | None = None
    service: str | None = None
    name: str | None = None
    until_ns: int | None = None

    @property
    def is_any(self) -> bool:
        return self != Wanted()

    def matches(self, trace: Trace) -> bool:
        if trace.start < (self.since_ns or 0):
            return False
        if self.until_ns is not None and trace.start >= self.until_ns:
            return False
        return any(
            self.service in (None, node.service) and self.name in (None, node.name)
            for node in trace.nodes
        )


class Asked(NamedTuple):
    """A trace as a list has it: what was asked of whom, and how it went."""

    trace_id: int
    service: str
    name: str
    start_ns: int
    duration_ns: int
    failed: bool


class Traces:
    """The traces of one place, open while a command runs; for use by one thread.

    Attributes:
        most: How many traces ``asked`` returns at most.
        nothing: What to say where no trace is as wanted.
    """

    most = 1_000
    nothing: str

    def one(self, name: str) -> Trace:
        """Return a trace by its id or the beginning of it, or the ``last`` one.

        Raises:
            ClickException, TracekitError: There is none, or the place cannot be asked.
        """
        raise NotImplementedError

    def many(self, wanted: Wanted, limit: int) -> list[Trace]:
        """Return the newest traces that are wanted; an empty list if there is none.

        Raises:
            TracekitError: The place cannot be asked.
        """
        raise NotImplementedError

    def unnamed(self, limit: int) -> list[Trace]:
        """Return what is meant where no trace is named: the latest."""
        return [self.one("last")]

    def usual(self, trace: Trace | None = None) -> History:
        """Return what is usual: about the time of this trace, or altogether."""
        raise NotImplementedError

    def asked(self, wanted: Wanted) -> list[Asked]:
        """List the newest traces that are wanted and have ended."""
        return [_asked(trace) for trace in self.many(wanted, self.most)]

    def close(self) -> None:
        """Let go of the place, and say what of it could not be read."""


def _asked(trace: Trace) -> Asked:
    root = trace.asked
    failed = any(node.is_error for node in trace.roots)
    return Asked(trace.trace_id, root.service, root.name, trace.start, trace.latency_ns, failed)
