"""Rows of ``traces``: naming one, and telling it as a summary."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tracekit.errors import StoreError
from tracekit.store.answers import TraceSummary
from tracekit.store.process import is_lost

__all__ = ["COLUMNS", "ORDERS", "resolve", "root_duration", "summarise"]

COLUMNS = (
    "id, trace_id, name, service, kind, start_ns, end_ns, span_count, error_count, status, "
    "root_rank, removed, pinned, note"
)
ORDERS = {
    "newest": "start_ns DESC, id DESC",
    "slowest": "end_ns - start_ns DESC, start_ns DESC, id DESC",
}


def resolve(db: sqlite3.Connection, trace: str | int, path: Path) -> Sequence[Any]:
    """Return the row of the one trace that goes by this name.

    Raises:
        StoreError: No trace does, or several do; the message says which, and what to give.
    """
    if trace == "last":
        return _last_trace(db, path)
    text = f"{trace:032x}" if isinstance(trace, int) else trace.strip().lower()
    text = text.removeprefix("0x")
    low, high = _id_range(text)
    found = db.execute(
        f"SELECT {COLUMNS} FROM traces WHERE trace_id BETWEEN ? AND ? LIMIT 6", (low, high)
    ).fetchall()
    if not found:
        raise StoreError(f"no trace {text!r} in {path}; `tracekit ls` lists what is there")
    if len(found) > 1:
        several = ", ".join(row[1].hex() for row in found[:5])
        raise StoreError(f"several traces begin with {text!r}: {several}; give more digits")
    return tuple(found[0])


def summarise(db: sqlite3.Connection, row: Sequence[Any]) -> TraceSummary:
    return _summary(row, _services(db, row[0]), _processes(db, row[0]))


def root_duration(db: sqlite3.Connection, trace_id: int) -> int | None:
    """Return how long the root of a trace took, or the span nearest to it; None if it is open.

    The trace may go on afterwards. Cost: 20 µs.
    """
    rows = db.execute(
        "SELECT root_id, span_ids, durations FROM traces JOIN segments ON trace = traces.id "
        "JOIN payloads ON payloads.id = segments.id WHERE trace_id = ?",
        (trace_id.to_bytes(16, "big"),),
    )
    for root_id, span_ids, durations in rows:
        for at in range(0, len(span_ids), 8):
            if span_ids[at : at + 8] == root_id:
                return int.from_bytes(durations[at : at + 8], "little", signed=True)
    return None


def _last_trace(db: sqlite3.Connection, path: Path) -> Sequence[Any]:
    for condition in ("root_rank >= 2", "1"):
        found = db.execute(
            f"SELECT {COLUMNS} FROM traces WHERE {condition} ORDER BY {ORDERS['newest']} LIMIT 1"
        ).fetchone()
        if found:
            return tuple(found)
    raise StoreError(f"no traces in {path} yet: run your program under `tracekit run`")


def _id_range(text: str) -> tuple[bytes, bytes]:
    try:
        return bytes.fromhex(text.ljust(32, "0")), bytes.fromhex(text.ljust(32, "f"))
    except ValueError:
        raise StoreError(
            f"{text!r} is not a trace id: expected up to 32 hexadecimal digits, or last"
        ) from None


def _services(db: sqlite3.Connection, trace: int) -> tuple[str, ...]:
    rows = db.execute(
        "SELECT service FROM resources WHERE id IN (SELECT resource FROM segments WHERE trace = ? "
        "UNION SELECT resource FROM started WHERE trace = ?) GROUP BY service ORDER BY service",
        (trace, trace),
    )
    return tuple([row[0] for row in rows])


def _processes(db: sqlite3.Connection, trace: int) -> list[str]:
    return [row[0] for row in db.execute("SELECT process FROM started WHERE trace = ?", (trace,))]


def _summary(row: Sequence[Any], services: tuple[str, ...], processes: list[str]) -> TraceSummary:
    return TraceSummary(
        trace_id=int.from_bytes(row[1], "big"),
        name=row[2],
        service=row[3],
        kind=row[4],
        start_ns=row[5],
        end_ns=row[6],
        span_count=row[7],
        error_count=row[8],
        failed=row[9] == 2,
        has_root=row[10] == 3,
        services=services,
        unfinished=len(processes),
        lost=sum(map(is_lost, processes)),
        removed=row[11],
        pinned=bool(row[12]),
        note=row[13],
    )
