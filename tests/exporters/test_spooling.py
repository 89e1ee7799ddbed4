"""What cannot be sent is kept, and sent when the destination is back: in order, and once."""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporters.destinations import (
    OK,
    SOON,
    Destination,
    Received,
    Reply,
    nobody,
    raw_destination,
    read_request,
)
from exporters.kinds import KINDS, otlp
from exporters.made import made
from tracekit.errors import ConfigurationError
from tracekit.exporters import _spooling, _transport
from tracekit.exporters._retry import RetryPolicy
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.interfaces import SpanExportResult
from tracekit.store.spool import KeptRequest, Spool

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
BATCH = [made(number, f"span {number}") for number in range(1, 11)]
NAMES = [span.name for span in BATCH]
DOWN = Reply(503)

Make = Callable[..., Any]


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool.db")


@pytest.fixture
def make(spool: Spool) -> Iterator[Make]:
    exporters: list[Any] = []

    def made_exporter(url: str, kind: Any = otlp, patient: bool = False, **arguments: Any) -> Any:
        # Time enough that no answer is late: what is sent again then arrives twice.
        given = {"retry_policy": SOON, "timeout": 20, "spool": spool, **arguments}
        exporter = kind(url, **given)
        exporters.append(exporter)
        if not patient:
            exporter.hurry()  # one attempt, and the batch is in the spool
        return exporter

    yield made_exporter
    for exporter in exporters:
        exporter.shutdown()


def until(condition: Callable[[], object], within_s: float = 10.0) -> None:
    ends_at = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < ends_at, "it did not happen in time"
        time.sleep(0.005)


def waiting(spool: Spool) -> int:
    return sum(row.spans for row in spool.waiting())


@pytest.mark.parametrize("name", KINDS)
def test_what_could_not_be_sent_arrives_later_as_it_was(name: str, make: Make) -> None:
    kind, names_in = KINDS[name]
    with Destination(DOWN) as destination:
        exporter = make(destination.url, kind)
        assert exporter.export(BATCH) is SUCCESS
        assert exporter.last_outcome == (0, 0, {}, 10, "unavailable")
        refused = destination.received[-1]
        destination.script[:] = [OK]
        until(lambda: exporter.stats()["recovered"] == 10)
        taken = destination.received[-1]
    assert names_in(taken) == NAMES
    assert (taken.method, taken.path, taken.body) == (refused.method, refused.path, refused.body)
    same = {"content-type", "content-encoding", "user-agent", "x-datadog-trace-count"}
    for header in same & set(refused.headers):
        assert taken.headers[header] == refused.headers[header]
    assert exporter.force_flush(1000) is True


def test_everything_arrives_once_and_in_order(make: Make, spool: Spool) -> None:
    with Destination(DOWN) as destination:
        exporter = make(destination.url)
        for number in range(1, 31):
            exporter.export([made(number, f"span {number}")])
        assert exporter.stats()["waiting"] == 30
        down = len(destination.received)
        destination.script[:] = [OK]
        until(lambda: waiting(spool) == 0)
        arrived = [
            name for received in destination.received[down:] for name in received.span_names()
        ]
    taken = [name for name in arrived if arrived.count(name) == 1]
    # The one that was under way when the server came back was refused, and sent again.
    assert taken[-29:] == [f"span {number}" for number in range(2, 31)]
    assert set(arrived) == {f"span {number}" for number in range(1, 31)}


def test_live_spans_do_not_wait_for_kept_ones(make: Make, spool: Spool) -> None:
    slow = threading.Event()

    def answer(received: Received) -> Reply:
        if "span 1" in received.span_names():
            slow.wait(10)
        return OK

    with Destination(DOWN) as destination:
        exporter = make(destination.url, retry_policy=RetryPolicy(first_delay_s=9))
        exporter.export(BATCH)
        destination.script[:] = [answer]
        until(
            lambda: exporter.export([made(99, "live")]) is SUCCESS and "live" in names(destination)
        )
        assert exporter.stats()["recovered"] == 0
        slow.set()
    assert exporter.stats()["sent"] >= 1


