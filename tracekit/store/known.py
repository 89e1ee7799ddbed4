"""Which spans of a trace are stored already."""

from __future__ import annotations

import sqlite3
import struct

__all__ = ["MAX_KNOWN", "KnownSpans", "unpack_ids"]

MAX_KNOWN = 50_000
"""Span ids remembered by one writer, about 5 MB. A trace with more spans than that is not
searched for repeated ones when it is written; reading is exact all the same."""


def unpack_ids(blob: bytes) -> tuple[int, ...]:
    return struct.unpack(f">{len(blob) // 8}Q", blob)


class KnownSpans:
    """Remember span ids by trace, and read only the segments that came since."""

    def __init__(self) -> None:
        self._traces: dict[int, tuple[int, set[int]]] = {}
        self._count = 0

    def clear(self) -> None:
        self._traces.clear()
        self._count = 0

    def ids(self, db: sqlite3.Connection, trace: int) -> set[int]:
        """Return the ids of the ended spans of a trace, by its row id.

        Cost: one look at an index, and at the segments that other batches brought.
        """
        last, ids = self._traces.get(trace, (0, set()))
        before = len(ids)
        found = db.execute(
            "SELECT segments.id, span_ids FROM segments JOIN payloads USING (id) "
            "WHERE trace = ? AND segments.id > ? ORDER BY segments.id",
            (trace, last),
        ).fetchall()
        for last, blob in found:  # noqa: B007  (the last one is remembered)
            ids.update(unpack_ids(blob))
        self._count += len(ids) - before
        if self._count > MAX_KNOWN:
            self.clear()
        else:
            self._traces[trace] = last, ids
        return ids
