"""Several requests under way to one destination: more gets through, and all of it is counted."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporters.destinations import OK, SOON, Destination, Received, Reply
from exporters.grpc_destinations import grpc_destination, take
from exporters.kinds import KINDS, otlp
from exporters.made import made
from tracekit.errors import ConfigurationError
from tracekit.exporters import _transport
from tracekit.exporters._retry import Breaker, RetryPolicy
from tracekit.exporters.datadog import DatadogExporter
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.exporters.zipkin import ZipkinExporter
from tracekit.sdk import BatchSpanProcessor
from tracekit.store.spool import Spool

LATENCY_S = 0.2
REQUESTS, SPANS = 10, 20

Make = Callable[..., BatchSpanProcessor]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a processor whose batches are requests."""
    made_ones: list[BatchSpanProcessor] = []

    def made_one(exporter: Any, batch: int = SPANS) -> BatchSpanProcessor:
        made_ones.append(
            BatchSpanProcessor(exporter, schedule_delay_millis=5, max_export_batch_size=batch)
        )
        return made_ones[-1]

    yield made_one
    for processor in made_ones:
        processor.shutdown()


def send(processor: BatchSpanProcessor, spans: int = REQUESTS * SPANS) -> list[str]:
    batch = [made(number, f"span {number}", trace_id=number) for number in range(1, spans + 1)]
    for span in batch:
        processor.on_end(span)
    return [span.name for span in batch]


def took_s(processor: BatchSpanProcessor) -> float:
    """Send all, and return how long that took."""
    began = time.monotonic()
    send(processor)
    assert processor.force_flush(20_000)
    return time.monotonic() - began


class Slow:
    """Answers after a while, and knows how many it had to answer at the same time."""

    def __init__(self, latency_s: float = LATENCY_S) -> None:
        self.latency_s = latency_s
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, received: Received) -> Reply:
        self.wait()
        return OK

    def wait(self) -> None:
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.latency_s)
        with self._lock:
            self.now -= 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_server_is_asked_several_times_at_once(kind: str, make: Make) -> None:
    new, names = KINDS[kind]
    slow = Slow(0.1)
    with Destination(slow) as destination:
        exporter = new(destination.url)
        processor = make(exporter)
        sent = send(processor)
        assert processor.force_flush(20_000)
        received = [name for request in destination.received for name in names(request)]
    assert Counter(received) == Counter(sent)
    assert exporter.stats()["sent"] == len(sent)
    assert slow.most == 4
    assert len({request.client for request in destination.received}) == 4, "connections are kept"


def test_so_it_is_by_grpc(make: Make) -> None:
    slow = Slow(0.1)

    def answer(request: Any, context: Any) -> Any:
        slow.wait()
        return take(request, context)

    with grpc_destination(answer) as destination:
        exporter = OTLPSpanExporter(destination.url, protocol="grpc")
        processor = make(exporter)
        sent = send(processor)
        assert processor.force_flush(20_000)
        assert Counter(destination.names()) == Counter(sent)
        processor.shutdown()
    assert exporter.stats()["sent"] == len(sent)
    assert slow.most == 4


@pytest.mark.slow
def test_throughput_rises_with_the_requests_under_way(make: Make) -> None:
    seconds = {}
    for at_once in (1, 2, 5):
        with Destination(Slow()) as destination:
            exporter = otlp(destination.url, max_concurrent_requests=at_once)
            seconds[at_once] = took_s(make(exporter))
            assert len(destination.span_names()) == exporter.stats()["sent"] == REQUESTS * SPANS
    assert seconds[1] >= REQUESTS * LATENCY_S
    # Of ten requests the first goes alone: then it takes 1 + 5 rounds, and 1 + 1 + 1 + 1 rounds.
    assert seconds[2] < 0.8 * seconds[1]
    assert seconds[5] < 0.8 * seconds[2]


def test_a_server_that_is_fast_is_asked_one_by_one(make: Make) -> None:
    quick = Slow(0.0)
    with Destination(quick) as destination:
        took_s(make(otlp(destination.url)))
    assert quick.most == 1