def names(destination: Destination) -> list[str]:
    return destination.span_names()


def leave_something(make: Make, destination: Destination, **arguments: Any) -> None:
    """Do what a process does that ends while nobody answers."""
    exporter = make(destination.url, **arguments)
    exporter.export(BATCH)
    exporter.shutdown()
    # A shutdown waits a moment only for an answer that is under way; it must not be the next one.
    until(no_thread_sends)
    destination.script[:] = [OK]


def no_thread_sends() -> bool:
    return not any(thread.name == "tracekit-spool" for thread in threading.enumerate())


def test_a_process_that_comes_later_sends_what_another_left(make: Make, spool: Spool) -> None:
    with Destination(DOWN) as destination:
        leave_something(make, destination)
        second = make(destination.url)
        second.export([made(77, "own")])
        until(lambda: second.stats()["recovered"] == 10)
    assert names(destination)[-11:] == ["own", *NAMES]
    assert (second.stats()["sent"], second.stats()["spooled"], waiting(spool)) == (1, 0, 0)


def test_a_flush_sends_what_another_left(make: Make, spool: Spool) -> None:
    with Destination(DOWN) as destination:
        leave_something(make, destination)
        assert make(destination.url).force_flush(5000) is True
    assert names(destination)[-10:] == NAMES
    assert waiting(spool) == 0


def test_spans_go_only_where_they_were_meant_to_go(make: Make, spool: Spool) -> None:
    """Same address, another team's key: neither may get the other's spans."""
    with Destination(DOWN) as destination:
        leave_something(make, destination, headers={"x-team": "one"})
        before = len(destination.received)
        second = make(destination.url, headers={"x-team": "two"})
        assert second.force_flush(200) is True
        assert len(destination.received) == before
        third = make(destination.url, headers={"x-team": "one"})
        assert third.force_flush(5000) is True
        assert destination.received[-1].headers["x-team"] == "one"


def test_no_secret_is_written_to_the_disk(make: Make, spool: Spool) -> None:
    with nobody() as url:
        secret = url.replace("http://", "http://user:s3cret@") + "/v1/traces?key=k3y"
        exporter = make(secret, headers={"authorization": "Bearer t0ken"})
        exporter.export(BATCH)
    written = b"".join(path.read_bytes() for path in spool.path.parent.iterdir())
    assert not [word for word in (b"s3cret", b"k3y", b"t0ken", b"dXNlcj") if word in written]


def test_what_is_refused_later_is_rejected_with_the_reason(make: Make, spool: Spool) -> None:
    with Destination(DOWN) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        destination.script[:] = [Reply(400, b"not today")]
        until(lambda: waiting(spool) == 0)
        until(lambda: exporter.stats()["spool"]["rejected"])
    stats = exporter.stats()
    assert (stats["recovered"], stats["spool"]["rejected"]) == (0, 10)
    assert stats["rejected_for"] == {"400 Bad Request: not today": 10}


def test_a_part_that_is_refused_later_is_counted(make: Make) -> None:
    def refuse_three(received: Received) -> Reply:
        reply = {"partialSuccess": {"rejectedSpans": "3", "errorMessage": "old"}}
        return Reply(200, json.dumps(reply).encode(), {"Content-Type": "application/json"})

    with Destination(DOWN) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        destination.script[:] = [refuse_three]
        until(lambda: exporter.stats()["recovered"])
    assert (exporter.stats()["recovered"], exporter.stats()["spool"]["rejected"]) == (7, 3)


