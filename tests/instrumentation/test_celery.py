"""celery: real workers of every pool on a real broker, and what is asked without one."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import celery
import pytest
from celery import signals as celery_signals
from celery.exceptions import Retry
from kombu.exceptions import OperationalError
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.instrumentation.celery import CeleryInstrumentor as ContribInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import BrokenProvider, parent_id, raise_error, run
from instrumentation.redis_contract import entries
from redis_servers import needs_redis, redis_server
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._operation import begin
from tracekit.instrumentation.celery import CeleryInstrumentor
from tracekit.instrumentation.sqlite3 import Sqlite3Instrumentor

PROGRAMS = Path(__file__).parent / "programs"
POOLS = {
    "prefork": ["--pool", "prefork", "--concurrency", "2", "--max-tasks-per-child", "1"],
    "threads": ["--pool", "threads", "--concurrency", "3"],
    "solo": ["--pool", "solo"],
}


class Seen(NamedTuple):
    """A span as the file has it."""

    name: str
    kind: int
    trace: str
    id: str
    parent: str
    attributes: Mapping[str, Any]
    error: str
    links: list[str]


class Shop(NamedTuple):
    """What the program printed, and every span that it and its worker wrote."""

    outcome: Mapping[str, str]
    spans: list[Seen]

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def above(self, span: Seen) -> Seen:
        (found,) = [other for other in self.spans if other.id == span.parent]
        return found


def shop_on(pool: str, folder: Path, correlation: str = "parent") -> Shop:
    """Run a worker and a program that sends it tasks, and stop the worker as its master would."""
    with redis_server(folder) as port:
        environ = os.environ | {
            "BROKER": f"redis://127.0.0.1:{port}/0",
            "CORRELATION": correlation,
            "TRACEKIT_OTLP_FILE": str(folder / "spans.jsonl"),
            "PYTHONPATH": os.pathsep.join([str(PROGRAMS), *filter(None, sys.path)]),
        }
        with worker(POOLS[pool], environ, folder):
            done = subprocess.run(
                [sys.executable, "-c", "import celery_shop; print(celery_shop.send_all())"],
                env=environ,
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=60,
                check=True,
            )
    return Shop(json.loads(done.stdout), list(read(folder / "spans.jsonl")))


@contextlib.contextmanager
def worker(
    pool: list[str], environ: Mapping[str, str], folder: Path
) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "celery", "-A", "celery_shop", "worker", *pool]
    quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR"]
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, *quiet], env=environ, cwd=folder, stdout=log, stderr=log
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(30)


def read(path: Path) -> Iterator[Seen]:
    for line in path.read_text().splitlines():
        for resource in json.loads(line)["resourceSpans"]:
            for scope in resource["scopeSpans"]:
                for span in scope["spans"]:
                    yield Seen(
                        span["name"],
                        span["kind"],
                        span["traceId"],
                        span["spanId"],
                        span.get("parentSpanId", ""),
                        {
                            entry["key"]: next(iter(entry["value"].values()))
                            for entry in span.get("attributes", ())
                        },
                        span.get("status", {}).get("message", ""),
                        [link["spanId"] for link in span.get("links", ())],
                    )


PRODUCER, CONSUMER = 4, 5


@pytest.fixture(scope="module", params=list(POOLS))
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return shop_on(request.param, tmp_path_factory.mktemp(request.param))


@needs_redis
@pytest.mark.slow
class TestWorkers:
    def test_a_task_is_run_below_the_span_that_sent_it(self, shop: Shop) -> None:
        runs = [run for run in shop.named("run celery_shop.add") if not run.error]
        assert runs
        for run_ in runs:
            sent = shop.above(run_)
            assert (run_.kind, sent.kind) == (CONSUMER, PRODUCER)
            assert sent.name == "apply_async celery_shop.add"
            if run_.attributes["celery.state"] == "SUCCESS":
                assert "inside" in [span.name for span in shop.spans if span.parent == run_.id]

    def test_everything_is_one_trace_and_nothing_is_lost(self, shop: Shop) -> None:
        ours = [span for span in shop.spans if "celery.task_name" in span.attributes]
        assert {span.trace for span in ours} == {shop.outcome["trace"]}
        # Sent: add, fail, flaky (three times), passes_on and what it sends, two of a chain,
        # three of a chord, one that had expired.
        assert [sum(span.kind == kind for span in ours) for kind in (PRODUCER, CONSUMER)] == [
            13,
            13,
        ]

    def test_attributes_of_both_ends_agree(self, shop: Shop) -> None:
        run_ = shop.named("run celery_shop.total")[0]
        sent = shop.above(run_)
        for name in (
            "messaging.message.id",
            "messaging.message.conversation_id",
            "messaging.destination.name",
            "messaging.system",
            "celery.task_name",
        ):
            assert run_.attributes[name] == sent.attributes[name]
        assert sent.attributes["messaging.destination.name"] == "celery"
        assert sent.attributes["server.address"] == "127.0.0.1"
        assert sent.attributes["messaging.operation.type"] == "send"
        assert run_.attributes["messaging.operation.type"] == "process"

    def test_a_failure_is_an_error_of_the_run_and_not_of_the_sender(self, shop: Shop) -> None:
        (run_,) = shop.named("run celery_shop.fail")
        assert run_.error == "not today"
        assert run_.attributes["error.type"] == "ArithmeticError"
        assert run_.attributes["celery.state"] == "FAILURE"
        assert shop.above(run_).error == ""

    def test_each_retry_is_run_below_the_one_before(self, shop: Shop) -> None:
        runs = shop.named("run celery_shop.flaky")
        states = {
            str(r.attributes.get("celery.retries")): r.attributes["celery.state"] for r in runs
        }
        assert states == {"None": "RETRY", "1": "RETRY", "2": "SUCCESS"}
        assert {run_.error for run_ in runs} == {""}
        last = next(r for r in runs if str(r.attributes.get("celery.retries")) == "2")
        sender = shop.above(last)
        assert shop.above(sender).name == "run celery_shop.flaky"

    def test_a_task_sent_by_a_task_is_below_it(self, shop: Shop) -> None:
        (run_,) = shop.named("run celery_shop.passes_on")
        below = [span for span in shop.spans if span.parent == run_.id and span.kind == PRODUCER]
        assert [span.name for span in below] == ["apply_async celery_shop.add"]

    def test_a_task_that_expired_is_said_to_be_revoked(self, shop: Shop) -> None:
        (revoked,) = [s for s in shop.spans if s.attributes.get("celery.state") == "REVOKED"]
        assert revoked.attributes["error.type"] == "expired"
        assert shop.above(revoked).kind == PRODUCER

    def test_the_brokers_own_commands_are_not_below_a_sender(self, shop: Shop) -> None:
        senders = {span.id for span in shop.spans if span.kind == PRODUCER}
        below = [s.name for s in shop.spans if s.parent in senders and s.kind != CONSUMER]
        assert below == []


@needs_redis
@pytest.mark.slow
def test_runs_are_linked_on_request(tmp_path: Path) -> None:
    shop = shop_on("solo", tmp_path, "link")
    (run_,) = shop.named("run celery_shop.fail")
    (sent,) = shop.named("apply_async celery_shop.fail")
    assert (run_.parent, run_.links) == ("", [sent.id])
    assert run_.trace != sent.trace


# Without a worker


def seven() -> int:
    return 7


@pytest.fixture
def app() -> Iterator[Any]:
    with celery.Celery(
        "tests", broker="memory://user:secret@broker:99//", set_as_current=False
    ) as app:
        yield app


def test_attributes_of_a_sender(instrument: Instrument, spans: Spans, app: Any) -> None:
    instrument(CeleryInstrumentor)
    result = app.send_task("tasks.add", (1, 2), queue="orders")
    span = spans.one()
    assert (span.name, span.kind) == ("apply_async tasks.add", SpanKind.PRODUCER)
    assert dict(span.attributes or {}) == {
        "messaging.system": "celery",
        "messaging.operation.name": "apply_async",
        "messaging.operation.type": "send",
        "messaging.destination.name": "orders",
        "messaging.message.id": result.id,
        "messaging.message.conversation_id": result.id,
        "celery.task_name": "tasks.add",
        "server.address": "broker",
        "server.port": 99,
    }
    assert span.status.status_code is StatusCode.UNSET


def received(app: Any, queue: str) -> Any:
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue(queue).get(timeout=5)
        message.ack()
        return message


def test_headers_of_the_program_stay(instrument: Instrument, spans: Spans, app: Any) -> None:
    instrument(CeleryInstrumentor)
    headers = {"tenant": "acme"}
    app.send_task("tasks.add", headers=headers, queue="headers")
    message = received(app, "headers")
    assert message.headers["tenant"] == "acme"
    assert f"{spans.one().context.span_id:016x}" in message.headers["traceparent"]
    assert headers == {"tenant": "acme"}


def test_the_event_of_a_sent_task_is_no_message_of_its_own(
    instrument: Instrument, spans: Spans, app: Any
) -> None:
    instrument(CeleryInstrumentor)
    app.conf.task_send_sent_event = True
    app.send_task("tasks.add", queue="told")
    assert (spans.one().attributes or {})["messaging.destination.name"] == "told"
    with app.amqp._event_dispatcher as dispatcher:
        assert "traceparent" not in dispatcher.headers


def test_other_libraries_are_silent_while_a_task_is_sent(
    instrument: Instrument, spans: Spans, app: Any
) -> None:
    instrument(CeleryInstrumentor)
    instrument(Sqlite3Instrumentor)
    seen: list[Any] = []

    def look(**_: Any) -> None:
        with contextlib.closing(sqlite3.connect(":memory:")) as connection:
            connection.execute("SELECT 1")
        assert begin(spans.tracer.start_span, "redis", "PING", {}) is None
        context = otel_context.get_current()
        asked = (context.get("suppress_instrumentation"), "suppress_instrumentation" in context)
        seen.append((asked, len(context), trace.get_current_span(context)))
        seen.append((otel_context.set_value("more", 1, context), len(context)))

    celery.signals.before_task_publish.connect(look)
    try:
        app.send_task("tasks.add", queue="others")
    finally:
        celery.signals.before_task_publish.disconnect(look)
    (asked, length, span), (more, filled) = seen
    assert [each.name for each in spans.ended] == ["apply_async tasks.add"]
    assert (asked, length, filled) == ((True, True), 3, 3)
    assert span.get_span_context().span_id == spans.one().context.span_id
    assert more["suppress_instrumentation"] is True
    assert trace.get_current_span(more) is span


def test_a_task_of_the_first_protocol_takes_the_context_along(
    instrument: Instrument, spans: Spans, app: Any
) -> None:
    instrument(CeleryInstrumentor)
    app.conf.task_protocol = 1
    app.send_task("tasks.add", queue="first")
    span_id = spans.one().context.span_id
    assert f"{span_id:016x}" in received(app, "first").headers["traceparent"]


def test_a_broker_that_is_not_there_is_an_error(instrument: Instrument, spans: Spans) -> None:
    instrument(CeleryInstrumentor)
    with (
        celery.Celery("tests", broker="amqp://127.0.0.1:1//", set_as_current=False) as app,
        pytest.raises(OperationalError),
    ):
        app.send_task("tasks.add", retry=False)
    assert spans.one().status.status_code is StatusCode.ERROR
    assert (spans.one().attributes or {})["error.type"] == "kombu.exceptions.OperationalError"


def test_an_eager_task_is_below_its_caller(instrument: Instrument, spans: Spans, app: Any) -> None:
    instrument(CeleryInstrumentor)
    app.conf.task_always_eager = True

    @app.task
    def inner() -> None:
        spans.tracer.start_span("inside").end()

    @app.task
    def outer() -> None:
        inner.delay()

    with spans.tracer.start_as_current_span("caller") as caller:
        outer.delay()
    by_name = {span.name.rpartition(".")[2]: span for span in spans.ended}
    assert parent_id(by_name["outer"]) == caller.get_span_context().span_id
    assert parent_id(by_name["inner"]) == by_name["outer"].context.span_id
    assert parent_id(by_name["inside"]) == by_name["inner"].context.span_id


def test_receivers_of_the_program_are_told_of_a_task_within_its_span(
    instrument: Instrument, spans: Spans, app: Any
) -> None:
    instrument(CeleryInstrumentor)
    seen: list[Any] = []

    @app.task(name="tasks.seven")
    def task() -> int:
        return 7

    def before(sender: Any, task_id: str, **_: Any) -> None:
        seen.append((sender.name, task_id, trace.get_current_span().is_recording()))

    def after(sender: Any, task_id: str, state: str, retval: Any, **_: Any) -> None:
        seen.append((sender.name, task_id, state, retval))

    with (
        connected(celery_signals.task_prerun, before),
        connected(celery_signals.task_postrun, after),
    ):
        task_id = task.apply().id
    assert seen == [("tasks.seven", task_id, True), ("tasks.seven", task_id, "SUCCESS", 7)]
    assert spans.one().name == "run tasks.seven"
    task.apply()
    assert len(seen) == 2
    assert len(spans.watched) == 2


@contextlib.contextmanager
def connected(signal: Any, receiver: Any) -> Iterator[None]:
    signal.connect(receiver)
    try:
        yield
    finally:
        signal.disconnect(receiver)


@pytest.mark.parametrize("propagates", [True, False])
def test_an_eager_failure_is_recorded_once(
    instrument: Instrument, spans: Spans, app: Any, propagates: bool
) -> None:
    instrument(CeleryInstrumentor)
    app.conf.update(task_always_eager=True, task_eager_propagates=propagates)
    task = app.task(raise_error, name="tasks.broken")
    with pytest.raises(ArithmeticError) if propagates else contextlib.nullcontext():
        task.delay()
    span = spans.one()
    assert [event.name for event in span.events] == ["exception"]
    assert (span.attributes or {})["celery.state"] == "FAILURE"
    assert span.status.status_code is StatusCode.ERROR


def test_a_retry_is_no_error(instrument: Instrument, spans: Spans, app: Any) -> None:
    instrument(CeleryInstrumentor)

    @app.task(bind=True, name="tasks.flaky")
    def flaky(self: Any) -> int:
        if not self.request.retries:
            raise self.retry(exc=OSError("again"), countdown=0)
        return 1

    with contextlib.suppress(Retry):
        flaky.apply()
    states = [(span.attributes or {})["celery.state"] for span in spans.watched]
    assert states[:1] == ["RETRY"]
    assert {span.status.status_code for span in spans.watched} == {StatusCode.UNSET}


def test_below_an_unsampled_parent_nothing_is_recorded(instrument: Instrument, app: Any) -> None:
    spans = Spans(ALWAYS_OFF)
    instrument(CeleryInstrumentor, tracer_provider=spans.provider)
    with spans.tracer.start_as_current_span("off"):
        app.send_task("tasks.add", queue="off")
    assert not int(received(app, "off").headers["traceparent"].rpartition("-")[2], 16) & 1
    assert spans.ended == []


def test_a_suppressed_sender_has_no_span_and_no_headers(
    instrument: Instrument, spans: Spans, app: Any
) -> None:
    instrument(CeleryInstrumentor)
    token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
    try:
        app.send_task("tasks.add", queue="silent")
    finally:
        otel_context.detach(token)
    assert "traceparent" not in received(app, "silent").headers
    assert spans.ended == []


def test_senders_at_the_same_time_have_the_right_parents(
    instrument: Instrument, spans: Spans, app: Any
) -> None:
    instrument(CeleryInstrumentor)

    def send(number: int) -> None:
        with spans.tracer.start_as_current_span(str(number)):
            app.send_task(f"tasks.{number}")

    threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_id = {span.context.span_id: span for span in spans.ended}
    for span in spans.watched:
        assert span.name == f"apply_async tasks.{by_id[parent_id(span) or 0].name}"
    assert len(spans.watched) == 8


def test_a_provider_that_raises_does_not_break_the_call(instrument: Instrument, app: Any) -> None:
    instrument(CeleryInstrumentor, tracer_provider=BrokenProvider())
    assert app.send_task("tasks.add").id
    assert app.task(seven, name="tasks.seven").apply().get() == 7


@pytest.mark.parametrize("broken", ["set_attributes", "end", "set_attribute"])
def test_a_span_that_raises_does_not_break_the_call(
    instrument: Instrument,
    spans: Spans,
    app: Any,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
) -> None:
    instrument(CeleryInstrumentor)
    monkeypatch.setattr(f"opentelemetry.sdk.trace.Span.{broken}", raise_error)
    assert app.send_task("tasks.add").id
    assert app.task(seven, name="tasks.seven").apply().get() == 7


def test_a_name_of_a_megabyte_is_bounded(instrument: Instrument, spans: Spans, app: Any) -> None:
    instrument(CeleryInstrumentor)
    app.send_task("x" * 2**20, (b"\xff" * 100,), queue="long")
    assert len(spans.one().name) < 300


def test_uninstrumented_library_is_as_it_was_byte_for_byte(
    instrument: Instrument, spans: Spans, app: Any
) -> None:
    connected = [len(signal.receivers or ()) for signal in signals()]
    before = entries(CeleryInstrumentor)
    instrumentor = instrument(CeleryInstrumentor)
    assert [len(signal.receivers or ()) for signal in signals()] != connected
    instrumentor.uninstrument()
    after = entries(CeleryInstrumentor)
    assert after.keys() == before.keys()
    assert all(after[place] is before[place] for place in before)
    assert [len(signal.receivers or ()) for signal in signals()] == connected
    app.send_task("tasks.add")
    assert spans.ended == []


def signals() -> list[Any]:
    return [found for found in vars(celery.signals).values() if hasattr(found, "receivers")]


def test_instrumenting_twice_makes_one_span(instrument: Instrument, spans: Spans, app: Any) -> None:
    instrument(CeleryInstrumentor).instrument(tracer_provider=spans.provider)
    app.send_task("tasks.add")
    app.task(seven, name="tasks.seven").apply()
    assert len(spans.watched) == 2


def test_library_that_contrib_watches_is_left_to_it(
    instrument: Instrument, spans: Spans, app: Any
) -> None:
    contrib = ContribInstrumentor()
    contrib.instrument(tracer_provider=spans.provider)
    try:
        instrumentor = instrument(CeleryInstrumentor)
        app.task(seven, name="tasks.seven").apply()
    finally:
        contrib.uninstrument()
    reason = "already instrumented by opentelemetry-instrumentation-celery"
    assert instrumentor.status.reason == reason
    assert [span.name for span in spans.watched] == ["run/tasks.seven"]


def test_a_correlation_that_there_is_not_is_an_error(instrument: Instrument) -> None:
    with pytest.raises(InvalidValueError, match="parent or link"):
        instrument(CeleryInstrumentor, correlation="child")


@pytest.mark.parametrize("order", ["before", "after"])
def test_order_of_import_and_instrumentation_does_not_matter(order: str) -> None:
    steps = ["plugin().instrument(tracer_provider=spans.provider)", "import celery"]
    program = [
        "from instrumentation.conftest import Spans",
        "from tracekit.instrumentation.celery import plugin",
        "spans = Spans()",
        *(steps if order == "before" else reversed(steps)),
        "app = celery.Celery(broker='memory://')",
        "def run_it(): pass",
        "app.send_task('tasks.add')",
        "app.task(run_it, name='tasks.run_it').apply()",
        "print(*(span.name for span in spans.watched))",
    ]
    assert run("\n".join(program)) == "apply_async tasks.add run tasks.run_it"
