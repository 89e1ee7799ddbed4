"""Spans of one batch, sorted into segments: one for each trace and resource."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tracekit.store.origins import Origins, ResourceRow, ScopeRow
from tracekit.store.rows import MAX_SPAN_CHARS, Row, clean_row, more_of, shrink_row
from tracekit.store.terms import NAME, UNCLEAN, Pair, TermCache, pack_terms, term
from tracekit.store.values import encode

__all__ = ["Batch", "Segment", "bounded_text", "gather", "rank_of", "seal_rows"]

_INT64 = 1 << 63


def rank_of(row: Row) -> int:
    """Say how well a span stands for its trace: 3 a root, 2 a local root, 1 any other."""
    if row[1] is None:
        return 3
    return 2 if row[2] & 0x200 else 1


@dataclass(eq=False)
class Segment:
    """What one batch brings of one trace from one resource."""

    trace_id: int
    resource: int
    service: str
    rows: list[Row] = field(default_factory=list)
    pairs: set[Pair] = field(default_factory=set)
    terms: bytes = b""
    start_ns: int = 0
    end_ns: int = 0
    measures: tuple[str, bytes, bytes] = ("", b"", b"")
    text: str = ""
    unclean: bool = False
    _cleaned: bool = False

    def seal(self, cache: TermCache) -> None:
        """Work out every column, so that nothing but SQL is left to do under the lock."""
        self._drop_repeated()
        self.terms = self._find_terms(cache)
        self.measure()
        self.text = self._encode()

    @property
    def max_duration_ns(self) -> int:
        return max([row[6] for row in self.rows])

    @property
    def error_count(self) -> int:
        return sum([row[7] == 2 for row in self.rows])

    def span_ids(self) -> bytes:
        return bytes.fromhex("".join([row[0] for row in self.rows]))

    def root_row(self) -> Row:
        """Return the span that stands for the trace best, as far as this segment knows."""
        rows = self.rows
        best = [row for row in rows if row[1] is None] or [row for row in rows if row[2] & 0x200]
        return min(best or rows, key=_start) if len(rows) > 1 else rows[0]

    def _drop_repeated(self) -> None:
        unique = {row[0]: row for row in self.rows}
        if len(unique) < len(self.rows):
            self.rows = list(unique.values())

    def _find_terms(self, cache: TermCache) -> bytes:
        found = cache.terms(self.pairs)
        if UNCLEAN in found or self.unclean:
            self._clean()
            found.discard(UNCLEAN)
            found.update(map(term, self._clean_pairs()))
        return pack_terms(found)

    def _clean_pairs(self) -> Iterator[Pair]:
        for row in self.rows:
            yield NAME, row[3]
            for key, value in row[9].items():
                for item in value if isinstance(value, list) else (value,):
                    if isinstance(item, (str, int, float)):
                        yield key, item

    def _clean(self) -> None:
        if self._cleaned:
            return
        self._cleaned = True
        for row in self.rows:
            clean_row(row)

    def measure(self) -> None:
        durations = [row[6] for row in self.rows]
        try:
            packed = struct.pack(f"<{len(durations)}q", *durations)
            self.start_ns = min([row[5] for row in self.rows])
            self.end_ns = max([row[5] + row[6] for row in self.rows])
            if not -_INT64 <= self.start_ns < _INT64 > self.end_ns >= -_INT64:
                raise OverflowError
        except (struct.error, OverflowError, TypeError):
            if self._cleaned:
                raise
            self._clean()
            self.measure()
            return
        places: dict[tuple[str, int], int] = {}
        operations = [
            2 * places.setdefault((row[3], row[4]), len(places)) + (row[7] == 2)
            for row in self.rows
        ]
        names = encode(list(places))
        self.measures = names, struct.pack(f"<{len(operations)}H", *operations), packed

    def _encode(self) -> str:
        try:
            text = encode(self.rows)
        except (TypeError, ValueError, RecursionError):
            self._clean()
            text = encode(self.rows)
        if len(text) <= MAX_SPAN_CHARS:
            return text
        return f"[{','.join([bounded_text(row) for row in self.rows])}]"


def _start(row: Row) -> int:
    return row[5]  # type: ignore[no-any-return]


def seal_rows(rows: list[Row]) -> Segment:
    """Return a segment of rows that were stored before; it has no terms."""
    segment = Segment(0, 0, "", rows)
    segment.measure()
    segment.text = encode(rows)
    return segment


def bounded_text(row: Row) -> str:
    text = encode(row)
    if len(text) <= MAX_SPAN_CHARS:
        return text
    shrink_row(row)
    return encode(row)


class Batch:
    """The segments of one transaction, with the resources and scopes that they refer to."""

    def __init__(self) -> None:
        self.segments: dict[tuple[int, int], Segment] = {}
        self.resources: dict[int, ResourceRow] = {}
        self.scopes: dict[int, ScopeRow] = {}
        self.unfinished: list[tuple[int, Row, int]] = []
        self.refused = 0


def _row(span: Any, scope: int) -> Row:
    """Return the row of a span; its values may still need cleaning.

    Cost: on the path of every span. A SpanContext is indexed, as the tuple that it is,
    because its properties cost four times as much.
    """
    context, parent, status = span.context, span.parent, span.status
    flags = int(context[3]) & 0xFF
    if context[2]:
        flags |= 0x100
    parent_id = None
    if parent is not None:
        parent_id = "%016x" % parent[1]
        if parent[2]:
            flags |= 0x200
    attributes = span.attributes
    start, end = span.start_time or 0, span.end_time
    row = [
        "%016x" % context[1],
        parent_id,
        flags,
        span.name,
        span.kind._value_,
        start,
        None if end is None else end - start,
        status.status_code._value_,
        scope,
        attributes if type(attributes) is dict else dict(attributes or ()),
    ]
    if (
        span.events
        or span.links
        or status.description
        or context[4]
        or span.dropped_attributes
        or span.dropped_events
        or span.dropped_links
        or (parent is not None and parent[:5:3] != context[:5:3])
    ):
        more = more_of(span, context, parent)
        if more:
            row.append(more)
    return row


def gather(
    spans: Iterable[Any], origins: Origins, cache: TermCache, started: bool = False
) -> Batch:
    """Sort spans into sealed segments; those under way, or all if ``started``, aside.

    A span that cannot be read at all is counted in ``refused`` and costs nobody else.
    Cost: on the path of every span, though not on its caller's; hence one loop without calls.
    """
    batch = Batch()
    segments, resources, scopes = batch.segments, batch.resources, batch.scopes
    last_scope: Any = segments  # no span has this one
    last_resource: Any = segments
    scope = resource = 0
    for span in spans:
        try:
            if span.instrumentation_scope is not last_scope:
                scope_row = origins.scope(span.instrumentation_scope)
                scopes[scope := scope_row[0]] = scope_row
                last_scope = span.instrumentation_scope
            if span.resource is not last_resource:
                resource_row = origins.resource(span.resource)
                resources[resource := resource_row[0]] = resource_row
                last_resource = span.resource
            row = _row(span, scope)
            trace_id = span.context[0]
            if started or row[6] is None:
                row[6] = None
                batch.unfinished.append((trace_id, row, resource))
                continue
            segment = segments.get((trace_id, resource))
            if segment is None:
                segment = Segment(trace_id, resource, resources[resource][1])
                segments[trace_id, resource] = segment
            segment.rows.append(row)
            name = row[3]
            if type(name) is not str:
                segment.unclean = True
            try:
                segment.pairs.add((NAME, name))
                segment.pairs.update(row[9].items())
            except TypeError:  # a list or a mapping among the values
                segment.unclean = True
        except Exception:
            batch.refused += 1
    for segment in segments.values():
        segment.seal(cache)
    return batch