def test_the_recovery_is_said_once(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with Destination(DOWN) as destination:
        exporter = make(destination.url)
        for _ in range(3):
            exporter.export(BATCH)
        destination.script[:] = [OK]
        until(lambda: exporter.stats()["recovered"] == 30)
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(said) == 2
    assert "503" in said[0]
    assert "again" in said[1]


def test_a_live_span_that_arrives_ends_the_wait_of_the_kept_ones(make: Make, spool: Spool) -> None:
    with Destination(DOWN) as destination:
        exporter = make(destination.url, retry_policy=RetryPolicy(first_delay_s=60))
        exporter.export(BATCH)
        until(lambda: len(destination.received) >= 2)  # ours, and the thread's first attempt
        destination.script[:] = [OK]
        exporter.export([made(99, "live")])
        until(lambda: exporter.stats()["recovered"] == 10)


def test_a_short_failure_is_waited_for_and_a_known_one_is_not(make: Make, spool: Spool) -> None:
    """Spans queue up in memory behind a batch that is being tried again."""
    with Destination(DOWN, DOWN, OK) as destination:
        exporter = make(destination.url, patient=True)
        assert exporter.export(BATCH) is SUCCESS
        assert (exporter.stats()["sent"], spool.exists()) == (10, False)
    with Destination(DOWN) as destination:
        exporter = make(destination.url, patient=True, timeout=0.3)
        exporter.export(BATCH)
        other = make(destination.url, patient=True, timeout=60)
        other._delivery._reports.failing("503")
        other.export(BATCH)
        assert other.stats()["retried"] == 0
        assert waiting(spool) == 20


# The end ------------------------------------------------------------------------------------


def test_a_batch_that_hangs_is_kept_by_who_cannot_wait(make: Make, spool: Spool) -> None:
    held = threading.Event()

    def hold(connection: socket.socket) -> None:
        read_request(connection)
        held.set()
        time.sleep(0)
        connection.recv(1)

    with raw_destination(hold) as url:
        exporter = make(url, timeout=60)
        thread = threading.Thread(target=exporter.export, args=(BATCH,))
        thread.start()
        assert held.wait(10)
        began = time.monotonic()
        outcome = exporter.put_aside(BATCH)
        assert time.monotonic() - began < 20
    thread.join(20)
    assert outcome == (0, 0, {}, 10, "exit")
    stats = exporter.stats()
    assert (stats["sent"], stats["spooled"], stats["dropped"], waiting(spool)) == (0, 10, {}, 10)


def test_of_a_batch_under_way_only_what_is_not_settled_is_kept(make: Make, spool: Spool) -> None:
    second = threading.Event()
    may_answer = threading.Event()

    def answer(received: Received) -> Reply:
        if destination.received[0] is not received:
            second.set()
            may_answer.wait(10)
        return OK

    many = [made(n, f"span {n}", attributes={"text": "x" * 3000}) for n in range(1, 41)]
    with Destination(answer) as destination:
        exporter = make(destination.url, timeout=10, max_request_bytes=64 * 1024)
        thread = threading.Thread(target=exporter.export, args=(many,))
        thread.start()
        assert second.wait(10)
        first = len(destination.received[0].span_names())
        outcome = exporter.put_aside(many)
        may_answer.set()
        thread.join(20)
    assert 0 < first < 40
    assert outcome is not None
    assert (outcome.sent, outcome.spooled, outcome.lost) == (first, 40 - first, 0)
    assert waiting(spool) + exporter.stats()["recovered"] == 40 - first


def test_a_batch_that_is_over_is_not_kept_again(make: Make, spool: Spool) -> None:
    with Destination(OK) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
    assert waiting(spool) == 0
    assert not spool.exists(), "no file where all is well"


def test_an_empty_spool_is_looked_at_once_and_then_left_alone(
    make: Make, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Destination(DOWN) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        destination.script[:] = [OK]
        until(lambda: exporter.stats()["recovered"] == 10)
        looked: list[str] = []
        take = Spool.take

        def counted(self: Spool, identity: str) -> Any:
            looked.append(identity)
            return take(self, identity)

        monkeypatch.setattr(_spooling, "LOOK_EVERY_S", 0.0)
        monkeypatch.setattr(Spool, "take", counted)
        for number in range(20):
            exporter.export([made(100 + number)])
            until(no_thread_sends)
        # Once it has seen what it itself has changed, nothing changes any more.
        assert len(looked) <= 3
        settled = len(looked)
        for number in range(20):
            exporter.export([made(200 + number)])
            until(no_thread_sends)
        assert len(looked) == settled
        exporter.shutdown()
        other = make(destination.url)
        spool.put(exporter._delivery.sender.identity, [KeptRequest(b"", 0)])
        until(lambda: other.export([made(200)]) is SUCCESS and len(looked) > 2)


def test_shutdown_ends_the_sending_thread(make: Make) -> None:
    with Destination(DOWN) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        until(lambda: not no_thread_sends())
        exporter.shutdown()
        until(no_thread_sends)


def test_in_a_hurry_each_batch_is_tried_once(
    make: Make, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_transport, "RETRYING_S", 600.0)
    with Destination(DOWN) as destination:
        slow = RetryPolicy(first_delay_s=60)
        exporter = make(destination.url, patient=True, timeout=600, retry_policy=slow)
        thread = threading.Thread(target=exporter.export, args=(BATCH,))
        thread.start()
        until(lambda: destination.received)
        began = time.monotonic()
        exporter.hurry()
        thread.join(20)
    assert time.monotonic() - began < 20
    assert waiting(spool) == 10


# Bad spools ---------------------------------------------------------------------------------


def test_a_spool_that_cannot_be_written_is_said_once_and_counted(
    make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    with nobody() as url:
        exporter = make(url, spool=tmp_path / "file" / "spool.db")
        for _ in range(3):
            assert exporter.export(BATCH) is FAILURE
    assert exporter.stats()["dropped"] == {"spool_failed": 30}
    said = [message for message in caplog.messages if "kept" in message]
    assert len(said) == 1


def test_more_than_the_spool_may_hold_is_counted(make: Make, tmp_path: Path) -> None:
    spool = Spool(tmp_path / "small.db", max_bytes=256 * 1024)
    with nobody() as url:
        exporter = make(url, spool=spool)
        for number in range(1, 31):
            text = os.urandom(15_000).hex()
            exporter.export([made(number, attributes={"text": text})])
        stats = exporter.stats()
    assert stats["spooled"] == 30
    assert stats["spool"]["dropped"]["spool_full"] == 30 - stats["waiting"]
    assert 0 < stats["waiting"] < 30


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TRACEKIT_SPOOL_MAX_BYTES", "lots"),
        ("TRACEKIT_SPOOL_MAX_BYTES", "10"),
        ("TRACEKIT_SPOOL_MAX_AGE", "0"),
        ("TRACEKIT_SPOOL_MAX_AGE", "-3"),
    ],
)
def test_a_variable_that_cannot_be_used_is_refused(
    spooling: None, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        OTLPSpanExporter("http://localhost:4318")


def test_an_argument_that_cannot_be_used_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="spool"):
        OTLPSpanExporter("http://localhost:4318", spool=3)


@pytest.mark.parametrize("value", ["0", "off", "None"])
def test_the_variable_switches_it_off(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("TRACEKIT_SPOOL", value)
    with nobody() as url:
        exporter = OTLPSpanExporter(url, timeout=0.05)
        assert exporter.export(BATCH) is FAILURE
    assert exporter.stats()["dropped"] == {"unreachable": 10}


def test_the_variable_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TRACEKIT_SPOOL", str(tmp_path / "mine.db"))
    with nobody() as url:
        exporter = OTLPSpanExporter(url, timeout=0.05)
        exporter.export(BATCH)
        exporter.shutdown()
    assert waiting(Spool(tmp_path / "mine.db")) == 10
