"""Row 6: one span a request, not one for each send and receive.

contrib#635, #831, #2343, #3992.
"""

from __future__ import annotations

import pytest
import starlette.applications
import starlette.responses
import starlette.routing
from opentelemetry.trace import SpanKind

import tracekit
from http_servers import uvicorn_server


async def chunks(request):
    await request.body()

    async def body():
        for number in range(50):
            yield f"{number}\n".encode()

    return starlette.responses.StreamingResponse(body())


@pytest.mark.parametrize("library", ["starlette", "fastapi"])
def test_fifty_chunks_are_one_span(ended, watch, library):
    watch(library)
    if library == "fastapi":
        import fastapi

        app = fastapi.FastAPI()
        app.add_route("/chunks", chunks)
    else:
        route = starlette.routing.Route("/chunks", chunks)
        app = starlette.applications.Starlette(routes=[route])
    with uvicorn_server(app) as client:
        assert client.ask("/chunks").status == 200
        ended.server()
    assert [(span.name, span.kind) for span in ended.all()] == [("GET /chunks", SpanKind.SERVER)]
    assert tracekit.stats()["live"] == 0
