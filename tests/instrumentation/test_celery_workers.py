"""celery: real workers of every pool on real brokers."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import amqp
import celery
import pytest
from opentelemetry.trace import StatusCode

from instrumentation.conftest import Instrument, Spans
from rabbit_server import needs_rabbitmq, rabbit_server
from redis_servers import needs_redis, redis_server
from tracekit.instrumentation.celery import CeleryInstrumentor

PROGRAMS = Path(__file__).parent / "programs"
POOLS = {
    "prefork": ["--pool", "prefork", "--concurrency", "2", "--max-tasks-per-child", "1"],
    "threads": ["--pool", "threads", "--concurrency", "3"],
    "solo": ["--pool", "solo"],
}
BROKERS = {"redis": [needs_redis], "rabbitmq": [needs_rabbitmq, needs_redis]}
"""Results are kept by Redis, whatever the tasks go through: it can put a chord together."""

_numbers = itertools.count()


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
    queue: str
    port: int
    may_drop_expired: bool
    """Whether the broker may keep a task whose time is over to itself.

    RabbitMQ does, unless a worker is waiting for one when it comes.
    https://www.rabbitmq.com/docs/ttl#per-message-ttl-in-publishers
    """

    @property
    def expired(self) -> list[Seen]:
        return [span for span in self.spans if span.attributes.get("error.type") == "expired"]

    def named(self, name: str) -> list[Seen]:
        return [span for span in self.spans if span.name == name]

    def above(self, span: Seen) -> Seen:
        (found,) = [other for other in self.spans if other.id == span.parent]
        return found


class Premises(NamedTuple):
    """Where a shop is run: a folder, queues of its own, and what its programs are told."""

    folder: Path
    queue: str
    port: int
    environ: Mapping[str, str]

    @contextlib.contextmanager
    def program(self, call: str) -> Iterator[subprocess.Popen[str]]:
        with subprocess.Popen(
            [sys.executable, "-c", f"import celery_shop; print(celery_shop.{call})"],
            env=self.environ,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            yield process

    @contextlib.contextmanager
    def worker(self, pool: str) -> Iterator[subprocess.Popen[bytes]]:
        """Run a worker, and stop it as its master would."""
        command = [sys.executable, "-m", "celery", "-A", "celery_shop", "worker", *POOLS[pool]]
        quiet = ["--without-gossip", "--without-mingle", "--without-heartbeat"]
        with (self.folder / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [*command, *quiet, "--loglevel", "ERROR"],
                env=self.environ,
                cwd=self.folder,
                stdout=log,
                stderr=log,
            )
            try:
                yield process
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)

    def told(self, process: subprocess.Popen[str]) -> Mapping[str, str]:
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, (self.folder / "worker.log").read_text()[-2000:]
        told: Mapping[str, str] = json.loads(output)
        return told

    def shop(self, outcome: Mapping[str, str]) -> Shop:
        spans = list(read(self.folder / "spans.jsonl"))
        may_drop_expired = self.environ["BROKER"].startswith("amqp")
        return Shop(outcome, spans, self.queue, self.port, may_drop_expired)


def premises(folder: Path, broker: str, backend: str, **environ: str) -> Premises:
    queue = f"shop{next(_numbers)}"
    variables = os.environ | {
        "BROKER": broker,
        "BACKEND": backend,
        "QUEUE": queue,
        "TRACEKIT_OTLP_FILE": str(folder / "spans.jsonl"),
        "PYTHONPATH": os.pathsep.join([str(PROGRAMS), *filter(None, sys.path)]),
        **environ,
    }
    return Premises(folder, queue, port_of(broker), variables)


def port_of(url: str) -> int:
    return int(url.partition("127.0.0.1:")[2].partition("/")[0])


def run_shop(premises: Premises, pool: str, call: str) -> Shop:
    """Run a worker and a program that sends it tasks."""
    with premises.worker(pool), premises.program(call) as process:
        outcome = premises.told(process)
    return premises.shop(outcome)


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


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield f"redis://127.0.0.1:{port}/0"


@pytest.fixture(scope="module")
def rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with rabbit_server(tmp_path_factory.mktemp("rabbitmq")) as url:
        yield url


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((broker, pool), id=f"{pool}-{broker}", marks=marks)
        for broker, marks in BROKERS.items()
        for pool in POOLS
    ],
)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    broker, pool = request.param
    place = premises(
        tmp_path_factory.mktemp(pool),
        request.getfixturevalue(broker),
        request.getfixturevalue("redis"),
    )
    return run_shop(place, pool, "send_all()")


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
        # three of a chord, one that had expired, one to a queue and one to an exchange, and one
        # that was revoked.
        sent, run = (sum(span.kind == kind for span in ours) for kind in (PRODUCER, CONSUMER))
        assert (sent, run) == (16, 15 + len(shop.expired))

    def test_attributes_of_both_ends_agree(self, shop: Shop) -> None:
        destinations = set()
        for run_ in shop.named("run celery_shop.total"):
            sent = shop.above(run_)
            for name in (
                "messaging.message.id",
                "messaging.message.conversation_id",
                "messaging.destination.name",
                "messaging.system",
                "celery.task_name",
            ):
                assert run_.attributes[name] == sent.attributes[name]
            destinations.add(sent.attributes["messaging.destination.name"])
            assert sent.attributes["server.address"] == "127.0.0.1"
            assert int(sent.attributes["server.port"]) == shop.port
            assert sent.attributes["messaging.operation.type"] == "send"
            assert run_.attributes["messaging.operation.type"] == "process"
        queue = shop.queue
        assert destinations == {queue, f"{queue}.urgent", f"{queue}.shop:order.created"}

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
        assert len(shop.expired) == 1 or (shop.may_drop_expired and not shop.expired)
        for span in shop.expired:
            assert span.attributes["celery.state"] == "REVOKED"
            assert shop.above(span).kind == PRODUCER

    def test_a_task_that_is_revoked_is_no_error(self, shop: Shop) -> None:
        (revoked,) = [
            span
            for span in shop.spans
            if (span.kind, span.attributes.get("messaging.message.id")) == (CONSUMER, "revoked")
        ]
        assert (revoked.attributes["celery.state"], revoked.error) == ("REVOKED", "")
        assert revoked.attributes["messaging.destination.name"] == shop.queue
        assert shop.above(revoked).name == "apply_async celery_shop.add"

    def test_the_brokers_own_commands_are_not_below_a_sender(self, shop: Shop) -> None:
        senders = {span.id for span in shop.spans if span.kind == PRODUCER}
        below = [s.name for s in shop.spans if s.parent in senders and s.kind != CONSUMER]
        assert below == []


@needs_rabbitmq
@pytest.mark.slow
def test_runs_are_linked_on_request(rabbitmq: str, tmp_path: Path) -> None:
    place = premises(tmp_path, rabbitmq, "rpc://", CORRELATION="link")
    shop = run_shop(place, "solo", "send_one('fail')")
    (run_,) = shop.named("run celery_shop.fail")
    (sent,) = shop.named("apply_async celery_shop.fail")
    assert (run_.parent, run_.links) == ("", [sent.id])
    assert run_.trace != sent.trace
    # A result that comes back through the broker is a message too, and no task.
    assert [span.name for span in shop.spans if span.trace == sent.trace] == [sent.name, "order"]


@needs_rabbitmq
@pytest.mark.slow
def test_a_task_that_the_broker_keeps_for_a_while_goes_to_its_queue(
    rabbitmq: str, redis: str, tmp_path: Path
) -> None:
    pytest.importorskip("kombu.transport.native_delayed_delivery")
    shop = run_shop(premises(tmp_path, rabbitmq, redis, QUORUM="1"), "solo", "send_later()")
    (run_,) = shop.named("run celery_shop.total")
    sent = shop.above(run_)
    assert sent.name == "apply_async celery_shop.total"
    ends = [span.attributes["messaging.destination.name"] for span in (sent, run_)]
    assert ends == [shop.queue, shop.queue]


def is_run_once_below_its_sender(shop: Shop) -> bool:
    (run_,) = shop.named("run celery_shop.kills_its_process")
    sent = shop.above(run_)
    return (
        run_.attributes["celery.state"] == "SUCCESS"
        and sent.name == "apply_async celery_shop.kills_its_process"
        and shop.above(sent).name == "order"
        and len([span for span in shop.spans if span.kind == PRODUCER]) == 1
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "broker", [pytest.param(broker, marks=marks) for broker, marks in BROKERS.items()]
)
def test_a_task_that_killed_its_process_is_run_again_below_its_sender(
    request: pytest.FixtureRequest, redis: str, tmp_path: Path, broker: str
) -> None:
    place = premises(tmp_path, request.getfixturevalue(broker), redis)
    shop = run_shop(place, "prefork", "send_one('kills_its_process')")
    assert shop.outcome["kills_its_process"] == "survived"
    assert is_run_once_below_its_sender(shop)


@needs_rabbitmq
@pytest.mark.slow
def test_a_task_whose_worker_was_killed_is_run_by_the_next_below_its_sender(
    rabbitmq: str, tmp_path: Path
) -> None:
    place = premises(tmp_path, rabbitmq, "rpc://")
    with place.worker("solo") as first, place.program("send_one('kills_its_process')") as process:
        assert first.wait(60) == -signal.SIGKILL
        with place.worker("solo"):
            outcome = place.told(process)
    assert outcome["kills_its_process"] == "survived"
    assert is_run_once_below_its_sender(place.shop(outcome))


# Without a worker


@pytest.fixture
def app(rabbitmq: str) -> Iterator[Any]:
    with celery.Celery("tests", broker=rabbitmq, set_as_current=False) as app:
        app.conf.broker_transport_options = {"confirm_publish": True}
        yield app


def received(app: Any, queue: str) -> Any:
    """Take a message off a queue, without celery or kombu."""
    with amqp.Connection(f"127.0.0.1:{port_of(app.conf.broker_url)}") as connection:
        channel = connection.channel()
        message = channel.basic_get(queue, no_ack=True)
        assert channel.basic_get(queue) is None
        return message


@needs_rabbitmq
@pytest.mark.slow
class TestRabbitMQ:
    def test_trace_headers_are_headers_of_the_message(
        self, instrument: Instrument, spans: Spans, app: Any
    ) -> None:
        instrument(CeleryInstrumentor)
        app.send_task("tasks.add", queue="raw", headers={"tenant": "acme"})
        span = spans.one()
        message = received(app, "raw")
        assert message.headers["tenant"] == "acme"
        assert (
            f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
            in (message.headers["traceparent"])
        )
        told = span.attributes or {}
        assert told["server.port"] == port_of(app.conf.broker_url)
        assert "guest" not in str(dict(told))

    def test_a_message_that_is_published_again_is_one_span(
        self, instrument: Instrument, spans: Spans, app: Any
    ) -> None:
        instrument(CeleryInstrumentor)
        app.send_task("tasks.add", queue="warm")
        with app.producer_or_acquire() as producer:
            lost = producer.channel
            lost.connection.transport.sock.close()
        app.send_task("tasks.add", queue="again")
        with app.producer_or_acquire() as producer:
            assert producer.channel is not lost
        span = spans.watched[-1]
        assert f"{span.context.span_id:016x}" in received(app, "again").headers["traceparent"]
        assert len(spans.watched) == 2
        assert span.status.status_code is StatusCode.UNSET

    def test_a_message_that_the_broker_refuses_is_an_error(
        self, instrument: Instrument, spans: Spans, app: Any
    ) -> None:
        instrument(CeleryInstrumentor)
        with pytest.raises(amqp.NotFound):
            app.send_task("tasks.add", exchange="nobody", routing_key="x", retry=False)
        assert spans.one().status.status_code is StatusCode.ERROR
        assert (spans.one().attributes or {})["error.type"] == "amqp.exceptions.NotFound"
