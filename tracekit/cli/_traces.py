"""Traces of the store, with what is usual there: what the commands about findings read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracekit.findings._history import History
    from tracekit.store.reader import StoreReader
    from tracekit.trace import Trace

__all__ = ["opened", "read_trace", "read_traces", "usual"]


@contextmanager
def opened(store: str | None) -> Iterator[StoreReader]:
    from tracekit.store.reader import StoreReader

    with StoreReader(store) as reader:
        yield reader


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


def usual(reader: StoreReader) -> History:
    """Return what is usual in the whole store. Cost: 1 µs for each span."""
    from tracekit.findings._history import ENOUGH, Usual

    return {
        (found.service, found.name): Usual(found.count, found.p50_ns, found.p95_ns)
        for found in reader.operations()
        if found.count >= ENOUGH
    }
