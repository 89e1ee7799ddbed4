"""Row 6: one span a request, not one for each send and receive.

contrib#635, #831, #2343, #3992.
"""

from __future__ import annotations

import starlette.applications
import starlette.responses
import starlette.routing
from opentelemetry.trace import SpanKind

import tracekit
from http_servers import uvicorn_server
from tracekit.instrumentation.starlette import plugin


async def chunks(request):
    await request.body()

    async def body():
        for number in range(50):
            yield f"{number}\n".encode()

    return starlette.responses.StreamingResponse(body())


def test_fifty_chunks_are_one_span(exporter):
    instrumentor = plugin()
    instrumentor.instrument()
    try:
        routes = [starlette.routing.Route("/chunks", chunks, methods=["POST"])]
        with uvicorn_server(starlette.applications.Starlette(routes=routes)) as client:
            answer = client.ask("/chunks", method="POST", body=b"x" * 100_000)
    finally:
        instrumentor.uninstrument()
    assert answer.status == 200
    spans = exporter.get_finished_spans()
    assert [(span.name, span.kind) for span in spans] == [("POST /chunks", SpanKind.SERVER)]
    assert tracekit.stats()["live"] == 0
