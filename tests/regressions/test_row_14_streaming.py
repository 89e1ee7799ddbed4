"""Row 14: a span of a streamed response lasts as long as the stream, or says when it was left.

contrib#3401, #4681, #2304, sentry-python#2277, #5645.
"""

from __future__ import annotations

import asyncio

import flask
import httpx
import pytest
import requests
import starlette.applications
import starlette.responses
import starlette.routing

import tracekit
from http_servers import read_until, uvicorn_server, werkzeug_server

PAUSE_S = 0.1


def flask_app(made):
    app = flask.Flask("app")

    @app.get("/stream")
    def stream():
        def body():
            with tracekit.span("in body"):
                yield b"first"
            made.wait(PAUSE_S)
            yield b"last"

        return flask.Response(body())

    return app


def starlette_app(made):
    async def stream(request):
        async def body():
            with tracekit.span("in body"):
                yield b"first"
            await asyncio.sleep(PAUSE_S)
            yield b"last"

        return starlette.responses.StreamingResponse(body())

    return starlette.applications.Starlette(routes=[starlette.routing.Route("/stream", stream)])


SERVERS = {"flask": (flask_app, werkzeug_server), "starlette": (starlette_app, uvicorn_server)}


@pytest.mark.parametrize("library", SERVERS)
def test_the_server_span_lasts_until_the_last_byte(ended, watch, library):
    import threading

    watch(library)
    make, serve = SERVERS[library]
    with serve(make(threading.Event())) as client:
        assert client.ask("/stream").body == b"firstlast"
        (server,) = ended.server()
    assert server.end_time - server.start_time >= PAUSE_S * 0.9e9
    (inner,) = ended.named("in body")
    assert inner.parent.span_id == server.context.span_id


@pytest.mark.parametrize("library", SERVERS)
def test_the_server_span_ends_when_the_client_goes_away(ended, watch, library):
    import threading

    watch(library)

    def endless_flask(made):
        app = flask.Flask("app")

        @app.get("/stream")
        def stream():
            def body():
                while True:
                    yield b"more" * 10_000
                    made.wait(0.001)

            return flask.Response(body())

        return app

    def endless_starlette(made):
        async def stream(request):
            async def body():
                while True:
                    yield b"more" * 10_000
                    await asyncio.sleep(0.001)

            return starlette.responses.StreamingResponse(body())

        route = starlette.routing.Route("/stream", stream)
        return starlette.applications.Starlette(routes=[route])

    make = endless_flask if library == "flask" else endless_starlette
    with SERVERS[library][1](make(threading.Event())) as client:
        with client.open("/stream") as connection:
            read_until(connection, b"more")
        ended.server()
    assert tracekit.stats()["live"] == 0


@pytest.mark.parametrize("library", ["requests", "httpx"])
@pytest.mark.parametrize(("ends", "before_the_body"), [("headers", 1), ("body", 0)])
def test_a_client_span_ends_with_the_headers_or_the_body_as_it_was_asked_to(
    ended, watch, slow_chunks, library, ends, before_the_body
):
    """https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-client-span-duration"""
    watch(library, span_ends=ends)
    if library == "requests":
        with requests.get(slow_chunks, stream=True) as response:
            assert len(ended.all()) == before_the_body
            body = b"".join(response.iter_content(None))
    else:
        with httpx.stream("GET", slow_chunks) as answer:
            assert len(ended.all()) == before_the_body
            body = b"".join(answer.iter_bytes())
    assert body == b"chunk" * 3
    (span,) = ended.named("GET")
    if ends == "body":
        assert span.end_time - span.start_time >= 0.09e9


@pytest.mark.parametrize("ends", ["headers", "body"])
def test_an_answer_that_is_not_read_to_its_end_ends_its_span(ended, watch, slow_chunks, ends):
    for library in ("requests", "httpx"):
        watch(library, span_ends=ends)
    requests.get(slow_chunks, stream=True).close()
    with httpx.stream("GET", slow_chunks):
        pass
    ended.named("GET", 2)
    assert tracekit.stats()["live"] == 0
