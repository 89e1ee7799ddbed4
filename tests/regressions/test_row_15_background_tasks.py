"""Row 15: a background task neither stretches the request nor is lost.

contrib#4251, #3586, #1684, ddtrace#7132, sentry-python#1473.
"""

from __future__ import annotations

import asyncio

import fastapi
import pytest
import starlette.applications
import starlette.background
import starlette.responses
import starlette.routing

import tracekit
from http_servers import uvicorn_server

LATE_S = 0.15


async def mail():
    await asyncio.sleep(LATE_S)
    with tracekit.span("sent"):
        pass


def starlette_app():
    def answer(request):
        later = starlette.background.BackgroundTask(mail)
        return starlette.responses.PlainTextResponse("ok", background=later)

    return starlette.applications.Starlette(routes=[starlette.routing.Route("/", answer)])


def fastapi_app():
    app = fastapi.FastAPI()

    @app.get("/")
    def answer(tasks: fastapi.BackgroundTasks):
        tasks.add_task(mail)
        return "ok"

    return app


@pytest.mark.parametrize(
    ("library", "make"), [("starlette", starlette_app), ("fastapi", fastapi_app)]
)
def test_the_request_ends_with_its_answer_and_the_task_is_a_span_of_its_own(
    ended, watch, library, make
):
    watch(library)
    with uvicorn_server(make()) as client:
        assert client.ask("/").status == 200
        (server,) = ended.server()
        (sent,) = ended.named("sent")
        (background,) = ended.named("background mail")
    assert server.end_time - server.start_time < LATE_S * 0.9e9
    assert background.end_time - background.start_time >= LATE_S * 0.9e9
    assert background.parent.span_id == server.context.span_id
    assert sent.parent.span_id == background.context.span_id
