"""Traces of the store, files or a server, with what is usual there, for the commands."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

if TYPE_CHECKING:
    from tracekit.findings._history import History
    from tracekit.store.reader import StoreReader
    from tracekit.trace import Trace

__all__ = [
    "Traces",
    "Wanted",
    "of_files",
    "of_source",
    "of_store",
    "opened",
    "read_trace",
    "read_traces",
    "usual",
]


USUAL_NS = 3600 * 1_000_000_000


class Wanted(NamedTuple):
    """Which of many traces: those since then that have a span of a service, and of a name."""

    since_ns: int | None = None
    service: str | None = None
    name: str | None = None

    @property
    def is_any(self) -> bool:
        return self != Wanted()

    def matches(self, trace: Trace) -> bool:
        if self.since_ns is not None and trace.start < self.since_ns:
            return False
        return any(
            self.service in (None, node.service) and self.name in (None, node.name)
            for node in trace.nodes
        )


class Traces(NamedTuple):
    """Traces, and what is usual where they come from."""

    traces: Sequence[Trace]
    history: History


@contextmanager
def opened(store: str | None) -> Iterator[StoreReader]:
    from tracekit.store.reader import StoreReader

    with StoreReader(store) as reader:
        yield reader


def of_store(store: str | None, trace: str, wanted: Wanted, limit: int) -> Traces:
    """Read one trace of the store, named as for ``tracekit show``, or all that are wanted."""
    with opened(store) as reader:
        if not wanted.is_any:
            found = read_trace(reader, trace or "last")
            return Traces([found], usual(reader, found.end))
        history = usual(reader)
        conditions = {"since_ns": wanted.since_ns, "service": wanted.service, "name": wanted.name}
        return Traces(list(read_traces(reader, limit, **conditions)), history)


def of_files(
    paths: Sequence[str], format_name: str | None, trace: str, wanted: Wanted, limit: int
) -> Traces:
    """Read the traces of files; what cannot be read is told, and the rest is used.

    Raises:
        ClickException: A file cannot be opened, or there is no such trace in them.
    """
    from tracekit.cli import _trace_files
    from tracekit.findings._history import history_of
    from tracekit.trace import traces_of

    spans: list[Any] = []
    for path in paths:
        try:
            with _trace_files.opened(path, format_name) as file:
                spans += file
        except OSError as error:
            raise click.ClickException(f"{path}: {error.strerror or error}") from error
        _trace_files.tell_unreadable(path, file)
    traces = traces_of(spans)
    chosen = [
        found
        for found in traces
        if f"{found.trace_id:032x}".startswith(trace.lower()) and wanted.matches(found)
    ]
    if not chosen:
        what = f"no trace that begins with {trace}" if trace else "no such trace"
        raise click.ClickException(f"{what} in {', '.join(paths)}")
    newest = sorted(chosen, key=lambda found: -found.start)
    return Traces(newest[:limit], history_of(traces))


def of_source(given: str, trace: str, wanted: Wanted, limit: int) -> Traces:
    """Ask a server for one trace by its id, or for the latest ones that are wanted.

    Raises:
        ClickException: It has no such trace.
        SourceError: It cannot be asked.
    """
    from tracekit.findings._history import history_of
    from tracekit.sources._opening import source_of
    from tracekit.sources._source import Recent
    from tracekit.trace import traces_of

    source = source_of(given, "--from")
    if trace in ("", "last"):
        most = limit if wanted.is_any else 1
        spans = source.recent(Recent(most, wanted.service, wanted.name, wanted.since_ns))
    else:
        most, spans = 1, source.trace(trace)
    try:
        newest = sorted(traces_of(spans), key=lambda found: -found.start)
    finally:
        source.server.close()
    for remark in source.remarks:
        click.echo(f"{source.server.url}: partial: {remark}", err=True)
    if not newest:
        what = f"trace {trace}" if trace else "such trace in that time"
        raise click.ClickException(f"{source.server.url} has no {what}")
    return Traces(newest[:most], history_of(newest))


def read_trace(reader: StoreReader, trace: str | int) -> Trace:
    """Return one trace, named as for ``tracekit show``."""
    from tracekit.trace import traces_of

    (found,) = traces_of(reader.trace(trace))
    return found


def read_traces(reader: StoreReader, limit: int, **conditions: Any) -> Iterator[Trace]:
    """Read the newest traces that meet the conditions, one at a time.

    Args:
        conditions: ``service``, ``name`` of a span; ``since_ns``, ``until_ns``, ``errors_only``.
    """
    from tracekit.store.query import SpanFilter, TraceFilter

    spans = SpanFilter(service=conditions.pop("service", None), name=conditions.pop("name", None))
    where = TraceFilter(**conditions)
    for summary in reader.traces(limit, where=where, spans=spans):
        yield read_trace(reader, summary.trace_id)


def usual(reader: StoreReader, before_ns: int | None = None) -> History:
    """Return what is usual in the store, or was in the hour before a moment.

    Cost: 1 µs for each span of that time, so that one trace of a large store is shown at once.
    """
    from tracekit.findings._history import ENOUGH, Usual

    since_ns = None if before_ns is None else before_ns - USUAL_NS
    return {
        (found.service, found.name): Usual(found.count, found.p50_ns, found.p95_ns)
        for found in reader.operations(since_ns=since_ns, until_ns=before_ns)
        if found.count >= ENOUGH
    }
