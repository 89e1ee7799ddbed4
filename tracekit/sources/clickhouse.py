"""ClickHouse with the tables that the OpenTelemetry Collector's exporter writes.

Sources: https://github.com/open-telemetry/opentelemetry-collector-contrib/tree/main/exporter/clickhouseexporter
and https://clickhouse.com/docs/interfaces/http
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from tracekit.formats._fields import Fields
from tracekit.formats._kept_in_tags import numbers
from tracekit.model import Event, InstrumentationScope, Resource, SpanRecord
from tracekit.sources._server import Answer, Server
from tracekit.sources._source import Recent, TraceSource, checked_trace_id

__all__ = ["ClickhouseSource"]

TABLE = "otel_traces"
# Times leave ClickHouse as numbers: its texts of them are in the time zone of the server.
COLUMNS = """TraceId AS trace_id, SpanId AS span_id, ParentSpanId AS parent_id,
  TraceState AS state, SpanName AS name, SpanKind AS kind, ServiceName AS service,
  ResourceAttributes AS resource, ScopeName AS scope, ScopeVersion AS scope_version,
  SpanAttributes AS attributes, toUnixTimestamp64Nano(Timestamp) AS start, Duration AS duration,
  StatusCode AS status, StatusMessage AS message,
  arrayMap(at -> toUnixTimestamp64Nano(at), `Events.Timestamp`) AS event_times,
  `Events.Name` AS event_names, `Events.Attributes` AS event_attributes,
  `Links.TraceId` AS link_traces, `Links.SpanId` AS link_spans,
  `Links.Attributes` AS link_attributes"""
ONE = f"SELECT {COLUMNS} FROM {TABLE} WHERE TraceId = {{trace:String}} FORMAT JSONEachRow"
# The table's own order is by service, name and time, which is what the inner query asks for.
RECENT = f"""SELECT {COLUMNS} FROM {TABLE} WHERE TraceId IN (
  SELECT TraceId FROM {TABLE}
  WHERE Timestamp >= fromUnixTimestamp64Nano({{since:Int64}})
    AND Timestamp < fromUnixTimestamp64Nano({{until:Int64}})
    AND ({{service:String}} = '' OR ServiceName = {{service:String}})
    AND ({{name:String}} = '' OR SpanName = {{name:String}})
  GROUP BY TraceId ORDER BY max(Timestamp) DESC LIMIT {{most:UInt32}}
) FORMAT JSONEachRow"""


class ClickhouseSource(TraceSource):
    """``http://host:8123/DATABASE``; without one, the user's default.

    Questions are GET requests, in which ClickHouse changes nothing whatever they say.
    """

    name = "clickhouse"

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        parts = urlsplit(server.url)
        self._database = unquote(parts.path.strip("/")) or None
        server.url = urlunsplit((parts.scheme, parts.netloc, "", "", ""))

    def trace(self, trace_id: str) -> Iterator[SpanRecord]:
        yield from self._rows(ONE, trace=checked_trace_id(trace_id).zfill(32))

    def recent(self, wanted: Recent) -> Iterator[SpanRecord]:
        since, until = wanted.window_ns()
        yield from self._rows(
            RECENT,
            since=since,
            until=until,
            service=wanted.service or "",
            name=wanted.name or "",
            most=wanted.limit,
        )

    def _rows(self, query: str, **values: Any) -> Iterator[SpanRecord]:
        params = {f"param_{name}": _escaped(value) for name, value in values.items()}
        answer = self.server.get("/", {"database": self._database, "query": query, **params})
        if answer:
            yield from self._spans(answer)

    def _spans(self, answer: Answer) -> Iterator[SpanRecord]:
        for line in answer.body.splitlines():
            span = _span(_row(line))
            if span is not None:
                yield span
            elif line.strip() and not answer.cut:
                # It answers 200 before it knows whether it can read all, and then says why not.
                self.remark(f"a row is none: {line[:200].decode('utf-8', 'replace')}")
        if answer.cut:
            self.remark(answer.cut)


def _escaped(value: Any) -> str:
    r"""Return a value as parameters are read: tab-separated, with ``\`` as escape."""
    return str(value).replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def _row(line: bytes) -> Fields:
    try:
        return Fields(json.loads(line))
    except (ValueError, RecursionError):
        return Fields(None)


def _span(row: Fields) -> SpanRecord | None:
    trace_id, span_id = row.short_identifier("traceId", 16), row.short_identifier("spanId", 8)
    if not trace_id or not span_id:
        return None
    parent_id, flags = row.short_identifier("parentId", 8), TraceFlags(TraceFlags.SAMPLED)
    start = row.number("start")
    state = TraceState.from_header([row.text("state")]) if row.text("state") else None
    return SpanRecord(
        name=row.text("name"),
        context=SpanContext(trace_id, span_id, False, flags, state),
        parent=SpanContext(trace_id, parent_id, False, flags) if parent_id else None,
        kind=SpanKind.__members__.get(_word(row, "kind", "SPAN_KIND_"), SpanKind.INTERNAL),
        start_time=start,
        end_time=start + row.number("duration"),
        attributes=_attributes(row.values.get("attributes")),
        events=tuple(_events(row)),
        links=tuple(_links(row)),
        status=_status(row),
        resource=Resource({**_attributes(row.values.get("resource")), **_service(row)}),
        instrumentation_scope=InstrumentationScope(
            row.text("scope"), row.text("scopeVersion") or None
        ),
    )


def _word(row: Fields, name: str, prefix: str) -> str:
    """Return a member of an enumeration; the exporter wrote it with its prefix until 0.109."""
    return row.text(name).upper().removeprefix(prefix)


def _status(row: Fields) -> Status:
    code = StatusCode.__members__.get(_word(row, "status", "STATUS_CODE_"), StatusCode.UNSET)
    return Status(code, row.text("message") or None if code is StatusCode.ERROR else None)


def _service(row: Fields) -> dict[str, str]:
    return {"service.name": service} if (service := row.text("service")) else {}


def _attributes(value: Any) -> dict[str, Any]:
    pairs = value.items() if isinstance(value, dict) else ()
    return numbers({str(key): str(item) for key, item in pairs})


def _columns(row: Fields, *names: str) -> Iterator[tuple[Any, ...]]:
    """Yield what several columns of lists hold for each of their items."""
    lists = [row.values.get(name) for name in names]
    yield from zip(*(each if isinstance(each, list) else [] for each in lists), strict=False)


def _events(row: Fields) -> Iterator[Event]:
    for at, name, attributes in _columns(row, "eventTimes", "eventNames", "eventAttributes"):
        yield Event(str(name), _attributes(attributes), Fields({"at": at}).number("at"))


def _links(row: Fields) -> Iterator[Link]:
    for trace_id, span_id, attributes in _columns(row, "linkTraces", "linkSpans", "linkAttributes"):
        ids = Fields({"trace": trace_id, "span": span_id})
        trace, span = ids.short_identifier("trace", 16), ids.short_identifier("span", 8)
        if trace and span:
            yield Link(SpanContext(trace, span, True, TraceFlags(0)), _attributes(attributes))


plugin: type[TraceSource] = ClickhouseSource
