"""A celery application that traces itself: the worker is started with it, and so is who sends.

``TRACEKIT_OTLP_FILE`` says where its spans go, ``QUEUE`` what its queues' names begin with: many
shops may share a broker.
"""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import celery
from celery import chain, chord, group
from kombu.entity import Exchange, Queue

import tracekit

tracekit.configure("celery-shop", exporters=["otlp_file"])
tracekit.instrument("celery", correlation=os.environ.get("CORRELATION", "parent"))
tracekit.instrument("redis")

QUEUE = os.environ["QUEUE"]
# RabbitMQ drops a message itself whose time is over before a worker takes it.
WORKERS_HEAR_OF_EXPIRED = not os.environ["BROKER"].startswith("amqp")
ORDERS = Queue(f"{QUEUE}.orders", Exchange(f"{QUEUE}.shop", "topic"), routing_key="order.#")
app: Any = celery.Celery("shop", broker=os.environ["BROKER"], backend=os.environ["BACKEND"])
app.conf.update(
    broker_connection_retry_on_startup=True,
    task_store_eager_result=False,
    # What is told of tasks goes through the broker too.
    task_send_sent_event=True,
    worker_send_task_events=True,
    task_default_queue=QUEUE,
    task_queues=[
        Queue(QUEUE, routing_key=QUEUE),
        Queue(f"{QUEUE}.urgent", routing_key=f"{QUEUE}.urgent", max_priority=9),
        ORDERS,
    ],
)
if os.environ.get("QUORUM"):
    # On such queues celery has the broker keep a task until its time has come.
    exchange = Exchange(QUEUE, "topic")
    quorum = {"x-queue-type": "quorum"}
    app.conf.update(
        task_queues=[Queue(QUEUE, exchange, routing_key=QUEUE, queue_arguments=quorum)],
        broker_native_delayed_delivery_queue_type="classic",
        worker_enable_remote_control=False,
    )


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


@app.task(bind=True, acks_late=True, reject_on_worker_lost=True)
def kills_its_process(self):
    """Succeed when it is delivered for the second time."""
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"


def send_one(name):
    """Send one task below a span of the program; return what comes of it as JSON."""
    with tracekit.span("order") as span:
        outcome = app.tasks[f"celery_shop.{name}"].delay().get(timeout=45, propagate=False)
        return _told(span, {name: str(outcome)})


def send_later():
    """Send a task that has to wait, once a worker is there: it makes the queues to wait in."""
    with tracekit.span("order") as span:
        add.delay(1, 2).get(timeout=45)
        later = total.apply_async(([3, 4],), countdown=1).get(timeout=45)
        return _told(span, {"later": str(later)})


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
            "urgent": total.apply_async(([3, 4],), queue=f"{QUEUE}.urgent", priority=9),
            "topic": total.apply_async(
                ([5, 6],),
                exchange=ORDERS.exchange.name,
                routing_key="order.created",
                # The worker may not have made it yet, and nobody keeps a message to no queue.
                declare=[ORDERS],
            ),
        }
        if not WORKERS_HEAR_OF_EXPIRED:
            del sent["expired"]
        outcome = {
            name: str(result.get(timeout=45, propagate=False)) for name, result in sent.items()
        }
        app.AsyncResult(outcome["passes_on"]).get(timeout=45)
        # Once an answer is there, so is a worker that knows.
        app.control.revoke("revoked", reply=True, limit=1, timeout=45)
        revoked = add.apply_async((0, 0), task_id="revoked")
        outcome["revoked"] = str(revoked.get(timeout=45, propagate=False))
        return _told(span, outcome)


def _told(span, outcome):
    return json.dumps(outcome | {"trace": f"{span.get_span_context().trace_id:032x}"})
