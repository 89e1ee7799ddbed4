"""Keep the store within its size and age: the oldest traces go, whole.

Whichever writer notices does it, after its batch, in steps of one short transaction each, so
that nobody waits long for the lock. "Oldest" is the order of arrival: what was imported today
stays, however old its times are. Traces that got spans within the last minute go only when
nothing else is left, pinned ones never.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Retention"]

Transact = Callable[[Callable[[sqlite3.Connection], int]], int]

_STEP_SEGMENTS = 256
_STEPS_AT_ONCE = 16
_ACTIVE_S = 60
_LOW_WATER = 0.9
_AGE_CHECK_S = 30.0


@dataclass
class Retention:
    """The limits of a store, and when they were last looked at."""

    max_bytes: int
    max_age_s: float
    _aged_at: float = float("-inf")

    def enforce(self, db: sqlite3.Connection, transact: Transact) -> None:
        """Remove what is beyond the limits, a bounded amount of it; the next call goes on.

        Cost: three pragmas, 10 µs, when there is nothing to do.
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
        for _ in range(_STEPS_AT_ONCE):
            if not transact(_remove_oldest) or used_bytes(db) <= self.max_bytes * _LOW_WATER:
                return

    def _remove_aged(self, db: sqlite3.Connection) -> int:
        found = db.execute(
            "SELECT id FROM traces WHERE stored_s < ? AND NOT pinned ORDER BY id LIMIT 64",
            (int(time.time() - self.max_age_s),),
        ).fetchall()
        return _remove(db, [row[0] for row in found])


def used_bytes(db: sqlite3.Connection) -> int:
    """Return the bytes that hold something; free pages inside the file are filled first."""
    (pages,) = db.execute("PRAGMA page_count").fetchone()
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    (size,) = db.execute("PRAGMA page_size").fetchone()
    return int((pages - free) * size)


def _remove_oldest(db: sqlite3.Connection) -> int:
    quiet = int(time.time()) - _ACTIVE_S
    for condition in ("stored_s < ?", "stored_s >= ?"):
        found = db.execute(
            f"SELECT id FROM traces WHERE {condition} AND NOT pinned ORDER BY id LIMIT 64",
            (quiet,),
        ).fetchall()
        if found:
            return _remove(db, [row[0] for row in found])
    return 0


def _remove(db: sqlite3.Connection, traces: list[int]) -> int:
    """Remove traces until one step's worth of segments is gone; return how many were touched.

    A trace too large for one step loses its oldest segments first, and says so in ``removed``.
    """
    room, touched = _STEP_SEGMENTS, 0
    for trace in traces:
        if room <= 0:
            break
        segments = db.execute(
            "SELECT id, span_count FROM segments WHERE trace = ? ORDER BY id LIMIT ?", (trace, room)
        ).fetchall()
        ids = [(row[0],) for row in segments]
        db.executemany("DELETE FROM payloads WHERE id = ?", ids)
        db.executemany("DELETE FROM segments WHERE id = ?", ids)
        if len(segments) < room:
            db.execute("DELETE FROM started WHERE trace = ?", (trace,))
            db.execute("DELETE FROM traces WHERE id = ?", (trace,))
        else:
            gone = sum(row[1] for row in segments)
            db.execute(
                "UPDATE traces SET removed = removed + ?, span_count = span_count - ? WHERE id = ?",
                (gone, gone, trace),
            )
        room -= len(segments)
        touched += 1
    return touched


def _return_pages(db: sqlite3.Connection) -> None:
    """Give a few free pages back to the disk, when so many are free that it matters."""
    (free,) = db.execute("PRAGMA freelist_count").fetchone()
    if free > 4096:
        db.execute("PRAGMA incremental_vacuum(512)").fetchall()
