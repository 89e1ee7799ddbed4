"""Figures for each operation, from the columns that segments keep of their spans."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections import defaultdict

from tracekit.store.answers import OperationStats
from tracekit.store.query import Clause

__all__ = ["collect_operations"]

Key = tuple[str, str, int]


def collect_operations(
    db: sqlite3.Connection, clause: Clause, name: str | None, most_spans: int | None = None
) -> list[OperationStats]:
    """Gather durations of ended spans, the newest so many, by service, name and kind."""
    durations: dict[Key, list[int]] = defaultdict(list)
    errors: dict[Key, int] = defaultdict(int)
    rows = db.execute(
        "SELECT service, names, operations, durations FROM segments JOIN payloads USING (id) "
        f"LEFT JOIN resources ON resources.id = resource WHERE {clause.sql} "
        "ORDER BY segments.id DESC",
        clause.parameters,
    )
    taken = 0
    for service, names, operations, packed in rows:
        if most_spans is not None and taken >= most_spans:
            break
        taken += len(operations) // 2
        keys = [(service or "", operation, kind) for operation, kind in json.loads(names)]
        numbers = struct.unpack(f"<{len(operations) // 2}H", operations)
        for number, duration in zip(
            numbers, struct.unpack(f"<{len(numbers)}q", packed), strict=True
        ):
            key = keys[number >> 1]
            durations[key].append(duration)
            if number & 1:
                errors[key] += 1
    found = [
        _stats(key, values, errors.get(key, 0))
        for key, values in durations.items()
        if name is None or key[1] == name
    ]
    return sorted(found, key=lambda stats: (-stats.total_ns, stats.service, stats.name, stats.kind))


def _stats(key: Key, durations: list[int], error_count: int) -> OperationStats:
    durations.sort()
    return OperationStats(
        *key,
        count=len(durations),
        error_count=error_count,
        total_ns=sum(durations),
        p50_ns=_percentile(durations, 50),
        p95_ns=_percentile(durations, 95),
        p99_ns=_percentile(durations, 99),
        max_ns=durations[-1],
    )


def _percentile(ordered: list[int], percent: int) -> int:
    """Return the smallest value that ``percent`` of all do not exceed."""
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]
