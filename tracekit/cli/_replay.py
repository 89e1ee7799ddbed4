"""Spans on their way from a store or a file to exporters, and what became of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.trace import format_trace_id

from tracekit.interfaces import SpanExporter, SpanExportResult
from tracekit.model import SpanRecord

if TYPE_CHECKING:
    from tracekit.store.reader import StoreReader

__all__ = ["Destination", "Wanted", "is_store", "replay", "same_file", "spans_of_store"]

_BATCH = 512
_PAGE = 500
_SQLITE_MAGIC = b"SQLite format 3\x00"


@dataclass(frozen=True)
class Wanted:
    """Which spans are sent; None stands for any.

    Attributes:
        trace: The beginning of a trace id in hexadecimal.
    """

    service: str | None = None
    since_ns: int | None = None
    trace: str | None = None

    def takes(self, span: SpanRecord) -> bool:
        return (
            (self.service is None or span.resource.attributes.get("service.name") == self.service)
            and (self.since_ns is None or span.start_time >= self.since_ns)
            and (
                self.trace is None
                or format_trace_id(span.context.trace_id).startswith(self.trace.lower())
            )
        )


def is_store(path: str) -> bool:
    """Tell a store from a file of traces by its first bytes.

    Raises:
        OSError: The file cannot be opened.
    """
    if path == "-":
        return False
    with open(path, "rb") as file:
        return file.read(len(_SQLITE_MAGIC)) == _SQLITE_MAGIC


def spans_of_store(reader: StoreReader, wanted: Wanted) -> Iterator[SpanRecord]:
    """Yield the spans of a store, one trace at a time, the newest first."""
    if wanted.trace is not None:
        # The store knows more names of a trace than ids begin with, and says which are ambiguous.
        wanted = replace(wanted, trace=format_trace_id(reader.resolve(wanted.trace)))
        traces: Iterable[int] = [int(str(wanted.trace), 16)]
    else:
        traces = _traces(reader, wanted)
    for trace_id in traces:
        yield from filter(wanted.takes, reader.trace(trace_id))


def _traces(reader: StoreReader, wanted: Wanted) -> Iterator[int]:
    """Yield ids, a page at a time: a store may hold more traces than fit into memory."""
    from tracekit.store.query import SpanFilter, TraceFilter

    until, seen, size = None, set[int](), _PAGE
    spans = SpanFilter(service=wanted.service)
    while True:
        # A trace that began before may have later spans; how long it took is not asked for here.
        page = reader.traces(size, where=TraceFilter(until_ns=until), spans=spans)
        yield from (trace.trace_id for trace in page if trace.trace_id not in seen)
        if len(page) < size:
            return
        last = page[-1].start_ns
        # Traces of the last moment come again with the next page; where that one holds nothing
        # else, it has to be larger to get any further.
        of_last = {trace.trace_id for trace in page if trace.start_ns == last}
        seen, size = (seen | of_last, 2 * size) if until == last + 1 else (of_last, _PAGE)
        until = last + 1


class Destination:
    """One exporter, and the count of what it was given.

    Attributes:
        failed: Spans that were not delivered, by reason.
    """

    def __init__(self, name: str, exporter: SpanExporter) -> None:
        self.name = name
        self.exporter = exporter
        self.offered = 0
        self._taken = 0
        self._failed: Counter[str] = Counter()

    def export(self, spans: Sequence[SpanRecord]) -> None:
        """Send a batch. Raises nothing that an exporter can cause."""
        self.offered += len(spans)
        try:
            result = self.exporter.export(spans)
        except Exception as error:
            self._failed[f"{type(error).__name__}: {error}"] += len(spans)
            return
        # By name: opentelemetry-sdk's exporters have a result of their own.
        if getattr(result, "name", "") == SpanExportResult.SUCCESS.name:
            self._taken += len(spans)
        else:
            self._failed["refused by the exporter"] += len(spans)

    def close(self) -> None:
        try:
            self.exporter.force_flush()
            self.exporter.shutdown()
        except Exception as error:
            self._failed[f"{type(error).__name__} at shutdown: {error}"] += 0

    def outcome(self) -> dict[str, Any]:
        """Return how many spans were sent, and how many were not for which reason."""
        sent, failed = self._taken, {reason: n for reason, n in self._failed.items() if n}
        stats = self._stats()
        if stats:
            sent = stats["sent"]
            failed = {**stats.get("dropped", {}), "rejected": stats.get("rejected", 0)}
            # What it counts under another name (kept on disk, say) was not delivered either.
            failed["not delivered yet"] = self.offered - sent - sum(failed.values())
        failed = {reason: count for reason, count in failed.items() if count > 0}
        return {"exporter": self.name, "sent": sent, "failed": failed, **_said(stats)}

    def _stats(self) -> dict[str, Any]:
        stats = getattr(self.exporter, "stats", None)
        found: Any = stats() if callable(stats) else {}
        return found if isinstance(found, dict) and isinstance(found.get("sent"), int) else {}


def _said(stats: dict[str, Any]) -> dict[str, Any]:
    return {
        key: stats[key] for key in ("destination", "last_failure") if stats.get(key) is not None
    }


def replay(spans: Iterable[SpanRecord], destinations: Sequence[Destination]) -> int:
    """Send all spans that have ended to each destination; return how many have not."""
    unfinished = 0
    source = iter(spans)
    while batch := list(islice(source, _BATCH)):
        ended = [span for span in batch if span.end_time is not None]
        unfinished += len(batch) - len(ended)
        if ended:
            for destination in destinations:
                destination.export(ended)
    for destination in destinations:
        destination.close()
    return unfinished


def same_file(one: str | Path, other: str | Path) -> bool:
    return Path(one).resolve() == Path(other).resolve()
