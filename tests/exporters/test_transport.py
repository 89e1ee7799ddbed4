"""Delivery under every kind of fault: bounded in time, nothing lost uncounted, said once."""

from __future__ import annotations

import email.utils
import logging
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry import context as context_api

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
from exporters.made import made
from tracekit.exporters import _http_sender
from tracekit.exporters._retry import Breaker, RetryPolicy, retry_after_s
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.interfaces import SpanExportResult

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE

BATCH = [made(number, f"span {number}") for number in range(1, 11)]
NAMES = [span.name for span in BATCH]

# Whoever waits longer than this for a call that has 0.3 s was not bounded by its deadline.
BOUND_S = 2.0

Make = Callable[..., OTLPSpanExporter]


@pytest.fixture
def make() -> Iterator[Make]:
    """Make exporters that are impatient, and shut them down."""
    exporters: list[OTLPSpanExporter] = []

    def made_exporter(url: str, **arguments: Any) -> OTLPSpanExporter:
        exporters.append(OTLPSpanExporter(url, **{"retry_policy": SOON, "timeout": 5, **arguments}))
        return exporters[-1]

    yield made_exporter
    for exporter in exporters:
        exporter.shutdown()


def accounted(exporter: OTLPSpanExporter) -> int:
    stats = exporter.stats()
    return stats["sent"] + stats["rejected"] + sum(stats["dropped"].values())


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "tracekit"]


# Retryable and final answers ---------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_retryable_answer_is_tried_again(make: Make, status: int) -> None:
    with Destination(Reply(status), OK) as destination:
        exporter = make(destination.url)
        assert exporter.export(BATCH) is SUCCESS
        assert [r.span_names() for r in destination.received] == [NAMES, NAMES]
        assert (exporter.stats()["sent"], exporter.stats()["retried"]) == (10, 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 500, 501])
def test_any_other_error_is_final(make: Make, status: int) -> None:
    with Destination(Reply(status), OK) as destination:
        exporter = make(destination.url)
        assert exporter.export(BATCH) is FAILURE
        assert len(destination.received) == 1
        assert exporter.stats()["rejected"] == accounted(exporter) == 10


@pytest.mark.parametrize("status", [200, 202, 204])
def test_any_success_is_one(make: Make, status: int) -> None:
    with Destination(Reply(status)) as destination:
        assert make(destination.url).export(BATCH) is SUCCESS


def test_retry_after_in_seconds_is_honoured(make: Make) -> None:
    with Destination(Reply(429, headers={"Retry-After": "1"}), OK) as destination:
        exporter, start = make(destination.url), time.monotonic()
        assert exporter.export(BATCH) is SUCCESS
        assert 1.0 <= time.monotonic() - start < 4


def test_retry_after_beyond_the_deadline_ends_the_batch_at_once(make: Make) -> None:
    with Destination(Reply(503, headers={"Retry-After": "60"}), OK) as destination:
        exporter, start = make(destination.url), time.monotonic()
        assert exporter.export(BATCH) is FAILURE
        assert time.monotonic() - start < BOUND_S
        assert exporter.stats()["dropped"] == {"throttled": 10}


