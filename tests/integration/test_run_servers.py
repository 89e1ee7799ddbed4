"""Servers with several processes, under `tracekit run`: every request's spans, and each once.

What loses them elsewhere, or locks up: opentelemetry-python#1567, #2767, #4215, #4927 (threads and
exporters that do not survive a fork), opentelemetry-python-contrib#385 (gunicorn), #2086 (uvicorn).
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from integration.serving import Server, serving, spans_of

pytestmark = pytest.mark.slow

WSGI = """
import os, time
from flask import Flask, request
from opentelemetry import trace

app = Flask(__name__)

@app.get("/work")
def work():
    with trace.get_tracer("app").start_as_current_span("step", attributes={"n": request.args["n"]}):
        time.sleep(0.01)
    return str(os.getpid())
"""

ASGI = """
import asyncio, os
from opentelemetry import trace
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

VERSION = 1

async def work(request):
    n = request.query_params["n"]
    with trace.get_tracer("app").start_as_current_span("step", attributes={"n": n}):
        await asyncio.sleep(0.01)
    return PlainTextResponse(str(os.getpid()))

async def version(request):
    return PlainTextResponse(str(VERSION))

app = Starlette(routes=[Route("/work", work), Route("/version", version)])
"""

# Programs beside the Python that runs the tests.
GUNICORN = os.path.join(os.path.dirname(sys.executable), "gunicorn")
UVICORN = os.path.join(os.path.dirname(sys.executable), "uvicorn")


def _assert_every_request_is_there_once(spans: list[Any], answers: dict[int, str]) -> None:
    steps = [span for span in spans if span.name == "step"]
    served = {span.context.span_id: span for span in spans if span.kind is SpanKind.SERVER}
    assert Counter(int(span.attributes["n"]) for span in steps) == Counter(list(answers))
    assert max(Counter(span.context.span_id for span in spans).values()) == 1
    for step in steps:
        request = served[step.parent.span_id]
        pid = request.resource.attributes["process.pid"]
        assert str(pid) == answers[int(step.attributes["n"])]
    assert len({span.context.trace_id for span in steps}) == len(answers)


def _assert_each_worker_is_an_instance(spans: list[Any], workers: int) -> None:
    resources = {span.resource.attributes["service.instance.id"] for span in spans}
    assert len(resources) == workers


@pytest.mark.parametrize(
    "options",
    [["--preload"], [], ["--preload", "--worker-class", "gthread", "--threads", "4"]],
    ids=["preload", "plain", "threads"],
)
def test_gunicorn(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "app.py").write_text(WSGI)
    store = tmp_path / "traces.db"
    words = [GUNICORN, *options, "-w", "3", "-b", "fd://{fd}", "app:app"]
    with serving(words, store, tmp_path) as server:
        answers = server.get_until_answered_by(3)
        assert server.stop() == 0
    spans = spans_of(store)
    _assert_every_request_is_there_once(spans, answers)
    _assert_each_worker_is_an_instance(spans, 3)


def test_gunicorn_workers_that_are_replaced(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(WSGI)
    store = tmp_path / "traces.db"
    words = [GUNICORN, "--preload", "--max-requests", "20", "-w", "2", "-b", "fd://{fd}", "app:app"]
    with serving(words, store, tmp_path) as server:
        answers = server.get_until_answered_by(4)
        assert server.stop() == 0
    _assert_every_request_is_there_once(spans_of(store), answers)


def test_uvicorn_workers(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ASGI)
    store = tmp_path / "traces.db"
    words = [UVICORN, "--workers", "2", "--fd", "{fd}", "app:app"]
    with serving(words, store, tmp_path) as server:
        answers = server.get_until_answered_by(2)
        assert server.stop() in (0, -signal.SIGTERM)
    spans = spans_of(store)
    _assert_every_request_is_there_once(spans, answers)
    _assert_each_worker_is_an_instance(spans, 2)


def test_uvicorn_alone_ended_by_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(ASGI)
    store = tmp_path / "traces.db"
    with serving([UVICORN, "--fd", "{fd}", "app:app"], store, tmp_path) as server:
        answers = server.get_until_answered_by(1)
        assert server.stop(signal.SIGINT) in (0, -signal.SIGINT)
    _assert_every_request_is_there_once(spans_of(store), answers)


def test_uvicorn_reloading(tmp_path: Path) -> None:
    app = tmp_path / "app.py"
    app.write_text(ASGI)
    store = tmp_path / "traces.db"
    words = [UVICORN, "--reload", "--reload-delay", "0.1", "--fd", "{fd}", "app:app"]
    with serving(words, store, tmp_path) as server:
        before = server.get_until_answered_by(1)
        app.write_text(ASGI.replace("VERSION = 1", "VERSION = 2"))
        _wait_for_version(server, "2")
        after = {1000: server.get("/work?n=1000")}
        server.stop()
    spans = [span for span in spans_of(store) if "/version" not in span.name]
    assert set(before.values()) != set(after.values())
    _assert_every_request_is_there_once(spans, {**before, **after})


def _wait_for_version(server: Server, version: str) -> None:
    # Each question is a request, and the answer is the event: the server cannot tell otherwise.
    deadline = time.monotonic() + 20
    while server.get("/version") != version:
        assert time.monotonic() < deadline
        time.sleep(0.05)
