"""A celery application that traces itself: the worker is started with it, and so is who sends.

``TRACEKIT_OTLP_FILE`` says where its spans go.
"""

from __future__ import annotations

import json
import os
from typing import Any

import celery
from celery import chain, chord, group

import tracekit

tracekit.configure("celery-shop", exporters=["otlp_file"])
tracekit.instrument("celery", correlation=os.environ.get("CORRELATION", "parent"))
tracekit.instrument("redis")

app: Any = celery.Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BROKER"])
app.conf.update(broker_connection_retry_on_startup=True, task_store_eager_result=False)


@app.task
def add(x, y):
    with tracekit.span("inside"):
        return x + y


@app.task
def fail():
    raise ArithmeticError("not today")


@app.task(bind=True, max_retries=2)
def flaky(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0, exc=OSError("again"))
    return self.request.retries


@app.task
def passes_on(x):
    return add.delay(x, 1).id


@app.task
def total(numbers):
    return sum(numbers)


def send_all():
    """Send one of each below a span of the program; return what comes of it as JSON."""
    with tracekit.span("order") as span:
        sent = {
            "add": add.delay(1, 2),
            "fail": fail.delay(),
            "flaky": flaky.delay(),
            "passes_on": passes_on.delay(5),
            "chain": chain(add.s(1, 2), add.s(3)).apply_async(),
            "chord": chord(group(add.s(1, 1), add.s(2, 2)), total.s()).apply_async(),
            "expired": add.apply_async((0, 0), expires=-1),
        }
        outcome = {
            name: str(result.get(timeout=15, propagate=False)) for name, result in sent.items()
        }
        app.AsyncResult(outcome["passes_on"]).get(timeout=15)
        trace = f"{span.get_span_context().trace_id:032x}"
        return json.dumps(outcome | {"trace": trace})
