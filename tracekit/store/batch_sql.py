"""The statements that add one batch; all of them run inside the writer's transaction."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from tracekit.store.known import MAX_KNOWN, KnownSpans, unpack_ids
from tracekit.store.origins import storable
from tracekit.store.rows import Row, clean_row
from tracekit.store.segment import Batch, Segment, bounded_text, rank_of, seal_rows

__all__ = ["insert_batch", "insert_started"]


@dataclass(eq=False)
class TraceRow:
    """A row of ``traces``, in the order of its columns."""

    id: int
    trace_id: bytes
    start_ns: int
    end_ns: int | None = None
    name: str = ""
    service: str = ""
    kind: int = 0
    status: int = 0
    root_id: bytes = b""
    root_rank: int = 0
    root_start: int = 0
    span_count: int = 0
    error_count: int = 0
    is_new: bool = False

    def values(self) -> tuple[Any, ...]:
        return (
            self.id,
            self.trace_id,
            self.start_ns,
            self.end_ns,
            self.name,
            self.service,
            self.kind,
            self.status,
            self.root_id,
            self.root_rank,
            self.root_start,
            self.span_count,
            self.error_count,
        )

    @classmethod
    def of_segment(cls, number: int, segment: Segment) -> TraceRow:
        root = segment.root_row()
        return cls(
            number,
            segment.trace_id.to_bytes(16, "big"),
            segment.start_ns,
            segment.end_ns,
            _storable_name(root[3]),
            segment.service,
            root[4],
            root[7],
            bytes.fromhex(root[0]),
            rank_of(root),
            root[5],
            len(segment.rows),
            segment.error_count,
            True,
        )

    def add_segment(self, segment: Segment) -> None:
        self.start_ns = min(self.start_ns, segment.start_ns)
        self.end_ns = segment.end_ns if self.end_ns is None else max(self.end_ns, segment.end_ns)
        self.span_count += len(segment.rows)
        self.error_count += segment.error_count
        self.offer_root(segment.root_row(), segment.service)

    def offer_root(self, row: Row, service: str) -> None:
        """Take the name of a span that stands for the trace better, or again."""
        rank, span_id = rank_of(row), bytes.fromhex(row[0])
        better = (rank, -row[5]) > (self.root_rank, -self.root_start)
        if not better and span_id != self.root_id:
            return
        self.name = _storable_name(row[3])
        self.service, self.kind, self.status = service, row[4], row[7]
        self.root_id, self.root_rank, self.root_start = span_id, rank, row[5]


def _storable_name(name: str) -> str:
    return name if len(name) <= 1024 and name.isascii() else storable(name[:1024])


_COLUMNS = (
    "id, trace_id, start_ns, end_ns, name, service, kind, status, root_id, root_rank, "
    "root_start, span_count, error_count"
)


def insert_batch(db: sqlite3.Connection, batch: Batch, known: KnownSpans) -> None:
    """Add the segments of a batch, and bring the rows of their traces up to date."""
    _insert_origins(db, batch)
    segments = list(batch.segments.values())
    if not segments:
        return
    traces = _find_traces(db, {segment.trace_id for segment in segments})
    old = [segment for segment in segments if segment.trace_id in traces]
    repeated = _remove_repeated(db, old, traces, known) if old else set()
    _update_traces(db, segments, traces)
    _insert_segments(db, segments, traces)
    _save_traces(db, traces.values())
    for trace in repeated:
        _recount(db, trace)
    if old:
        _remove_started(db, old, traces)


def _insert_origins(db: sqlite3.Connection, batch: Batch) -> None:
    db.executemany("INSERT OR IGNORE INTO resources VALUES (?, ?, ?, ?)", batch.resources.values())
    db.executemany("INSERT OR IGNORE INTO scopes VALUES (?, ?, ?, ?, ?)", batch.scopes.values())


def _find_traces(db: sqlite3.Connection, trace_ids: Iterable[int]) -> dict[int, TraceRow]:
    wanted = [trace_id.to_bytes(16, "big") for trace_id in trace_ids]
    found = {}
    for start in range(0, len(wanted), 500):
        part = wanted[start : start + 500]
        marks = ",".join("?" * len(part))
        query = f"SELECT {_COLUMNS} FROM traces WHERE trace_id IN ({marks})"
        for row in db.execute(query, part):
            found[int.from_bytes(row[1], "big")] = TraceRow(*row)
    return found


def _update_traces(
    db: sqlite3.Connection, segments: Iterable[Segment], traces: dict[int, TraceRow]
) -> None:
    last = _last_id(db, "traces")
    for segment in segments:
        trace = traces.get(segment.trace_id)
        if trace is None:
            last += 1
            traces[segment.trace_id] = TraceRow.of_segment(last, segment)
        else:
            trace.add_segment(segment)


def _last_id(db: sqlite3.Connection, table: str) -> int:
    row = db.execute("SELECT seq FROM sqlite_sequence WHERE name = ?", (table,)).fetchone()
    return int(row[0]) if row else 0


def _insert_segments(
    db: sqlite3.Connection, segments: Sequence[Segment], traces: dict[int, TraceRow]
) -> None:
    first = _last_id(db, "segments") + 1
    _insert_many(
        db,
        "INSERT INTO segments VALUES",
        [
            (
                number,
                traces[segment.trace_id].id,
                segment.resource,
                segment.start_ns,
                segment.end_ns,
                segment.max_duration_ns,
                len(segment.rows),
                segment.error_count,
                segment.terms,
            )
            for number, segment in enumerate(segments, first)
        ],
    )
    _insert_many(
        db,
        "INSERT INTO payloads VALUES",
        [
            (number, segment.span_ids(), *segment.measures, segment.text)
            for number, segment in enumerate(segments, first)
        ],
    )


def _save_traces(db: sqlite3.Connection, traces: Iterable[TraceRow]) -> None:
    now = int(time.time())
    new = [(*trace.values(), now) for trace in traces if trace.is_new]
    _insert_many(db, f"INSERT INTO traces ({_COLUMNS}, stored_s) VALUES", new)
    db.executemany(
        "UPDATE traces SET start_ns = ?, end_ns = ?, name = ?, service = ?, kind = ?, status = ?, "
        "root_id = ?, root_rank = ?, root_start = ?, span_count = ?, error_count = ?, "
        "stored_s = ? WHERE id = ?",
        [(*trace.values()[2:], now, trace.id) for trace in traces if not trace.is_new],
    )


def _insert_many(db: sqlite3.Connection, head: str, rows: Sequence[tuple[Any, ...]]) -> None:
    """Insert rows by statements of 64, 8 and 1: few of them, and each is prepared once."""
    start = 0
    for size in (64, 8, 1):
        while len(rows) - start >= size:
            marks = f"({','.join('?' * len(rows[0]))})"
            part = rows[start : start + size]
            statement = f"{head} {','.join([marks] * size)}"
            db.execute(statement, tuple(chain.from_iterable(part)))
            start += size


# --- spans that are there already -------------------------------------------------------------


def _remove_repeated(
    db: sqlite3.Connection,
    segments: Iterable[Segment],
    traces: dict[int, TraceRow],
    known: KnownSpans,
) -> set[int]:
    """Take spans that the batch brings again out of older segments; return their traces."""
    changed = set()
    for segment in segments:
        trace = traces[segment.trace_id]
        if not 0 < trace.span_count <= MAX_KNOWN:
            continue
        repeated = known.ids(db, trace.id).intersection(unpack_ids(segment.span_ids()))
        if repeated:
            _rewrite_without(db, trace.id, repeated)
            changed.add(trace.id)
    return changed


def _rewrite_without(db: sqlite3.Connection, trace: int, span_ids: set[int]) -> None:
    found = db.execute(
        "SELECT segments.id, span_ids, spans FROM segments JOIN payloads USING (id) "
        "WHERE trace = ?",
        (trace,),
    ).fetchall()
    for segment, blob, text in found:
        if span_ids.isdisjoint(unpack_ids(blob)):
            continue
        rows = [row for row in json.loads(text) if int(row[0], 16) not in span_ids]
        if rows:
            _rewrite(db, segment, rows)
        else:
            db.execute("DELETE FROM segments WHERE id = ?", (segment,))
            db.execute("DELETE FROM payloads WHERE id = ?", (segment,))


def _rewrite(db: sqlite3.Connection, number: int, rows: list[Row]) -> None:
    # The terms stay as they were: one too many costs a look, one too few an answer.
    segment = seal_rows(rows)
    db.execute(
        "UPDATE segments SET start_ns = ?, end_ns = ?, max_duration_ns = ?, span_count = ?, "
        "error_count = ? WHERE id = ?",
        (
            segment.start_ns,
            segment.end_ns,
            segment.max_duration_ns,
            len(rows),
            segment.error_count,
            number,
        ),
    )
    db.execute(
        "UPDATE payloads SET span_ids = ?, names = ?, operations = ?, durations = ?, spans = ? "
        "WHERE id = ?",
        (segment.span_ids(), *segment.measures, segment.text, number),
    )


def _recount(db: sqlite3.Connection, trace: int) -> None:
    db.execute(
        "UPDATE traces SET (start_ns, end_ns, span_count, error_count) = "
        "(SELECT min(start_ns), max(end_ns), sum(span_count), sum(error_count) "
        "FROM segments WHERE trace = traces.id) WHERE id = ?",
        (trace,),
    )


# --- spans under way --------------------------------------------------------------------------


def insert_started(db: sqlite3.Connection, batch: Batch, known: KnownSpans, process: str) -> None:
    """Note spans under way; one whose end was stored before the notice came is left out."""
    traces = _find_traces(db, {trace_id for trace_id, _, _ in batch.unfinished})
    last = _last_id(db, "traces")
    notices = []
    for trace_id, row, resource in batch.unfinished:
        clean_row(row)
        trace = traces.get(trace_id)
        if trace is None:
            last += 1
            packed = trace_id.to_bytes(16, "big")
            trace = traces[trace_id] = TraceRow(last, packed, row[5], is_new=True)
        elif trace.span_count and int(row[0], 16) in known.ids(db, trace.id):
            continue
        trace.start_ns = min(trace.start_ns, row[5])
        trace.offer_root(row, batch.resources[resource][1])
        notices.append((trace.id, bytes.fromhex(row[0]), resource, process, bounded_text(row)))
    _save_traces(db, traces.values())
    db.executemany(
        "INSERT OR REPLACE INTO started (trace, span_id, resource, process, span) "
        "VALUES (?, ?, ?, ?, ?)",
        notices,
    )


def _remove_started(
    db: sqlite3.Connection, segments: Iterable[Segment], traces: dict[int, TraceRow]
) -> None:
    if db.execute("SELECT 1 FROM started LIMIT 1").fetchone() is None:
        return
    for segment in segments:
        trace = traces[segment.trace_id].id
        under_way = {
            row[0] for row in db.execute("SELECT span_id FROM started WHERE trace = ?", (trace,))
        }
        ended = under_way.intersection(bytes.fromhex(row[0]) for row in segment.rows)
        db.executemany(
            "DELETE FROM started WHERE trace = ? AND span_id = ?",
            [(trace, span_id) for span_id in ended],
        )