def test_whoever_asked_for_peace_is_left_alone_by_later_batches(make: Make) -> None:
    with Destination(Reply(429, headers={"Retry-After": "60"}), OK) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        assert exporter.export(BATCH) is FAILURE
        assert len(destination.received) == 1
        assert exporter.stats()["dropped"] == {"throttled": 20}


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("3", 3.0),
        (" 0 ", 0.0),
        (None, None),
        ("", None),
        ("-1", None),
        ("soon", None),
        ("9" * 99, None),
    ],
)
def test_retry_after_is_seconds_or_nothing(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds


def test_retry_after_may_be_a_date() -> None:
    later = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert retry_after_s(later) == pytest.approx(30, abs=2)
    assert retry_after_s(email.utils.formatdate(0, usegmt=True)) == 0.0


def test_delays_grow_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    delays = RetryPolicy(first_delay_s=1, max_delay_s=8, jitter=0.2).delays()
    first = [next(delays) for _ in range(6)]
    for delay, middle in zip(first, [1, 2, 4, 8, 8, 8], strict=True):
        assert middle * 0.8 <= delay <= middle * 1.2
    assert len(set(first[3:])) == 3


def test_jitter_leaves_the_programs_random_numbers_alone() -> None:
    random.seed(7)
    expected = random.random()
    random.seed(7)
    next(RetryPolicy().delays())
    assert random.random() == expected


# Nobody, or somebody hostile ---------------------------------------------------------------


def test_a_refused_connection_is_given_up_within_the_time(make: Make) -> None:
    with nobody() as url:
        exporter, start = make(url, timeout=0.3), time.monotonic()
        assert exporter.export(BATCH) is FAILURE
        assert time.monotonic() - start < BOUND_S
        assert exporter.stats()["dropped"] == {"unreachable": 10}
        assert exporter.stats()["retried"] > 1
        assert "connection refused" in exporter.stats()["last_failure"]


def test_a_name_that_nobody_knows_is_given_up(make: Make) -> None:
    exporter = make("http://no-such-host.invalid:4318", timeout=0.3)
    assert exporter.export(BATCH) is FAILURE
    assert exporter.stats()["dropped"] == {"unreachable": 10}
    assert "resolved" in exporter.stats()["last_failure"]


def test_a_black_hole_costs_no_more_than_the_deadline(make: Make) -> None:
    with raw_destination(lambda connection: connection.recv(1) and hold(connection)) as url:
        exporter, start = make(url, timeout=0.3), time.monotonic()
        assert exporter.export(BATCH) is FAILURE
        assert 0.3 <= time.monotonic() - start < BOUND_S
        assert exporter.stats()["dropped"] == {"unreachable": 10}
        assert "no answer in time" in exporter.stats()["last_failure"]


def hold(connection: socket.socket) -> None:
    while connection.recv(65536):
        pass


@pytest.mark.parametrize(
    "start",
    [b"", b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 10000\r\n\r\n"],
    ids=["head", "body"],
)
def test_a_slow_drip_costs_no_more_than_the_deadline(make: Make, start: bytes) -> None:
    def drip(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(start)
        for byte in b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 5000:
            connection.sendall(bytes((byte,)))
            time.sleep(0.02)

    with raw_destination(drip) as url:
        exporter, began = make(url, timeout=0.4), time.monotonic()
        assert exporter.export(BATCH) is FAILURE
        assert time.monotonic() - began < BOUND_S
        assert exporter.stats()["dropped"] == {"unreachable": 10}


def test_a_reader_that_stops_reading_costs_no_more_than_the_deadline(make: Make) -> None:
    released = threading.Event()
    with raw_destination(lambda connection: released.wait(10) and None) as url:
        huge = [made(n, attributes={"text": os.urandom(500_000).hex()}) for n in range(1, 9)]
        exporter, start = make(url, timeout=0.4, max_request_bytes=10**8), time.monotonic()
        assert exporter.export(huge) is FAILURE
        assert time.monotonic() - start < BOUND_S
        released.set()


def reset(connection: socket.socket) -> None:
    """Close so that the other side gets a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def first_then_ok(first: Callable[[socket.socket], None]) -> Callable[[socket.socket], None]:
    """Treat the first connection as given, and answer later ones."""
    turns = iter([True])

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        if next(turns, False):
            first(connection)
        else:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    return serve


def half_a_head(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-")
    reset(connection)


@pytest.mark.parametrize(
    "fault",
    [
        reset,
        half_a_head,
        lambda connection: connection.sendall(b"\x00\xff garbage, not HTTP\r\n\r\n"),
        lambda connection: connection.sendall(b"HTTP/1.1 " + b"9" * 70_000),
        lambda connection: connection.close(),
    ],
    ids=["reset", "reset in the head", "garbage", "endless line", "closed"],
)
def test_an_answer_that_is_none_is_tried_again(
    make: Make, fault: Callable[[socket.socket], None]
) -> None:
    with raw_destination(first_then_ok(fault)) as url:
        exporter = make(url)
        assert exporter.export(BATCH) is SUCCESS
        assert (exporter.stats()["sent"], exporter.stats()["retried"]) == (10, 1)


def test_a_connection_lost_after_the_status_does_not_double_the_spans(make: Make) -> None:
    def cut(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        reset(connection)

    with raw_destination(first_then_ok(cut)) as url:
        exporter = make(url)
        assert exporter.export(BATCH) is SUCCESS
        assert exporter.stats()["retried"] == 0


def test_garbage_in_the_body_of_a_success_is_ignored(make: Make) -> None:
    with Destination(Reply(200, b"\xff\xff\xff\xffgarbage")) as destination:
        assert make(destination.url).export(BATCH) is SUCCESS


@pytest.mark.parametrize("status", [200, 400])
def test_a_gigabyte_of_response_is_not_read(make: Make, status: int) -> None:
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        read_request(connection)
        connection.sendall(f"HTTP/1.1 {status} X\r\nContent-Length: {10**9}\r\n\r\n".encode())
        while True:
            sent += connection.send(b"x" * 65536)

    with raw_destination(flood) as url:
        exporter, start = make(url), time.monotonic()
        assert exporter.export(BATCH) is FAILURE
        assert time.monotonic() - start < 4
    assert sent < 10 * _http_sender.MAX_RESPONSE_BYTES
    assert exporter.stats()["rejected"] == 10
    assert "more than 4194304 bytes" in exporter.stats()["last_failure"]


def test_a_response_that_unpacks_to_gigabytes_is_not_unpacked(make: Make) -> None:
    import gzip

    bomb = gzip.compress(b"\0" * (8 * 1024 * 1024))
    with Destination(Reply(400, bomb, {"Content-Encoding": "gzip"})) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        assert "more than 4194304 bytes" in exporter.stats()["last_failure"]


def test_a_redirect_is_not_followed(make: Make) -> None:
    with Destination() as elsewhere:
        moved = Reply(307, headers={"Location": f"{elsewhere.url}/v1/traces?key=secret"})
        with Destination(moved) as destination:
            exporter = make(destination.url, headers={"authorization": "secret"})
            assert exporter.export(BATCH) is FAILURE
        assert elsewhere.received == []
        said = exporter.stats()["last_failure"]
        assert f"redirects to {elsewhere.url}/v1/traces" in said
        assert "secret" not in said


def test_an_answer_after_the_deadline_comes_too_late_and_harms_nobody(make: Make) -> None:
    late = threading.Event()

    def answer_late(received: Received) -> Reply:
        late.wait(10)
        return OK

    with Destination(answer_late, OK) as destination:
        exporter = make(destination.url, timeout=0.3)
        assert exporter.export(BATCH) is FAILURE
        late.set()
        assert exporter.export(BATCH[:1]) is SUCCESS
        assert exporter.stats()["sent"] == 1


# Size --------------------------------------------------------------------------------------


def refuse_above(limit: int) -> Callable[[Received], Reply]:
    return lambda received: Reply(413) if len(received.raw) > limit else OK


def test_a_batch_is_split_before_it_is_sent(make: Make) -> None:
    with Destination() as destination:
        exporter = make(destination.url, max_request_bytes=400)
        assert exporter.export(BATCH) is SUCCESS
        assert len(destination.received) > 2
        assert max(len(received.raw) for received in destination.received) <= 400
        assert destination.span_names() == NAMES


def test_a_request_that_is_too_large_is_sent_in_halves(make: Make) -> None:
    with Destination(refuse_above(200)) as destination:
        exporter = make(destination.url)
        assert exporter.export(BATCH) is SUCCESS
        taken = [r for r in destination.received if len(r.raw) <= 200]
        assert sorted(n for r in taken for n in r.span_names()) == sorted(NAMES)
        assert exporter.stats()["sent"] == 10
        assert exporter.stats()["split"] >= 2


def test_a_span_that_is_too_large_alone_costs_no_other(make: Make) -> None:
    giant = made(99, "giant", attributes={"text": "x" * 5000})
    with Destination(refuse_above(2000)) as destination:
        exporter = make(destination.url)
        assert exporter.export([*BATCH[:5], giant, *BATCH[5:]]) is FAILURE
        assert exporter.stats()["sent"] == 10
        assert exporter.stats()["dropped"] == {"too_large": 1}


def test_later_batches_are_small_enough_at_once(make: Make) -> None:
    spans = [made(n, attributes={"text": "x" * 50_000}) for n in range(1, 9)]
    with Destination(refuse_above(250_000)) as destination:
        exporter = make(destination.url)
        exporter.export(spans)
        split = exporter.stats()["split"]
        assert split > 0
        exporter.export(spans)
        assert exporter.stats()["split"] == split
        assert exporter.stats()["sent"] == 16


def test_halves_share_the_deadline_of_their_batch(make: Make) -> None:
    def slow(received: Received) -> Reply:
        time.sleep(0.1)
        return OK

    with Destination(slow) as destination:
        exporter, start = make(destination.url, timeout=0.35, max_request_bytes=1), time.monotonic()
        assert exporter.export(BATCH) is FAILURE
        assert time.monotonic() - start < BOUND_S
        stats = exporter.stats()
        assert 1 <= stats["sent"] < 10
        assert accounted(exporter) == 10


# Partial success ---------------------------------------------------------------------------


def partial(rejected: int, message: str) -> Reply:
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = message
    return Reply(200, response.SerializeToString(), {"Content-Type": "application/x-protobuf"})


def test_rejected_spans_are_counted_and_the_reason_is_said(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with Destination(partial(3, "span has no service")) as destination:
        exporter = make(destination.url)
        assert exporter.export(BATCH) is FAILURE
        assert len(destination.received) == 1, "a partial success is not tried again"
        assert (exporter.stats()["sent"], exporter.stats()["rejected"]) == (7, 3)
        assert exporter.last_outcome == (7, 3, {}, 0, "rejected")
        assert exporter.stats()["rejected_for"] == {"span has no service": 3}
        exporter.export(BATCH)
    (message,) = messages(caplog)
    assert "rejected 3 of 10 spans: span has no service" in message


def test_a_remark_on_a_full_success_is_said(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    with Destination(partial(0, "v1 ends in May")) as destination:
        assert make(destination.url).export(BATCH) is SUCCESS
    (message,) = messages(caplog)
    assert "v1 ends in May" in message


@pytest.mark.parametrize("rejected", [11, 2**40, -5])
def test_an_impossible_number_of_rejected_spans_is_cut(make: Make, rejected: int) -> None:
    with Destination(partial(rejected, "x")) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        assert exporter.stats()["rejected"] == (10 if rejected > 0 else 0)
        assert accounted(exporter) == 10


# The breaker -------------------------------------------------------------------------------

TOUCHY = RetryPolicy(
    first_delay_s=0.01, max_delay_s=0.01, failures_to_open=3, first_pause_s=0.3, max_pause_s=0.6
)


def test_a_destination_that_keeps_failing_is_left_alone(make: Make) -> None:
    with Destination(Reply(503)) as destination:
        exporter = make(destination.url, retry_policy=TOUCHY)
        exporter.export(BATCH)
        assert len(destination.received) == 3
        start = time.monotonic()
        assert exporter.export(BATCH) is FAILURE
        assert time.monotonic() - start < 0.1
        assert len(destination.received) == 3
        assert exporter.stats()["dropped"] == {"destination_down": 20}
        assert exporter.stats()["is_down"] is True


def test_one_request_probes_and_success_opens_the_way(make: Make) -> None:
    with Destination(Reply(503)) as destination:
        exporter = make(destination.url, retry_policy=TOUCHY)
        exporter.export(BATCH)
        time.sleep(0.31)
        exporter.export(BATCH)
        assert len(destination.received) == 4, "one probe, without retries"
        destination.script = [OK]
        time.sleep(0.61)
        assert exporter.export(BATCH) is SUCCESS
        assert exporter.stats()["is_down"] is False
        destination.script = [Reply(503), OK]
        assert exporter.export(BATCH) is SUCCESS, "it is as patient as before"


def test_pauses_double_up_to_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("tracekit.exporters._retry.time.monotonic", lambda: now)
    breaker = Breaker(RetryPolicy(failures_to_open=1, first_pause_s=5, max_pause_s=20))
    pauses = []
    for _ in range(4):
        breaker.failed(breaker.begin(1))
        start = now
        while not breaker.lets_through():
            now += 1
        pauses.append(now - start)
    assert pauses == [5, 10, 20, 20]


def test_a_wish_for_a_day_of_peace_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("tracekit.exporters._retry.time.monotonic", lambda: now)
    breaker = Breaker(RetryPolicy(max_retry_after_s=300))
    breaker.failed(breaker.begin(1), 86_400)
    assert not breaker.lets_through()
    now = 300.0
    assert breaker.lets_through()


# What is said ------------------------------------------------------------------------------


def test_failure_is_said_once_and_so_is_recovery(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    body = b"the disk\nis full" + b"x" * 10_000
    with Destination(*[Reply(503, body)] * 3, OK) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        exporter.export(BATCH)
    failure, recovery = messages(caplog)
    assert f"cannot be sent to {destination.url}/v1/traces: 503 Service Unavailable" in failure
    assert "the disk is full" in failure, "a line break could begin a forged line"
    assert len(failure) < 600
    assert "again" in recovery


def test_a_destination_that_flickers_is_not_said_to_each_time(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with Destination(*[Reply(503), OK] * 4) as destination:
        exporter = make(destination.url)
        for _ in range(4):
            exporter.export(BATCH)
    assert len(messages(caplog)) == 2


def test_a_status_message_in_protobuf_is_read(make: Make) -> None:
    from google.rpc.status_pb2 import Status

    body = Status(code=3, message="spans without a name").SerializeToString()
    with Destination(Reply(400, body, {"Content-Type": "application/x-protobuf"})) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        assert exporter.stats()["last_failure"] == "400 Bad Request: spans without a name"


def test_control_characters_of_a_server_do_not_reach_the_terminal(make: Make) -> None:
    with Destination(Reply(400, b"\x1b[2J\x00\xe2\x80\xae boo")) as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        assert exporter.stats()["last_failure"].isprintable()


def test_a_web_page_for_an_answer_is_suspicious(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    page = Reply(200, b"<html>", {"Content-Type": "text/html; charset=utf-8"})
    with Destination(page) as destination:
        make(destination.url).export(BATCH)
    (message,) = messages(caplog)
    assert "right endpoint?" in message


def test_secrets_of_a_url_are_sent_and_never_shown(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with Destination(Reply(400)) as destination:
        url = destination.url.replace("http://", "http://user:p%40ss@") + "/v1/traces?key=secret"
        exporter = make(url)
        exporter.export(BATCH)
        (received,) = destination.received
    assert received.headers["authorization"] == "Basic dXNlcjpwQHNz"
    assert received.path == "/v1/traces?key=secret"
    shown = f"{messages(caplog)} {exporter.stats()} {exporter.destination}"
    assert "secret" not in shown
    assert "p@ss" not in shown
    assert "p%40ss" not in shown


# Connections, threads, processes -----------------------------------------------------------


def test_connections_are_kept(make: Make) -> None:
    with Destination(Reply(200, b""), Reply(429, b"busy"), OK) as destination:
        exporter = make(destination.url)
        for _ in range(5):
            exporter.export(BATCH)
        assert len({received.client for received in destination.received}) == 1


def test_each_thread_has_its_own_connection(make: Make) -> None:
    all_are_there = threading.Barrier(3)  # or one thread might be over before the next begins

    def together(_received: Received) -> Reply:
        all_are_there.wait(30)
        return Reply()

    with Destination(together) as destination:
        exporter = make(destination.url)
        threads = [threading.Thread(target=exporter.export, args=(BATCH,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({received.client for received in destination.received}) == 3
        assert exporter.stats()["sent"] == 30


def test_a_forked_child_connects_anew_and_counts_for_itself(make: Make) -> None:
    with Destination() as destination:
        exporter = make(destination.url)
        exporter.export(BATCH)
        pid = os.fork()
        if pid == 0:
            is_good = exporter.stats()["sent"] == 0
            is_good = is_good and exporter.export(BATCH[:1]) is SUCCESS
            os._exit(0 if is_good and exporter.stats()["sent"] == 1 else 1)
        assert os.waitpid(pid, 0)[1] == 0
        assert exporter.export(BATCH) is SUCCESS
        first, of_child, last = (received.client for received in destination.received)
        assert first == last != of_child
        assert exporter.stats()["sent"] == 20


def test_shutdown_ends_a_pause_at_once(make: Make) -> None:
    asked = threading.Event()

    def later(received: Received) -> Reply:
        asked.set()
        return Reply(503, headers={"Retry-After": "30"})

    with Destination(later) as destination:
        exporter = make(destination.url, timeout=60)
        worker = threading.Thread(target=exporter.export, args=(BATCH,))
        worker.start()
        assert asked.wait(10)
        start = time.monotonic()
        exporter.shutdown()
        worker.join(10)
        assert time.monotonic() - start < BOUND_S
        assert exporter.stats()["dropped"] == {"shutdown": 10}
        assert exporter.export(BATCH) is FAILURE


def test_exporting_is_traced_by_nobody(make: Make) -> None:
    seen: list[object] = []

    class Session:
        def request(self, *arguments: Any, **options: Any) -> Any:
            seen.append(context_api.get_value("suppress_instrumentation"))
            seen.append(context_api.get_value(context_api._SUPPRESS_INSTRUMENTATION_KEY))
            raise ConnectionError("enough")

    exporter = make("http://localhost", session=Session(), timeout=0.005)
    exporter.export(BATCH)
    assert seen[:2] == [True, True]
    assert context_api.get_value("suppress_instrumentation") is None


def test_a_netrc_does_not_replace_the_authorization(
    make: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with Destination() as destination:
        make(destination.url, headers={"Authorization": "Bearer ours"}).export(BATCH)
        (received,) = destination.received
    assert received.headers["authorization"] == "Bearer ours"


def test_a_proxy_of_the_environment_is_used(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    with Destination() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        exporter = make("http://collector.invalid:4318")
        assert exporter.export(BATCH) is SUCCESS
        (received,) = proxy.received
    assert received.path == "http://collector.invalid:4318/v1/traces"


def test_a_span_that_cannot_be_read_is_counted_and_costs_no_batch(make: Make) -> None:
    with Destination() as destination:
        exporter = make(destination.url)
        assert exporter.export([BATCH[0], object(), BATCH[1]]) is SUCCESS
        assert destination.span_names() == NAMES[:2]
        assert exporter.stats()["dropped"] == {"unreadable": 1}


# Probing -----------------------------------------------------------------------------------


def test_a_probe_finds_a_destination_that_takes_spans(make: Make) -> None:
    with Destination() as destination:
        assert make(destination.url).probe() is None
        assert destination.span_names() == []


def test_a_probe_says_what_is_wrong(make: Make) -> None:
    with Destination(Reply(401, b"unknown key")) as destination:
        assert make(destination.url).probe() == (
            f"{destination.url}/v1/traces does not take spans: 401 Unauthorized: unknown key"
        )
    with nobody() as url:
        assert make(url).probe() == (f"{url}/v1/traces cannot be reached: connection refused")


def test_a_probe_takes_no_longer_than_two_seconds(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracekit.exporters._network.PROBE_TIMEOUT_S", 0.2)
    with raw_destination(hold) as url:
        start = time.monotonic()
        assert "no answer in time" in str(make(url).probe())
        assert time.monotonic() - start < BOUND_S
