"""Traces of a store file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tracekit.cli._traces import Asked, Traces, Wanted

if TYPE_CHECKING:
    from tracekit.findings._history import History
    from tracekit.store.answers import TraceSummary
    from tracekit.trace import Trace

__all__ = ["StoredTraces"]

USUAL_NS = 3600 * 1_000_000_000
MOST_USUAL = 100_000
"""Spans whose durations say what is usual; the newest before a trace are enough."""


class StoredTraces(Traces):
    """What a store has. Others may write to it meanwhile; each answer is a snapshot."""

    most = 10_000
    nothing = "no trace of the store is like that; `tracekit ls` lists all"

    def __init__(self, path: str | None) -> None:
        from tracekit.store.reader import StoreReader

        self._reader = StoreReader(path)

    def one(self, name: str) -> Trace:
        from tracekit.trace import traces_of

        (found,) = traces_of(self._reader.trace(name))
        return found

    def many(self, wanted: Wanted, limit: int) -> list[Trace]:
        from tracekit.trace import traces_of

        found = self._summaries(wanted, limit)
        return [trace for each in found for trace in traces_of(self._reader.trace(each.trace_id))]

    def usual(self, trace: Trace | None = None) -> History:
        """Return what was usual in the hour before this trace, or is in the newest ones.

        Cost: 1 µs for each of so many spans, however large the store is.
        """
        from tracekit.findings._history import history_from

        until_ns = None if trace is None else trace.end
        since_ns = None if until_ns is None else until_ns - USUAL_NS
        return history_from(
            self._reader.operations(since_ns=since_ns, until_ns=until_ns, most_spans=MOST_USUAL)
        )

    def asked(self, wanted: Wanted) -> list[Asked]:
        found = self._summaries(wanted, self.most)
        took = self._reader.root_durations([each.trace_id for each in found])
        return [
            Asked(
                each.trace_id,
                each.service,
                each.name,
                each.start_ns,
                took[each.trace_id],
                each.failed,
            )
            for each in found
            if each.trace_id in took
        ]

    def _summaries(self, wanted: Wanted, limit: int) -> list[TraceSummary]:
        from tracekit.store.query import SpanFilter, TraceFilter

        where = TraceFilter(since_ns=wanted.since_ns, until_ns=wanted.until_ns)
        spans = SpanFilter(service=wanted.service, name=wanted.name)
        return self._reader.traces(limit, where=where, spans=spans)

    def close(self) -> None:
        self._reader.close()
