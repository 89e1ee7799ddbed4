"""Row 20: a request that fails has the exception and the status on its span.

contrib#3637, #3389, opentelemetry-python#4500, contrib PR#3929.
"""

from __future__ import annotations

import logging

import fastapi
import flask
import httpx
import pytest
import requests
import starlette.applications
import starlette.routing
from opentelemetry.trace import StatusCode

from http_servers import uvicorn_server, werkzeug_server


def flask_app():
    app = flask.Flask("app")
    app.add_url_rule("/", "index", fails)
    return app


def starlette_app():
    routes = [starlette.routing.Route("/", fails)]
    return starlette.applications.Starlette(routes=routes)


def fastapi_app():
    app = fastapi.FastAPI()

    @app.get("/")
    def index():
        fails()

    return app


def fails(request=None):
    raise ValueError("the shelf is empty")


APPS = {
    "flask": (flask_app, werkzeug_server),
    "starlette": (starlette_app, uvicorn_server),
    "fastapi": (fastapi_app, uvicorn_server),
}


@pytest.mark.parametrize("library", APPS)
def test_an_unhandled_exception_is_on_the_server_span_once(ended, watch, library):
    logging.getLogger("app").disabled = True
    watch(library)
    make, serve = APPS[library]
    with serve(make()) as client:
        assert client.ask("/").status == 500
        (server,) = ended.server()
    assert server.attributes["http.response.status_code"] == 500
    assert server.attributes["error.type"] in ("ValueError", "500")
    assert server.status.status_code is StatusCode.ERROR
    (event,) = [event for event in server.events if event.name == "exception"]
    assert event.attributes["exception.type"] == "ValueError"
    assert event.attributes["exception.message"] == "the shelf is empty"
    assert "in fails" in event.attributes["exception.stacktrace"]


@pytest.mark.parametrize(
    ("library", "call", "error"),
    [
        ("requests", requests.get, requests.exceptions.ConnectionError),
        ("httpx", httpx.get, httpx.ConnectError),
    ],
)
def test_a_call_that_cannot_connect_is_an_error_on_the_client_span(
    ended, watch, library, call, error
):
    watch(library)
    with pytest.raises(error):
        call("http://127.0.0.1:9/")
    (span,) = ended.all()
    assert span.status.status_code is StatusCode.ERROR
    assert error.__name__ in span.attributes["error.type"]
    assert span.events[0].attributes["exception.type"].endswith(error.__name__)


@pytest.mark.parametrize("library", ["starlette", "fastapi"])
def test_an_error_that_a_handler_turns_into_an_answer_is_no_exception_of_the_request(
    ended, watch, library
):
    watch(library)
    app = fastapi.FastAPI() if library == "fastapi" else starlette.applications.Starlette()
    app.add_route("/", fails)

    async def sorry(request, error):
        return starlette.responses.PlainTextResponse("sorry", 409)

    app.add_exception_handler(ValueError, sorry)
    with uvicorn_server(app) as client:
        assert client.ask("/").status == 409
        (server,) = ended.server()
    assert server.attributes["http.response.status_code"] == 409
    assert server.status.status_code is StatusCode.UNSET
