"""What a reader answers: immutable records."""

from __future__ import annotations

from dataclasses import dataclass

from tracekit.model import SpanRecord

__all__ = ["Changes", "OperationStats", "StoreStats", "TraceSummary", "UnfinishedSpan"]


@dataclass(frozen=True)
class TraceSummary:
    """A trace in a list. ``name``, ``service``, ``kind`` and ``failed`` are those of its root.

    ``end_ns`` is None while no span has ended; ``unfinished`` counts spans without an end, of
    which ``lost`` will never have one, because their process is gone.
    """

    trace_id: int
    name: str
    service: str
    kind: int
    start_ns: int
    end_ns: int | None
    span_count: int
    error_count: int
    failed: bool
    has_root: bool
    services: tuple[str, ...]
    unfinished: int
    lost: int
    removed: int
    pinned: bool
    note: str

    @property
    def duration_ns(self) -> int | None:
        return None if self.end_ns is None else self.end_ns - self.start_ns


@dataclass(frozen=True)
class OperationStats:
    """All ended spans of one service, name and kind; percentiles by nearest rank."""

    service: str
    name: str
    kind: int
    count: int
    error_count: int
    total_ns: int
    p50_ns: int
    p95_ns: int
    p99_ns: int
    max_ns: int


@dataclass(frozen=True)
class UnfinishedSpan:
    """A span without an end; ``lost`` when the process that would have ended it is gone."""

    span: SpanRecord
    pid: int
    lost: bool


@dataclass(frozen=True)
class StoreStats:
    """How much there is. ``size_bytes`` is what the files take on the disk."""

    path: str
    size_bytes: int
    traces: int
    spans: int
    unfinished: int
    oldest_ns: int | None
    newest_ns: int | None


@dataclass(frozen=True)
class Changes:
    """Traces that got spans since a cursor, and the cursor to ask with next time."""

    cursor: str
    trace_ids: tuple[int, ...]
