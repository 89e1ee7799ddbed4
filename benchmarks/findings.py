"""What is wrong with a very large trace."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

from opentelemetry.trace import SpanKind

from benchmarks.harness import Effort, Figures, row
from tracekit.findings import find_all
from tracekit.model import SpanRecord
from tracekit.testing import build_span
from tracekit.trace import traces_of

SPANS = 100_000
HTTP = {"http.request.method": "GET", "url.full": "http://stock/items/1", "server.address": "stock"}
QUERY = {
    "db.system.name": "postgresql",
    "db.query.text": "SELECT * FROM items WHERE id = $1",
    "db.query.summary": "SELECT items",
}


def _trace(count: int) -> Iterator[SpanRecord]:
    chance = random.Random(1)
    yield build_span("root", span_id=1, start_time=0, end_time=10**12)
    for number in range(2, count + 1):
        yield build_span(
            f"step {number % 50}",
            span_id=number,
            parent_id=chance.randrange(max(1, number - 2000), number),
            start_time=number * 1000,
            duration_ns=chance.randrange(10**6),
            kind=SpanKind.CLIENT if number % 2 else SpanKind.INTERNAL,
            attributes=({}, HTTP, {}, QUERY)[number % 4],
            service_name=f"service {number % 7}",
        )


@row(
    "findings.trace",
    "join 100,000 spans and find what is wrong",
    must=2000,
    aim=1000,
    unit="ms",
    limit="figure",
)
def large_trace(effort: Effort) -> Figures:
    spans = list(_trace(effort.items(SPANS)))
    times = []
    for _ in range(3):
        began = time.process_time()
        (trace,) = traces_of(spans)
        find_all(trace)
        times.append(time.process_time() - began)
    return Figures(None, min(times) * 1000)
