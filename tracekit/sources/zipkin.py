"""Zipkin's query API.

Source: https://github.com/openzipkin/zipkin-api/blob/master/zipkin2-api.yaml
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from tracekit.model import SpanRecord
from tracekit.sources._source import Recent, TraceSource, checked_trace_id

__all__ = ["ZipkinSource"]


class ZipkinSource(TraceSource):
    """``http://host:9411``. Names are in lower case there, and found in any."""

    name = "zipkin"

    def trace(self, trace_id: str) -> Iterator[SpanRecord]:
        path = f"/api/v2/trace/{quote(checked_trace_id(trace_id))}"
        if answer := self.server.get(path, may_lack=True):
            yield from self.spans(answer, "zipkin_json")

    def recent(self, wanted: Recent) -> Iterator[SpanRecord]:
        since, until = wanted.window_ns()
        answer = self.server.get(
            "/api/v2/traces",
            {
                "serviceName": wanted.service and wanted.service.lower(),
                "spanName": wanted.name and wanted.name.lower(),
                "endTs": until // 1_000_000,
                "lookback": max(1, (until - since) // 1_000_000),
                "limit": wanted.limit,
            },
        )
        if answer:
            yield from self.spans(answer, "zipkin_json")


plugin: type[TraceSource] = ZipkinSource