def test_what_fails_meanwhile_is_kept_once_and_arrives_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport, "RETRYING_S", 0.2)
    down, taken = threading.Event(), []

    def answer(received: Received) -> Reply:
        time.sleep(0.1)
        if down.is_set():
            return Reply(503)
        taken.append(received)
        return OK

    with Destination(answer) as destination:
        spool = Spool(tmp_path / "spool.db")
        exporter = otlp(destination.url, spool=spool, retry_policy=SOON, timeout=20)
        processor = make(exporter)
        first = send(processor, 8 * SPANS)
        assert processor.force_flush(20_000)
        down.set()
        kept = send(processor)
        deadline = time.monotonic() + 20
        while exporter.stats()["waiting"] < len(kept):
            assert time.monotonic() < deadline, exporter.stats()
            time.sleep(0.01)
        down.clear()
        assert processor.force_flush(20_000)
    received = [name for request in taken for name in request.span_names()]
    assert Counter(received) == Counter(first) + Counter(kept)
    stats = exporter.stats()
    assert (stats["sent"], stats["spooled"], stats["recovered"]) == (len(first), *2 * (len(kept),))
    (lane,) = processor.stats()["exporters"]
    assert (lane["spooled"], lane["failed"], lane["pending"]) == (len(kept), {}, 0)


# The breaker, with several requests under way ------------------------------------------------


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    now = [1000.0]
    monkeypatch.setattr("tracekit.exporters._retry.time.monotonic", lambda: now[0])

    def go_on(seconds: float) -> None:
        now[0] += seconds

    return go_on


def test_requests_that_fail_together_are_one_failure(clock: Callable[[float], None]) -> None:
    breaker = Breaker(RetryPolicy(failures_to_open=2))
    together = [breaker.begin(1) for _ in range(4)]
    for begun in together:
        breaker.failed(begun)
    assert not breaker.is_open
    breaker.failed(breaker.begin(1))
    assert breaker.is_open


def test_a_wish_for_peace_outlasts_what_was_under_way(clock: Callable[[float], None]) -> None:
    breaker = Breaker(RetryPolicy())
    throttled, lucky, also_throttled = (breaker.begin(1) for _ in range(3))
    breaker.failed(throttled, 10)
    breaker.worked(lucky)
    breaker.failed(also_throttled, 2)
    clock(9)
    assert not breaker.lets_through()
    clock(1)
    assert breaker.lets_through()


def test_one_request_probes_at_a_time(clock: Callable[[float], None]) -> None:
    breaker = Breaker(RetryPolicy(failures_to_open=1, first_pause_s=5))
    breaker.failed(breaker.begin(1))
    clock(5)
    assert breaker.lets_through()
    probe = breaker.begin(timeout_s=3)
    assert not breaker.lets_through()
    breaker.worked(probe)
    assert breaker.lets_through()


def test_a_probe_that_hangs_does_not_keep_all_others_away_for_good(
    clock: Callable[[float], None],
) -> None:
    breaker = Breaker(RetryPolicy(failures_to_open=1, first_pause_s=5))
    breaker.failed(breaker.begin(1))
    clock(5)
    breaker.begin(timeout_s=3)
    clock(3)
    assert breaker.lets_through()


# The setting --------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [OTLPSpanExporter, ZipkinExporter, DatadogExporter])
def test_the_variable_and_the_argument_say_how_many(
    new: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert new().exports_at_once == 4
    monkeypatch.setenv("TRACEKIT_MAX_CONCURRENT_REQUESTS", "7")
    assert new().exports_at_once == 7
    assert new(max_concurrent_requests=2).exports_at_once == 2


def test_a_session_of_the_programs_is_not_shared_unasked() -> None:
    import requests

    with requests.Session() as session:
        assert OTLPSpanExporter(session=session).exports_at_once == 1
        shared = OTLPSpanExporter(session=session, max_concurrent_requests=3)
        assert shared.exports_at_once == 3


@pytest.mark.parametrize("value", [0, -1, 65, 1.5, True, "4"])
def test_an_argument_that_cannot_be_used_is_refused(value: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"max_concurrent_requests \(argument\)="):
        OTLPSpanExporter(max_concurrent_requests=value)


@pytest.mark.parametrize("value", ["0", "many", "-2", "65", "9" * 30])
def test_a_variable_that_cannot_be_used_is_refused(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACEKIT_MAX_CONCURRENT_REQUESTS", value)
    with pytest.raises(ConfigurationError, match="TRACEKIT_MAX_CONCURRENT_REQUESTS="):
        OTLPSpanExporter()
