"""What clients and servers of an RPC library are asked, against real servers on loopback.

A test class inherits the questions and supplies the server and the calls; each question is asked
of a synchronous and an asynchronous client, in front of a synchronous and an asynchronous server.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.deciding import Deciding
from instrumentation.grpc_server import Answers
from instrumentation.http_client_contract import BrokenProvider, carrying, parent_id, raise_error
from tracekit.instrumentation._patch import LibraryInstrumentor

ANSWERED = ["AddUp", "Get"]
STREAMED = ["Count", "Echo"]


class Outcome(NamedTuple):
    """The answers of a call, or the code that it failed with."""

    answers: list[bytes]
    code: str = "OK"


class RpcContract:
    """Questions to one client and one server; a subclass writes how they are made."""

    knows_target = True
    """Whether a call of the library's shows where its channel leads."""
    plugin: type[LibraryInstrumentor]

    def server(self, answers: Answers) -> AbstractContextManager[int]:
        """Serve on loopback, and yield the port."""
        raise NotImplementedError

    def call(
        self,
        port: int,
        method: str,
        requests: Sequence[bytes] = (b"1",),
        *,
        timeout: float | None = None,
        metadata: Any = None,
        take: int | None = None,
    ) -> Outcome:
        """Make one call with a channel of its own; take so many answers, and drop the call."""
        raise NotImplementedError

    @pytest.fixture
    def answers(self) -> Answers:
        return Answers()

    @pytest.fixture
    def port(self, instrument: Instrument, spans: Spans, answers: Answers) -> Iterator[int]:
        """A server made after the library was instrumented."""
        instrument(self.plugin)
        with self.server(answers) as port:
            yield port

    # What spans say

    @pytest.mark.parametrize("method", [*ANSWERED, *STREAMED])
    def test_each_side_of_a_call_is_one_span(
        self, spans: Spans, answers: Answers, port: int, method: str
    ) -> None:
        assert self.call(port, method).code == "OK"
        client, server = two(spans)
        assert (client.kind, server.kind) == (SpanKind.CLIENT, SpanKind.SERVER)
        assert client.name == server.name == f"shop.Orders/{method}"
        assert (server.context.trace_id, parent_id(server)) == (
            client.context.trace_id,
            client.context.span_id,
        )
        assert {client.status.status_code, server.status.status_code} == {StatusCode.UNSET}

    def test_attributes_are_those_of_the_conventions(self, spans: Spans, port: int) -> None:
        self.call(port, "Get", timeout=5)
        client, server = two(spans)
        told = dict(client.attributes or {})
        assert told.pop("tracekit.timeout.total_s") == pytest.approx(5, abs=0.1)
        # The nearest line of the program: of whoever calls the library, not who called that.
        assert Path(str(told.pop("code.file.path"))).name == "test_grpc.py"
        assert str(told.pop("code.function.name")).rpartition(".")[2] in ("call_on", "_call")
        assert isinstance(told.pop("code.line.number"), int)
        place = {"server.address": "127.0.0.1", "server.port": port}
        assert told == {
            "rpc.system.name": "grpc",
            "rpc.method": "shop.Orders/Get",
            "rpc.status_code": "OK",
            **(place if self.knows_target else {}),
        }
        told = dict(server.attributes or {})
        assert isinstance(told.pop("network.peer.port"), int)
        assert told == {
            "rpc.system.name": "grpc",
            "rpc.method": "shop.Orders/Get",
            "rpc.status_code": "OK",
            "network.peer.address": "127.0.0.1",
        }

    def test_the_line_that_calls_is_not_recorded_where_it_is_not_wanted(
        self, instrument: Instrument, spans: Spans, answers: Answers
    ) -> None:
        instrument(self.plugin, code_location=False)
        with self.server(answers) as port:
            self.call(port, "Get")
        assert "code.line.number" not in (two(spans)[0].attributes or {})

    def test_context_travels_beside_the_programs_metadata(
        self, spans: Spans, answers: Answers, port: int
    ) -> None:
        passed_on = [("tenant", "acme"), ("traceparent", "passed on"), ("raw-bin", b"\x00\xff")]
        self.call(port, "Get", metadata=passed_on)
        client, _ = two(spans)
        (metadata,) = answers.metadata
        assert (metadata["tenant"], metadata["raw-bin"]) == ("acme", b"\x00\xff")
        assert f"{client.context.span_id:016x}" in metadata["traceparent"]

    @pytest.mark.parametrize(("listed", "sent"), [("127.0.0.1", True), ("*.internal", False)])
    def test_metadata_of_ours_goes_to_listed_hosts_only(
        self, instrument: Instrument, spans: Spans, answers: Answers, listed: str, sent: bool
    ) -> None:
        sent = sent and self.knows_target  # a host that nobody knows is not listed
        instrument(self.plugin, propagation_hosts=listed)
        with self.server(answers) as port, carrying(user="amy"):
            self.call(port, "Get", metadata=[("tenant", "acme")])
        (metadata,) = answers.metadata
        assert metadata["tenant"] == "acme"
        assert ("traceparent" in metadata, "baggage" in metadata) == (sent, sent)
        assert len(settled(spans, 2)) == 2

    def test_an_untrusted_caller_is_linked_to(
        self, instrument: Instrument, spans: Spans, answers: Answers
    ) -> None:
        instrument(self.plugin, trust="trust rpc.method=shop.Orders/AddUp; link")
        with self.server(answers) as port:
            self.call(port, "Get")
        client, server = two(spans)
        assert server.parent is None
        assert [link.context.span_id for link in server.links] == [client.context.span_id]

    @pytest.mark.parametrize("method", [*ANSWERED, *STREAMED])
    @pytest.mark.parametrize("mode", ["auto", "never"])
    def test_what_a_callee_keeps_is_asked_to_be_kept(
        self, instrument: Instrument, spans: Spans, answers: Answers, method: str, mode: str
    ) -> None:
        deciding = Deciding()
        spans.provider.add_span_processor(deciding)
        answers.inside = lambda: trace.get_current_span().keep()  # type: ignore[attr-defined]
        instrument(self.plugin, traceresponse=mode)
        with self.server(answers) as port:
            assert self.call(port, method).code == "OK"
            two(spans)
        reasons = {"asked", "callee"} if mode == "auto" else {"asked"}
        assert set(deciding.asked) == reasons

    def test_a_callee_that_keeps_nothing_says_so(
        self, instrument: Instrument, spans: Spans, answers: Answers
    ) -> None:
        deciding = Deciding()
        spans.provider.add_span_processor(deciding)
        instrument(self.plugin)
        with self.server(answers) as port:
            self.call(port, "Get")
            two(spans)
        assert deciding.asked == []

    def test_a_call_inside_of_an_answer_is_below_the_servers_span(
        self, spans: Spans, answers: Answers, port: int
    ) -> None:
        answers.inside = lambda: spans.tracer.start_span("inside").end()
        self.call(port, "Get")
        _, server = two(spans)
        (inside,) = [span for span in spans.ended if span.name == "inside"]
        assert parent_id(inside) == server.context.span_id

    # Failures

    @pytest.mark.parametrize(
        ("method", "code", "is_servers"),
        [
            ("Abort", "NOT_FOUND", False),
            ("Abort", "INTERNAL", True),
            ("SetCode", "UNAVAILABLE", True),
            ("SetCode", "INVALID_ARGUMENT", False),
        ],
    )
    def test_a_status_is_an_error_of_the_client_and_mostly_of_the_server(
        self, spans: Spans, port: int, method: str, code: str, is_servers: bool
    ) -> None:
        assert self.call(port, method, [code.encode()]).code == code
        client, server = two(spans)
        assert_failed(client, code)
        if is_servers:
            assert_failed(server, code)
        else:
            assert server.status.status_code is StatusCode.UNSET
            assert (server.attributes or {})["rpc.status_code"] == code
            assert "error.type" not in (server.attributes or {})

    def test_an_exception_of_the_handler_is_recorded_where_it_was_raised(
        self, spans: Spans, port: int
    ) -> None:
        assert self.call(port, "Fail").code == "UNKNOWN"
        client, server = two(spans)
        assert_failed(client, "UNKNOWN")
        assert_failed(server, "UNKNOWN")
        (event,) = server.events
        assert (event.attributes or {})["exception.message"] == "on the server"

    def test_a_stream_that_breaks_off_is_an_error(self, spans: Spans, port: int) -> None:
        assert self.call(port, "CountAndFail").code == "DATA_LOSS"
        client, server = two(spans)
        assert_failed(client, "DATA_LOSS")
        assert_failed(server, "DATA_LOSS")

    def test_a_method_that_there_is_not_names_no_span(self, spans: Spans, port: int) -> None:
        assert self.call(port, "Nonsense").code == "UNIMPLEMENTED"
        _, server = two(spans)
        assert server.name == "grpc"
        assert (server.attributes or {})["rpc.method"] == "_OTHER"
        assert (server.attributes or {})["rpc.method_original"] == "shop.Orders/Nonsense"

    def test_a_deadline_is_an_error_of_both(
        self, spans: Spans, answers: Answers, port: int
    ) -> None:
        assert self.call(port, "Wait", timeout=0.1).code == "DEADLINE_EXCEEDED"
        answers.gone.wait(10)
        answers.release.set()
        client, server = two(spans)
        assert_failed(client, "DEADLINE_EXCEEDED")
        assert (server.attributes or {})["rpc.status_code"] == "DEADLINE_EXCEEDED"

    def test_a_server_that_is_not_there_is_unavailable(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        assert self.call(1, "Get").code == "UNAVAILABLE"
        assert_failed(spans.one(), "UNAVAILABLE")

    def test_a_stream_dropped_half_way_is_cancelled_and_no_error(
        self, spans: Spans, answers: Answers, port: int
    ) -> None:
        self.call(port, "Endless", take=2)
        assert answers.gone.wait(10)
        client, server = two(spans)
        for span in (client, server):
            assert span.status.status_code is StatusCode.UNSET
            assert (span.attributes or {})["rpc.status_code"] == "CANCELLED"

    # Parents

    def test_calls_at_the_same_time_have_the_right_parents(self, spans: Spans, port: int) -> None:
        def call(number: int) -> None:
            with spans.tracer.start_as_current_span(str(number)):
                self.call(port, "Get")

        threads = [threading.Thread(target=call, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(settled(spans, 12)) == 12
        by_id = {span.context.span_id: span for span in spans.ended}
        clients = [span for span in spans.watched if span.kind is SpanKind.CLIENT]
        parents = [by_id[parent_id(span) or 0].name for span in clients]
        assert sorted(parents) == sorted(map(str, range(6)))

    def test_below_an_unsampled_parent_nothing_is_recorded(
        self, instrument: Instrument, answers: Answers
    ) -> None:
        spans = Spans(ALWAYS_OFF)
        instrument(self.plugin, tracer_provider=spans.provider)
        with self.server(answers) as port, spans.tracer.start_as_current_span("off"):
            assert self.call(port, "Get").code == "OK"
        flags = int(answers.metadata[0]["traceparent"].rpartition("-")[2], 16)
        assert not flags & 1
        assert spans.ended == []

    def test_a_suppressed_call_has_no_span_and_no_metadata(
        self, spans: Spans, answers: Answers, port: int
    ) -> None:
        token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
        try:
            self.call(port, "Get")
        finally:
            otel_context.detach(token)
        assert "traceparent" not in answers.metadata[0]
        assert [span.kind for span in settled(spans, 1)] == [SpanKind.SERVER]

    def test_an_excluded_service_has_no_spans(
        self,
        instrument: Instrument,
        spans: Spans,
        answers: Answers,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("OTEL_PYTHON_GRPC_EXCLUDED_SERVICES", "other.Service, shop.Orders")
        instrument(self.plugin)
        with self.server(answers) as port:
            self.call(port, "Get")
            self.call(port, "Count")
        assert spans.ended == []
        assert "traceparent" not in answers.metadata[0]

    def test_nothing_is_left_current(self, port: int) -> None:
        before = otel_context.get_current()
        self.call(port, "Get")
        self.call(port, "Count")
        self.call(port, "Fail")
        assert otel_context.get_current() is before

    # Never harm

    def test_a_provider_that_raises_does_not_break_the_call(
        self, instrument: Instrument, answers: Answers
    ) -> None:
        instrument(self.plugin, tracer_provider=BrokenProvider())
        with self.server(answers) as port:
            assert self.call(port, "Get").answers == [b"1"]
            assert self.call(port, "Count", [b"3"]).answers == [b"0", b"1", b"2"]

    @pytest.mark.parametrize("broken", ["set_attributes", "end"])
    def test_a_span_that_raises_does_not_break_the_call(
        self, spans: Spans, port: int, monkeypatch: pytest.MonkeyPatch, broken: str
    ) -> None:
        monkeypatch.setattr(f"opentelemetry.sdk.trace.Span.{broken}", raise_error)
        assert self.call(port, "Get").answers == [b"1"]
        assert self.call(port, "Echo", [b"1", b"2"]).answers == [b"1", b"2"]

    def test_a_megabyte_goes_through_and_is_not_recorded(self, spans: Spans, port: int) -> None:
        large = b"\xff" * 2**20
        assert self.call(port, "Get", [large]).answers == [large]
        assert all(
            len(str(value)) < 100
            for span in two(spans)
            for value in (span.attributes or {}).values()
        )


def two(spans: Spans) -> tuple[ReadableSpan, ReadableSpan]:
    """Return the client's and the server's span, which ends a moment after the answer is there."""
    client, server = sorted(settled(spans, 2), key=lambda span: span.kind is SpanKind.SERVER)
    return client, server


def settled(spans: Spans, count: int) -> list[ReadableSpan]:
    """Return what was watched, once there are `count` spans."""
    wait = threading.Event()
    for _ in range(1000):
        if len(spans.watched) >= count:
            break
        wait.wait(0.005)
    return spans.watched


def assert_failed(span: ReadableSpan, code: str) -> None:
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == code
    assert (span.attributes or {})["rpc.status_code"] == code
