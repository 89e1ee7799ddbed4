"""One call of several libraries that two tracers watch; prints what ours made of each as JSON.

``python beside_other_tracer.py TRACER ORDER HTTP_URL [POSTGRESQL_PORT] [REDIS_PORT]``
"""

from __future__ import annotations

import json
import os
import sys
import types
from collections.abc import Callable
from typing import Any

import tracekit
from tracekit.testing import capture_spans

TRACER, ORDER, URL = sys.argv[1:4]
PORTS = [int(port) for port in sys.argv[4:]]


def their_tracer() -> None:
    if TRACER == "ddtrace":
        os.environ.update(DD_INSTRUMENTATION_TELEMETRY_ENABLED="false", DD_TRACE_ENABLED="true")
        os.environ.update(DD_REMOTE_CONFIGURATION_ENABLED="false", DD_TRACE_STARTUP_LOGS="false")
        import ddtrace  # pyright: ignore[reportMissingImports]

        ddtrace.patch(raise_errors=True, **dict.fromkeys(set(CALLS) & DATADOG, True))
        return
    import sentry_sdk
    from sentry_sdk.integrations.django import DjangoIntegration
    from sentry_sdk.integrations.flask import FlaskIntegration
    from sentry_sdk.integrations.redis import RedisIntegration

    sentry_sdk.init(
        "http://key@127.0.0.1:9/1",
        traces_sample_rate=1.0 if TRACER == "sentry_tracing" else None,
        # Left to itself it imports whatever is installed.
        auto_enabling_integrations=False,
        integrations=[DjangoIntegration(), FlaskIntegration(), RedisIntegration()],
        transport=lambda _: None,
    )


DATADOG = {"requests", "flask", "django", "sqlite3", "psycopg", "redis"}


def call_requests() -> Any:
    import requests

    return requests.get(URL, timeout=5).status_code == 200


def call_flask() -> Any:
    import flask

    app = flask.Flask("shop")
    app.add_url_rule("/", "index", lambda: "index")
    return app.test_client().get("/").data == b"index"


def call_django() -> Any:
    import django
    from django.conf import settings
    from django.http import HttpResponse
    from django.test import Client
    from django.urls import path

    urls: Any = types.ModuleType("urls")
    urls.urlpatterns = [path("", lambda _: HttpResponse("index"))]
    settings.configure(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"], LOGGING_CONFIG=None)
    django.setup()
    return Client().get("/").content == b"index"


def call_sqlite3() -> Any:
    import sqlite3

    connection = sqlite3.connect(":memory:")
    try:
        return connection.execute("SELECT 7").fetchall() == [(7,)]
    finally:
        connection.close()


def call_psycopg() -> Any:
    import psycopg

    with psycopg.connect(host="127.0.0.1", port=PORTS[0], user="shop", dbname="shop") as connection:
        return connection.execute("SELECT 7").fetchall() == [(7,)]


def call_redis() -> Any:
    import redis

    with redis.Redis(port=PORTS[1]) as client:
        return client.set("key", "value")


CALLS: dict[str, Callable[[], Any]] = {
    "requests": call_requests,
    "flask": call_flask,
    "django": call_django,
    "sqlite3": call_sqlite3,
    "psycopg": call_psycopg,
    "redis": call_redis,
}


def main() -> None:
    for name in ["psycopg", "redis"][len(PORTS) :]:
        del CALLS[name]
    steps: list[Callable[[], Any]] = [their_tracer, lambda: tracekit.instrument(*CALLS)]
    with capture_spans() as spans:
        for step in steps if ORDER == "first" else reversed(steps):
            step()
        found = {}
        for name, call in CALLS.items():
            spans.clear()
            done = bool(call())
            found[name] = [done, [span.name for span in spans.get_finished_spans()]]
    print(json.dumps(found), flush=True)
    os._exit(0)  # no thread of theirs is waited for


if __name__ == "__main__":
    main()
