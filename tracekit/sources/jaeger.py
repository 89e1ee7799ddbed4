"""Jaeger's query service, by the API of its own page.

Source: https://www.jaegertracing.io/docs/latest/architecture/apis/#internal-http-json
"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import quote

from tracekit.formats._fields import Fields
from tracekit.model import SpanRecord
from tracekit.sources._source import Recent, TraceSource, checked_trace_id

__all__ = ["JaegerSource"]

MOST_SERVICES = 50


class JaegerSource(TraceSource):
    """``http://host:16686``, with the path that ``--query.base-path`` says, if any."""

    name = "jaeger"

    def trace(self, trace_id: str) -> Iterator[SpanRecord]:
        path = f"/api/traces/{quote(checked_trace_id(trace_id))}"
        if answer := self.server.get(path, may_lack=True):
            yield from self.spans(answer, "jaeger_json")

    def recent(self, wanted: Recent) -> Iterator[SpanRecord]:
        """Ask for the traces of one service after the other: Jaeger wants to be told which."""
        since, until = wanted.window_ns()
        for service in [wanted.service] if wanted.service else self._services():
            answer = self.server.get(
                "/api/traces",
                {
                    "service": service,
                    "operation": wanted.name,
                    "start": since // 1000,
                    "end": until // 1000,
                    "limit": wanted.limit,
                },
            )
            if answer:
                yield from self.spans(answer, "jaeger_json")

    def _services(self) -> list[str]:
        names = Fields(self.server.document("/api/services")).values.get("data")
        found = [name for name in names if isinstance(name, str)] if isinstance(names, list) else []
        if len(found) > MOST_SERVICES:
            self.remark(f"only {MOST_SERVICES} of {len(found)} services were asked for")
        return sorted(found)[:MOST_SERVICES]


plugin: type[TraceSource] = JaegerSource
