"""Read spans from the store."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from tracekit.errors import StoreError
from tracekit.model import InstrumentationScope, Resource, SpanRecord
from tracekit.store import connection
from tracekit.store.answers import (
    Changes,
    OperationStats,
    StoreStats,
    TraceSummary,
    UnfinishedSpan,
)
from tracekit.store.location import default_path
from tracekit.store.operations import collect_operations
from tracekit.store.origins import read_resource, read_scope
from tracekit.store.process import is_lost
from tracekit.store.query import Clause, SpanFilter, TraceFilter
from tracekit.store.rows import Row, SpanDecoder
from tracekit.store.summaries import COLUMNS, ORDERS, resolve, root_duration, summarise

__all__ = ["Order", "StoreReader"]

Order = Literal["newest", "slowest"]

_WAIT_S = 2.0
_COMMON = 2000


class StoreReader:
    """Answer questions about the stored traces; never change them.

    Each answer is a snapshot: writers may go on meanwhile.

    Concurrency: calls from several threads wait for one another. In a forked child, make a
    new reader.
    Raises: every method StoreError, or one of its kinds, with what to do about it.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.path = default_path() if path is None else Path(path)
        self._db: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._resources: dict[int, Resource] = {}
        self._scopes: dict[int, InstrumentationScope] = {}

    def close(self) -> None:
        with self._lock:
            self._close()

    def __enter__(self) -> StoreReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- lists ---------------------------------------------------------------------------------

    def traces(
        self,
        limit: int = 20,
        *,
        where: TraceFilter | None = None,
        spans: SpanFilter | None = None,
        order: Order = "newest",
    ) -> list[TraceSummary]:
        """List traces that meet ``where`` and hold a span that meets ``spans``.

        Cost: a few ms with a million spans stored; up to 50 when few traces match.
        """
        with self._snapshot() as db:
            found = islice(self._matching_traces(db, where, spans, order, limit), limit)
            return [summarise(db, row) for row in list(found)]

    def summary(self, trace: str | int = "last") -> TraceSummary:
        """Return the summary of one trace, named as for ``trace``."""
        with self._snapshot() as db:
            return summarise(db, resolve(db, trace, self.path))

    def root_durations(self, traces: Sequence[int]) -> dict[int, int]:
        """Return by trace id how long the root took, for those whose root has ended.

        That is what whoever asked had to wait, where a trace goes on after its answer.
        Cost: 20 µs a trace.
        """
        with self._snapshot() as db:
            found = ((trace_id, root_duration(db, trace_id)) for trace_id in traces)
            return {trace_id: took for trace_id, took in found if took is not None}

    def spans(
        self,
        limit: int = 100,
        *,
        where: TraceFilter | None = None,
        spans: SpanFilter | None = None,
        order: Order = "newest",
    ) -> list[SpanRecord]:
        """List ended spans that meet ``spans``: trace by trace in ``order``, each by start."""
        spans = spans or SpanFilter()
        with self._snapshot() as db:
            traces = self._candidates(db, where, spans, order, limit)
            return list(islice(self._matching_spans(db, traces, spans), limit))

    # --- one trace -----------------------------------------------------------------------------

    def resolve(self, trace: str | int = "last") -> int:
        """Return the id of a trace, named as for ``trace``."""
        with self._snapshot() as db:
            return int.from_bytes(resolve(db, trace, self.path)[1], "big")

    def trace(self, trace: str | int = "last") -> list[SpanRecord]:
        """Return the spans of one trace by start; those under way have no ``end_time``.

        Args:
            trace: A trace id, as a number or in hexadecimal, of which the beginning is enough
                when no other begins so; or ``last``, the one whose local root started last.
        """
        with self._snapshot() as db:
            number, packed = resolve(db, trace, self.path)[:2]
            spans = [span for span, _ in self._spans_of(db, number, packed)]
            ended = {span.context.span_id for span in spans}
            started = [item.span for item in self._started(db, Clause("trace = ?", (number,)))]
            spans += [span for span in started if span.context.span_id not in ended]
        spans.sort(key=_span_order)
        return spans

    # --- the whole store -----------------------------------------------------------------------

    def services(self) -> list[str]:
        """Return the names of all services that stored a span."""
        with self._snapshot() as db:
            rows = db.execute(
                "SELECT DISTINCT service FROM resources WHERE EXISTS "
                "(SELECT 1 FROM segments WHERE resource = resources.id) OR EXISTS "
                "(SELECT 1 FROM started WHERE resource = resources.id) ORDER BY service"
            )
            return [row[0] for row in rows]

    def operations(
        self,
        *,
        service: str | None = None,
        name: str | None = None,
        since_ns: int | None = None,
        until_ns: int | None = None,
        most_spans: int | None = None,
    ) -> list[OperationStats]:
        """Return figures for each service, name and kind of span; most time spent first.

        Args:
            since_ns: Batches of a trace that lie wholly before it, or after ``until_ns``, are
                left out.
            most_spans: Where there are more, those that were stored last are taken.

        Cost: 1 µs for each span that is taken.
        """
        wanted = SpanFilter(service=service, name=name)
        with self._snapshot() as db:
            parts = [wanted.segment_clause(db)]
            if since_ns is not None:
                parts.append(Clause("end_ns >= ?", (since_ns,)))
            if until_ns is not None:
                parts.append(Clause("start_ns < ?", (until_ns,)))
            return collect_operations(db, Clause.all_of(parts), name, most_spans)

    def unfinished(self) -> list[UnfinishedSpan]:
        """Return the spans that have no end, oldest first."""
        with self._snapshot() as db:
            found = self._started(db, Clause("1"))
        return sorted(found, key=lambda item: _span_order(item.span))

    def stats(self) -> StoreStats:
        """Return how much is stored. Cost: 20 ms for each 100,000 traces."""
        with self._snapshot() as db:
            traces, spans, oldest, newest = db.execute(
                "SELECT count(*), total(span_count), min(start_ns), max(start_ns) FROM traces"
            ).fetchone()
            (unfinished,) = db.execute("SELECT count(*) FROM started").fetchone()
        size = sum(_size(Path(f"{self.path}{suffix}")) for suffix in ("", "-wal", "-shm"))
        return StoreStats(str(self.path), size, traces, int(spans), unfinished, oldest, newest)

    def changes_since(self, cursor: str = "", limit: int = 1000) -> Changes:
        """Return which traces got spans, ended or started, since an earlier call.

        Args:
            cursor: What the earlier call returned; empty for the present moment, which
                returns no traces.

        Cost: 50 µs when nothing changed.
        """
        with self._snapshot() as db:
            newest = _cursor(db)
            if not cursor:
                return Changes(newest, ())
            segment, started = _read_cursor(cursor)
            rows = db.execute(
                "SELECT trace_id FROM traces WHERE id IN "
                "(SELECT trace FROM segments WHERE id > ? UNION "
                "SELECT trace FROM started WHERE id > ?) ORDER BY start_ns DESC, id DESC LIMIT ?",
                (segment, started, limit),
            )
            return Changes(newest, tuple([int.from_bytes(row[0], "big") for row in rows]))

    # --- finding -------------------------------------------------------------------------------

    def _matching_traces(
        self,
        db: sqlite3.Connection,
        where: TraceFilter | None,
        spans: SpanFilter | None,
        order: Order,
        limit: int,
    ) -> Iterator[Sequence[Any]]:
        spans = spans or SpanFilter()
        for row in self._candidates(db, where, spans, order, limit):
            if spans.is_empty() or any(self._matching_spans(db, [row], spans)):
                yield row

    def _candidates(
        self,
        db: sqlite3.Connection,
        where: TraceFilter | None,
        spans: SpanFilter,
        order: Order,
        limit: int,
    ) -> Iterator[Sequence[Any]]:
        """Yield rows of traces in order; each has a segment that may hold a wanted span."""
        clause = (where or TraceFilter()).clause()
        if not spans.is_empty():
            clause = Clause.all_of([clause, self._with_segments(db, spans)])
        top = f"LIMIT {max(limit, 0)}" if spans.is_empty() else ""
        yield from db.execute(
            f"SELECT {COLUMNS} FROM traces WHERE {clause.sql} ORDER BY {ORDERS[order]} {top}",
            clause.parameters,
        )

    def _with_segments(self, db: sqlite3.Connection, spans: SpanFilter) -> Clause:
        """Choose how to get from matching segments to traces.

        Few matches are collected first, by one scan of all segments. When there are many, the
        first traces in order are likely to be among them: look from there, one by one.
        """
        wanted = spans.segment_clause(db)
        found = db.execute(
            f"SELECT DISTINCT trace FROM segments WHERE {wanted.sql} LIMIT {_COMMON}",
            wanted.parameters,
        ).fetchall()
        if len(found) < _COMMON:
            return Clause(f"id IN ({','.join(str(row[0]) for row in found)})")
        return Clause(
            f"EXISTS (SELECT 1 FROM segments WHERE trace = traces.id AND {wanted.sql})",
            wanted.parameters,
        )

    def _matching_spans(
        self, db: sqlite3.Connection, traces: Iterator[Any] | list[Any], wanted: SpanFilter
    ) -> Iterator[SpanRecord]:
        clause = wanted.segment_clause(db)
        for number, packed, *_ in traces:
            found = self._spans_of(db, number, packed, clause, wanted)
            yield from sorted([span for span, _ in found], key=_span_order)

    def _spans_of(
        self,
        db: sqlite3.Connection,
        number: int,
        packed: bytes,
        clause: Clause | None = None,
        wanted: SpanFilter | None = None,
    ) -> list[tuple[SpanRecord, str]]:
        """Return the ended spans of a trace; of two with one id the later."""
        clause = clause or Clause("1")
        segments = db.execute(
            "SELECT resource, spans FROM segments JOIN payloads USING (id) "
            f"WHERE trace = ? AND {clause.sql} ORDER BY id",
            (number, *clause.parameters),
        ).fetchall()
        decoder = SpanDecoder(int.from_bytes(packed, "big"), _Scopes(db, self._scopes))
        rows: dict[str, tuple[Row, Resource]] = {}
        for resource_id, text in segments:
            resource = self._resource(db, resource_id)
            for row in json.loads(text):
                if wanted is None or wanted.matches(row, resource.attributes):
                    rows[row[0]] = row, resource
        return [(decoder.decode(*pair), span_id) for span_id, pair in rows.items()]

    def _started(self, db: sqlite3.Connection, clause: Clause) -> list[UnfinishedSpan]:
        found = db.execute(
            "SELECT trace_id, resource, process, span FROM started "
            f"JOIN traces ON traces.id = trace WHERE {clause.sql}",
            clause.parameters,
        ).fetchall()
        lost = {process: is_lost(process) for process in {row[2] for row in found}}
        return [self._unfinished(db, row, lost[row[2]]) for row in found]

    def _unfinished(self, db: sqlite3.Connection, row: Any, lost: bool) -> UnfinishedSpan:
        packed, resource, process, text = row
        decoder = SpanDecoder(int.from_bytes(packed, "big"), _Scopes(db, self._scopes))
        span = decoder.decode(json.loads(text), self._resource(db, resource))
        return UnfinishedSpan(span, int(process.partition(":")[0]), lost)

    def _resource(self, db: sqlite3.Connection, number: int) -> Resource:
        found = self._resources.get(number)
        if found is None:
            row = db.execute(
                "SELECT attributes, schema_url FROM resources WHERE id = ?", (number,)
            ).fetchone()
            found = self._resources[number] = read_resource(*row) if row else Resource()
        return found

    # --- the connection ------------------------------------------------------------------------

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            db = self._connect()
            try:
                db.execute("BEGIN")
                yield db
            except (sqlite3.Error, ValueError, KeyError, IndexError) as error:
                self._close()
                raise connection.explain(error, self.path) from error
            finally:
                if self._db is not None:
                    db.execute("ROLLBACK")

    def _connect(self) -> sqlite3.Connection:
        if self._db is not None and connection.identity(self.path) != self._identity:
            self._close()
        if self._db is None:
            self._db = connection.open_for_reading(self.path, _WAIT_S)
            self._identity = connection.identity(self.path)
        return self._db

    def _close(self) -> None:
        self._resources.clear()
        self._scopes.clear()
        if self._db is not None:
            self._db.close()
            self._db = None


class _Scopes(Mapping[int, InstrumentationScope]):
    """Scopes by id, read when they are first met."""

    def __init__(self, db: sqlite3.Connection, known: dict[int, InstrumentationScope]) -> None:
        self._db, self._known = db, known

    def __getitem__(self, number: int) -> InstrumentationScope:
        found = self._known.get(number)
        if found is None:
            row = self._db.execute(
                "SELECT name, version, schema_url, attributes FROM scopes WHERE id = ?", (number,)
            ).fetchone()
            found = self._known[number] = read_scope(*row) if row else InstrumentationScope("")
        return found

    def __iter__(self) -> Iterator[int]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _span_order(span: SpanRecord) -> tuple[int, int]:
    return span.start_time, span.context.span_id


def _cursor(db: sqlite3.Connection) -> str:
    ids = dict(db.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    return f"{ids.get('segments', 0)}.{ids.get('started', 0)}"


def _read_cursor(cursor: str) -> tuple[int, int]:
    try:
        segment, started = cursor.split(".")
        return int(segment), int(started)
    except ValueError:
        raise StoreError(f"{cursor!r} is not a cursor that changes_since returned") from None


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
