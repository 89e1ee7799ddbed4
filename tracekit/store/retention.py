"""Keep the store within its size and age: the oldest traces go, whole.

Whichever writer notices does it, after its batch, in steps of one short transaction each, so
that nobody waits long for the lock. "Oldest" is the order of arrival: what was imported today
stays, however old its times are. Traces that got spans within the last minute go only when
nothing else is left, and then one that holds a quarter of the store loses its oldest part
instead. Pinned traces stay.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

__all__ = ["Retention"]

Transact = Callable[[Callable[[sqlite3.Connection], int]], int]

_STEP_TRACES = 64
_STEP_SEGMENTS = 256
_STEPS_AT_ONCE = 16
_ACTIVE_S = 60
_LOW_WATER = 0.9
_AGE_CHECK_S = 30.0
_MANY_RESOURCES = 2000
_SPARE_PAGES = 4096


@dataclass
class Retention:
    """The limits of a store, and when they were last looked at."""

    max_bytes: int
    max_age_s: float
    _aged_at: float = float("-inf")

    def enforce(self, db: sqlite3.Connection, transact: Transact) -> None:
        """Remove what is beyond the limits, a bounded amount of it; the next call goes on.

        Cost: four pragmas, 10 µs, when there is nothing to do.
        """
        if used_bytes(db) > self.max_bytes:
            self._shrink(db, transact)
        now = time.monotonic()
        if now - self._aged_at >= _AGE_CHECK_S:
            removed = transact(self._remove_aged)
            # What is left over is taken at the next batch, not in half a minute.
            self._aged_at = float("-inf") if removed else now
        _return_pages(db)

    def _shrink(self, db: sqlite3.Connection, transact: Transact) -> None:
        target = int(self.max_bytes * _LOW_WATER)
        for _ in range(_STEPS_AT_ONCE):
            if not transact(partial(remove_oldest, target=target)) or used_bytes(db) <= target:
                break
        transact(_remove_unused_resources)

    def _remove_aged(self, db: sqlite3.Connection) -> int:
        limit = int(time.time() - self.max_age_s)
        return _Step(db).remove_traces(_traces(db, "stored_s < ?", limit))


def used_bytes(db: sqlite3.Connection) -> int:
    """Return the bytes that hold something; free pages inside the file are filled first."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


def remove_oldest(db: sqlite3.Connection, target: int) -> int:
    """Take one step towards ``target`` bytes; return how many traces lost something."""
    active_since = int(time.time()) - _ACTIVE_S
    step = _Step(db, target)
    if quiet := _traces(db, "stored_s < ?", active_since):
        return step.remove_traces(quiet)
    (spans,) = db.execute("SELECT total(span_count) FROM traces").fetchone()
    active = _traces(db, "stored_s >= ?", active_since)
    return step.remove_traces(active, giant=int(spans) // 4)


def _traces(db: sqlite3.Connection, condition: str, value: int) -> list[tuple[int, int]]:
    return db.execute(
        f"SELECT id, span_count FROM traces WHERE {condition} AND NOT pinned "
        f"ORDER BY id LIMIT {_STEP_TRACES}",
        (value,),
    ).fetchall()


class _Step:
    """One transaction's worth of removing."""

    def __init__(self, db: sqlite3.Connection, target: int = 0) -> None:
        self._db = db
        self._target = target
        self._room = _STEP_SEGMENTS

    def _is_done(self) -> bool:
        return self._room <= 0 or used_bytes(self._db) <= self._target

    def remove_traces(self, traces: list[tuple[int, int]], giant: int | None = None) -> int:
        touched = 0
        for trace, span_count in traces:
            if self._is_done():
                break
            if giant is not None and span_count > giant:
                self._trim(trace)
            else:
                self._remove(trace)
            touched += 1
        return touched

    def _remove(self, trace: int) -> None:
        removed = self._remove_segments(trace, self._room)
        if self._room > 0:
            self._db.execute("DELETE FROM started WHERE trace = ?", (trace,))
            self._db.execute("DELETE FROM traces WHERE id = ?", (trace,))
        else:  # more than one step can take: the next one goes on with it
            self._note_removed(trace, removed)

    def _trim(self, trace: int) -> None:
        while not self._is_done():
            removed = self._remove_segments(trace, 8)
            if not removed:
                return
            self._note_removed(trace, removed)

    def _remove_segments(self, trace: int, count: int) -> int:
        """Remove the oldest segments of a trace; return how many spans were in them."""
        found = self._db.execute(
            "SELECT id, span_count FROM segments WHERE trace = ? ORDER BY id LIMIT ?",
            (trace, count),
        ).fetchall()
        ids = [(row[0],) for row in found]
        self._db.executemany("DELETE FROM payloads WHERE id = ?", ids)
        self._db.executemany("DELETE FROM segments WHERE id = ?", ids)
        self._room -= len(found)
        return sum(row[1] for row in found)

    def _note_removed(self, trace: int, spans: int) -> None:
        self._db.execute(
            "UPDATE traces SET removed = removed + ?, span_count = span_count - ? WHERE id = ?",
            (spans, spans, trace),
        )


def _remove_unused_resources(db: sqlite3.Connection) -> int:
    """Remove the resources of traces that are gone, once there are many.

    A writer that still uses one adds it again with its next batch.
    """
    (many,) = db.execute("SELECT count(*) FROM resources").fetchone()
    if many <= _MANY_RESOURCES:
        return 0
    return db.execute(
        "DELETE FROM resources WHERE id NOT IN "
        "(SELECT resource FROM segments UNION SELECT resource FROM started)"
    ).rowcount


def _return_pages(db: sqlite3.Connection) -> None:
    """Give a few free pages back to the disk, when so many are free that it matters."""
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    if free > _SPARE_PAGES:
        # A step of this pragma returns one page and a row of no columns, at which execute stops.
        db.executescript("PRAGMA incremental_vacuum(512)")
