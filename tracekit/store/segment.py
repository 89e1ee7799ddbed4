"""Spans of one batch, sorted into segments: one for each trace and resource."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import count, repeat
from operator import add, contains
from typing import Any

from opentelemetry.trace import DEFAULT_TRACE_STATE

from tracekit.semconv import COMPRESSED_COUNT, COMPRESSED_TOTAL
from tracekit.store.origins import Origins, ResourceRow, ScopeRow
from tracekit.store.rows import MAX_SPAN_CHARS, Row, clean_row, more_of, shrink_row
from tracekit.store.terms import NAME, UNCLEAN, Pair, TermCache, pack_terms, term
from tracekit.store.values import encode

__all__ = ["Batch", "Segment", "bounded_text", "gather", "rank_of", "seal_rows"]

_Read = tuple[int, Row, Any, Any]
"""Trace id, row, instrumentation scope and resource of a span."""

_INT64 = 1 << 63
_ONE_NUMBER, _ONE_DURATION = struct.Struct("<H"), struct.Struct("<q")


def rank_of(row: Row) -> int:
    """Say how well a span stands for its trace: 3 a root, 2 a local root, 1 any other."""
    if row[1] is None:
        return 3
    return 2 if row[2] & 0x200 else 1


class Segment:
    """What one batch brings of one trace from one resource."""

    __slots__ = (
        "_cleaned",
        "codes",
        "end_ns",
        "error_count",
        "max_duration_ns",
        "measures",
        "resource",
        "rows",
        "service",
        "start_ns",
        "terms",
        "text",
        "trace_id",
        "unclean",
    )

    start_ns: int
    end_ns: int
    max_duration_ns: int
    error_count: int
    measures: tuple[str, bytes, bytes]
    """Names, operations and durations, as the payload holds them."""
    terms: bytes
    text: str

    def __init__(self, trace_id: int, resource: int, service: str, rows: list[Row]) -> None:
        self.trace_id, self.resource, self.service = trace_id, resource, service
        self.rows = rows
        self.codes: set[int] = set()
        self.unclean = self._cleaned = False

    def seal(self) -> None:
        """Work out every column, so that nothing but SQL is left to do under the lock."""
        if self.unclean or UNCLEAN in self.codes:
            self._clean()
            self.codes.discard(UNCLEAN)
            self.codes.update(map(term, self._clean_pairs()))
        self.terms = pack_terms(self.codes)
        if len(self.rows) > 1:
            unique = {row[0]: row for row in self.rows}
            if len(unique) < len(self.rows):
                self.rows = list(unique.values())
        self.measure()
        self.text = self._encode()

    def span_ids(self) -> bytes:
        return bytes.fromhex("".join([row[0] for row in self.rows]))

    def root_row(self) -> Row:
        """Return the span that stands for the trace best, as far as this segment knows."""
        rows = self.rows
        best = [row for row in rows if row[1] is None] or [row for row in rows if row[2] & 0x200]
        return min(best or rows, key=_start) if len(rows) > 1 else rows[0]

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
        """Set the columns of times and counts."""
        measure = self._measure if len(self.rows) > 1 else self._measure_one
        try:
            measure()
        except (struct.error, OverflowError, TypeError):
            if self._cleaned:
                raise
            self._clean()
            measure()

    def _measure(self) -> None:
        # Columns instead of rows: what follows then runs in C.
        columns = list(zip(*self.rows))  # noqa: B905  (rows with more than ten fields are cut)
        starts, durations = columns[5], columns[6]
        self.start_ns, self.end_ns = min(starts), max(map(add, starts, durations))
        if not -_INT64 < self.start_ns <= max(starts) < _INT64 > self.end_ns > -_INT64:
            raise OverflowError
        self.max_duration_ns = max(durations)
        self.error_count = columns[7].count(2)
        find = _operations if len(self.rows) <= 64 else _operations.__wrapped__
        names, numbers = find(columns[3], columns[4])
        if self.error_count:
            numbers = [number + (code == 2) for number, code in zip(numbers, columns[7])]  # noqa: B905
        if any(map(contains, columns[9], repeat(COMPRESSED_COUNT))):
            durations = tuple(map(_usual_duration, durations, columns[9]))
        size = len(durations)
        self.measures = (
            names,
            struct.pack(f"<{size}H", *numbers),
            struct.pack(f"<{size}q", *durations),
        )

    def _measure_one(self) -> None:
        """Do the same for a single span: traces of one span are common, and none is cheaper."""
        _, _, _, name, kind, start, duration, status = self.rows[0][:8]
        self.start_ns, self.end_ns, self.max_duration_ns = start, start + duration, duration
        if not -_INT64 < start < _INT64 > self.end_ns > -_INT64:
            raise OverflowError
        self.error_count = failed = int(status == 2)
        self.measures = (
            _operations((name,), (kind,))[0],
            _ONE_NUMBER.pack(failed),
            _ONE_DURATION.pack(duration),
        )

    def _encode(self) -> str:
        try:
            text = encode(self.rows)
        except (TypeError, ValueError, RecursionError):
            self._clean()
            text = encode(self.rows)
        if len(text) <= MAX_SPAN_CHARS:
            return text
        return f"[{','.join([bounded_text(row) for row in self.rows])}]"


def _usual_duration(duration: int, attributes: dict[str, Any]) -> int:
    """Return how long a span took that stands for many: on average, for what is usual of it."""
    number, total = attributes.get(COMPRESSED_COUNT), attributes.get(COMPRESSED_TOTAL)
    if isinstance(number, int) and isinstance(total, int) and number > 0:
        return total // number
    return duration


@lru_cache(256)
def _operations(names: tuple[str, ...], kinds: tuple[int, ...]) -> tuple[str, list[int]]:
    """Return distinct names and kinds as JSON, and twice the place of each span's among them.

    Traces of one kind have the same names in the same order, time and again.
    """
    operations = list(zip(names, kinds, strict=True))
    places = dict(zip(dict.fromkeys(operations), count(0, 2)))
    return encode(list(places)), [places[operation] for operation in operations]


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
        self.refused: list[Any] = []
        self.last_scope: Any = self  # no span has this one
        self.last_resource: Any = self
        self.scope = self.resource = 0

    def set_scope(self, scope: Any, row: ScopeRow) -> None:
        self.last_scope, self.scope = scope, row[0]
        self.scopes[row[0]] = row

    def set_resource(self, resource: Any, row: ResourceRow) -> None:
        self.last_resource, self.resource = resource, row[0]
        self.resources[row[0]] = row

    def begin_segment(self, trace_id: int) -> Segment:
        service = self.resources[self.resource][1]
        segment = Segment(trace_id, self.resource, service, [])
        self.segments[trace_id, self.resource] = segment
        return segment


def gather(
    spans: Iterable[Any], origins: Origins, cache: TermCache, started: bool = False
) -> Batch:
    """Sort spans into sealed segments; those under way, or all if ``started``, aside.

    A span that cannot be read is put into ``refused`` and costs nobody else.
    """
    batch = Batch()
    cache.bound()
    for span in spans:
        try:
            _take(span, batch, origins, cache, started)
        except Exception:
            batch.refused.append(span)
    for segment in batch.segments.values():
        segment.seal()
    return batch


def _take(span: Any, batch: Batch, origins: Origins, cache: TermCache, started: bool) -> None:
    """Add one span. Cost: on the path of every span, though not on its caller's: few calls."""
    trace_id, row, scope, resource = _read(span)
    if scope is not batch.last_scope:
        batch.set_scope(scope, origins.scope(scope))
    if resource is not batch.last_resource:
        batch.set_resource(resource, origins.resource(resource))
    row[8] = batch.scope
    if not 0 < trace_id < 1 << 128 or len(row[0]) > 16:
        raise ValueError("ids beyond their size")
    if started or row[6] is None:
        row[6] = None
        batch.unfinished.append((trace_id, row, batch.resource))
        return
    segment = batch.segments.get((trace_id, batch.resource))
    if segment is None:
        segment = batch.begin_segment(trace_id)
    segment.rows.append(row)
    name = row[3]
    if type(name) is not str:
        segment.unclean = True
    try:
        segment.codes.add(cache[NAME, name])
        segment.codes.update(map(cache.__getitem__, row[9].items()))
    except Exception:  # no hash: a list, a mapping, or something of the program's own
        segment.unclean = True


