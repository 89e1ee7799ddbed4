"""celery: what is asked without a broker. What needs workers is in test_celery_workers.py."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from typing import Any

import celery
import pytest
from celery import signals as celery_signals
from celery.app.trace import build_tracer
from celery.exceptions import Retry
from celery.utils.threads import LocalStack, _FastLocalStack
from kombu.exceptions import OperationalError
from opentelemetry import baggage, trace
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.celery import CeleryInstrumentor as ContribInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import BrokenProvider, parent_id, raise_error, run
from instrumentation.redis_contract import entries
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._operation import begin
from tracekit.instrumentation.celery import CeleryInstrumentor
from tracekit.instrumentation.sqlite3 import Sqlite3Instrumentor


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


@pytest.mark.parametrize(
    ("brokers", "address"),
    [
        (["memory://one:1//"], "one"),
        (None, "localhost"),
        # Which of several takes a message, kombu alone knows.
        (["memory://one:1//", "memory://two:2//"], None),
        (("memory://one:1//", "memory://two:2//"), None),
        ("memory://one:1//;memory://two:2//", None),
    ],
)
def test_a_task_may_go_to_one_of_several_brokers(
    instrument: Instrument, spans: Spans, brokers: Any, address: str | None
) -> None:
    instrument(CeleryInstrumentor)
    with celery.Celery("tests", broker=brokers, set_as_current=False) as app:
        app.conf.broker_transport = "memory"
        app.send_task("tasks.add", queue="several")
        assert (
            f"{spans.one().context.span_id:016x}"
            in (received(app, "several").headers["traceparent"])
        )
    assert (spans.one().attributes or {}).get("server.address") == address


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

    @app.task(name="tasks.seven", shared=False)
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


def test_receivers_of_the_program_are_told_all_that_celery_says(
    instrument: Instrument, app: Any
) -> None:
    task = app.task(seven, name="tasks.told", shared=False)
    told: list[list[str]] = []
    for number in range(2):
        if number:
            instrument(CeleryInstrumentor)
        with contextlib.ExitStack() as stack:
            for signal in (celery_signals.task_prerun, celery_signals.task_postrun):
                receiver: Any = lambda **named: told.append(sorted(named))  # noqa: E731
                stack.enter_context(connected(signal, receiver))
            task.apply()
    assert told[:2] == told[2:]


ABOVE = 0xB7AD6B7169203331
SENDER = f"00-{'a' * 32}-{ABOVE:016x}-01"


def look() -> str:
    return str(baggage.get_baggage("user"))


def looked(app: Any, message: dict[str, Any]) -> str:
    """Run a task for a message, as a pool does; return the baggage that it sees."""
    app.task(look, name="tasks.look", shared=False)
    app.finalize()
    tasks = app.tasks
    tracer = build_tracer("tasks.look", tasks["tasks.look"], app.loader, app=app)
    answer = tracer("1", (), {}, {"id": "1", "is_eager": False, "ignore_result": True, **message})
    return str(answer[0])


@pytest.mark.parametrize(
    ("message", "parent", "said"),
    [
        ({"traceparent": SENDER}, ABOVE, "None"),
        ({"traceparent": SENDER, "baggage": "user=7"}, ABOVE, "7"),
        ({"traceparent": SENDER, "headers": {"baggage": "user=7"}}, ABOVE, "7"),
        ({"headers": {"traceparent": SENDER}}, ABOVE, "None"),
        ({"traceparent": SENDER, "tracestate": "a=b"}, ABOVE, "None"),
        ({"traceparent": SENDER.upper()}, None, "None"),
        ({"traceparent": 7, "baggage": "user=7"}, None, "7"),
        ({"traceparent": SENDER, "headers": []}, ABOVE, "None"),
        ({}, None, "None"),
    ],
)
@pytest.mark.usefixtures("any_textmap")
@pytest.mark.parametrize("stack", [LocalStack, _FastLocalStack])
def test_a_run_is_below_who_its_message_says(
    instrument: Instrument,
    spans: Spans,
    app: Any,
    monkeypatch: pytest.MonkeyPatch,
    stack: Any,
    message: dict[str, Any],
    parent: int | None,
    said: str,
) -> None:
    monkeypatch.setattr("celery.utils.threads.LocalStack", stack)
    instrument(CeleryInstrumentor)
    assert looked(app, message) == said
    assert parent_id(spans.one()) == parent
    state = spans.one().context.trace_state
    assert dict(state) == ({"a": "b"} if "tracestate" in message else {})


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
