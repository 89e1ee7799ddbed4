"""Grafana Tempo's query API: a search for ids in TraceQL, then each trace as OTLP JSON.

Source: https://grafana.com/docs/tempo/latest/api_docs/
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tracekit.errors import SourceError
from tracekit.formats._fields import Fields
from tracekit.model import SpanRecord
from tracekit.sources._source import Recent, TraceSource, checked_trace_id

__all__ = ["TempoSource"]

# Its answer of the second version says when it is partial; servers before 2.7 have the first.
PATHS = ("/api/v2/traces", "/api/traces")


class TempoSource(TraceSource):
    """``http://host:3200``; of Grafana Cloud with user and token in the address."""

    name = "tempo"

    def trace(self, trace_id: str) -> Iterator[SpanRecord]:
        wanted = checked_trace_id(trace_id)
        for path in PATHS:
            answer = self.server.get(f"{path}/{wanted}", may_lack=True)
            if answer is not None:
                if b'"PARTIAL"' in answer.body[-1000:] or b'"PARTIAL"' in answer.body[:1000]:
                    self.remark("Tempo says that a trace is larger than it may send")
                yield from self.spans(answer, "otlp_json")
                return

    def recent(self, wanted: Recent) -> Iterator[SpanRecord]:
        """Search, and read each trace that is found until time or size are used up."""
        since, until = wanted.window_ns()
        found = self.server.document(
            "/api/search",
            {
                "q": _query(wanted),
                "limit": wanted.limit,
                "start": since // 10**9,
                "end": until // 10**9 + 1,
            },
        )
        ids = [item.text("traceID") for item in Fields(found).objects("traces")]
        for number, trace_id in enumerate(ids):
            try:
                yield from self.trace(trace_id)
            except SourceError as error:
                if not number:
                    raise
                self.remark(f"{number} of {len(ids)} traces were read: {error}")
                return


def _query(wanted: Recent) -> str:
    """Return TraceQL. Its texts are quoted as JSON's are."""
    conditions = []
    if wanted.service is not None:
        conditions.append(f"resource.service.name = {json.dumps(wanted.service)}")
    if wanted.name is not None:
        conditions.append(f"name = {json.dumps(wanted.name)}")
    return f"{{ {' && '.join(conditions)} }}"


plugin: type[TraceSource] = TempoSource