def _read(span: Any) -> _Read:
    """Read a span; its values may still need cleaning, and its scope's number is missing."""
    reader = _readers.get(type(span))
    if reader is None:
        if len(_readers) >= _MAX_KINDS_OF_SPAN:
            _readers.clear()
        tells_at_once = hasattr(type(span), "wire_fields")
        reader = _readers[type(span)] = _read_at_once if tells_at_once else _read_protocol
    return reader(span)


def _read_at_once(span: Any) -> _Read:
    """Read a live span, which tells all its fields in one call."""
    (
        trace_id, span_id, parent, is_remote, flags, state, status, description, name, kind,
        start, end, attributes, events, links, dropped_attributes, dropped_events, dropped_links,
        resource, scope,
    ) = span.wire_fields()  # fmt: skip
    row = [
        "%016x" % span_id,  # noqa: UP031  (half the time of an f-string)
        "%016x" % parent if parent else None,  # noqa: UP031
        (flags & 0xFF) | 0x200 if is_remote else flags & 0xFF,
        name,
        kind._value_,
        start,
        None if end is None else end - start,
        status,
        None,
        # The span has ended: nobody writes to its attributes any more.
        attributes if type(attributes) is dict else dict(attributes),
    ]
    dropped = dropped_attributes or dropped_events or dropped_links
    if is_remote or state or description or events or links or dropped:
        row += filter(None, [more_of(span, span.context, span.parent)])
    return trace_id, row, scope, resource


def _read_protocol(span: Any) -> _Read:
    """Read any readable span.

    Cost: a SpanContext is indexed, as the tuple that it is, and a member of an Enum asked for
    its ``_value_``: properties cost four times as much.
    """
    context, parent, status = span.context, span.parent, span.status
    flags, parent_id, is_special = context[3] & 0xFF, None, context[4] is not DEFAULT_TRACE_STATE
    if context[2]:
        flags |= 0x100
    if parent is not None:
        parent_id = "%016x" % parent[1]  # noqa: UP031
        if parent[0] != context[0] or parent[3] != context[3] or parent[4] is not context[4]:
            is_special = True
        if parent[2]:
            flags |= 0x200
    attributes = span.attributes
    start, end = span.start_time or 0, span.end_time
    row = [
        "%016x" % context[1],  # noqa: UP031
        parent_id,
        flags,
        span.name,
        span.kind._value_,
        start,
        None if end is None else end - start,
        status.status_code._value_,
        None,
        attributes if type(attributes) is dict else dict(attributes or ()),
    ]
    if is_special or status.description or _has_more(span):
        row += filter(None, [more_of(span, context, parent)])
    return context[0], row, span.instrumentation_scope, span.resource


def _has_more(span: Any) -> Any:
    return (
        span.events
        or span.links
        or span.dropped_attributes
        or span.dropped_events
        or span.dropped_links
    )


_readers: dict[type, Callable[[Any], _Read]] = {}
_MAX_KINDS_OF_SPAN = 64
