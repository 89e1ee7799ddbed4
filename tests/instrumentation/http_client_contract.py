"""What every instrumented HTTP client is asked.

A test class of a client inherits the questions and supplies the calls; an asynchronous client
runs its own event loop inside them, so the questions are the same.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple, Protocol
from unittest.mock import ANY

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, LoopbackServer, Spans
from instrumentation.deciding import Deciding
from tracekit.instrumentation import _traceresponse
from tracekit.instrumentation._caller import Caller
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.propagators._composite import CompositePropagator
from tracekit.propagators.jaeger import JaegerPropagator
from tracekit.propagators.ottrace import OTTracePropagator

SUPPRESSIONS = [
    "suppress_instrumentation",
    otel_context._SUPPRESS_INSTRUMENTATION_KEY,
    otel_context._SUPPRESS_HTTP_INSTRUMENTATION_KEY,
]


class Answer(NamedTuple):
    """What a call gave to the program."""

    status: int
    body: bytes


class Call(Protocol):
    """One call with a client of its own, which follows redirects."""

    def __call__(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Answer: ...


class HttpClientContract:
    """Questions to one client; a subclass sets the attributes and writes the calls."""

    plugin: type[LibraryInstrumentor]
    contrib_class: str
    contrib_package: str = ""
    """The package of contrib's that has the class, where it is named for another library."""
    timeouts: ClassVar[Mapping[str, float]]
    """Attributes of a call with a timeout of five seconds."""
    timeout_error: str
    connect_error: str
    program: str
    """Imports the library and calls ``URL``; `instrument()` is called before or after."""
    library: ClassVar[str] = ""
    """What the program imports, where the plug-in's name is another."""
    unknown_host_error: ClassVar[str] = ""
    """Where it is another than the one of a refused connection."""
    dropped_attempts: ClassVar[int] = 1
    """How often the library sends a request whose connection is closed without an answer."""
    shown_userinfo: ClassVar[str] = "REDACTED:REDACTED@"
    """Empty where the library makes a header of it before it is seen."""

    @staticmethod
    def status_of(response: Any) -> int:
        """Return the status of the library's own response."""
        return response.status_code  # type: ignore[no-any-return]

    def call(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Answer:
        """Make one call with a client of its own that follows redirects."""
        raise NotImplementedError

    def call_with_old_client(self, before: Callable[[], None], url: str) -> Answer:
        """Make a client, then run `before`, then make the call."""
        raise NotImplementedError

    def call_with_digest(self, url: str) -> Answer:
        """Answer a challenge with digest authentication."""
        raise NotImplementedError

    def stream(self, url: str, at_headers: Callable[[], None], chunks: int | None = None) -> None:
        """Open a streamed response, run `at_headers`, read some chunks or all, and close."""
        raise NotImplementedError

    def call_together(
        self, count: int, url: str, under: Callable[[int], AbstractContextManager[Any]]
    ) -> None:
        """Make calls at the same time, each inside ``under(its number)``, to ``{url}/{number}``."""
        raise NotImplementedError

    # What a span says

    def test_span_is_named_for_the_method_and_is_a_client(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        self.call(f"{server.url}/ok", method="POST")
        assert (spans.one().name, spans.one().kind) == ("POST", SpanKind.CLIENT)

    def test_attributes_are_those_of_the_conventions(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        self.call(f"{server.url}/ok?page=2")
        assert dict(spans.one().attributes or {}) == {
            "http.request.method": "GET",
            "server.address": "127.0.0.1",
            "server.port": server.server_port,
            "url.full": f"{server.url}/ok?page=2",
            "http.response.status_code": 200,
            "network.protocol.version": "1.1",
            "network.peer.address": "127.0.0.1",
            "network.peer.port": server.server_port,
            **self.timeouts,
            "code.file.path": inspect.getfile(type(self).call),
            "code.function.name": ANY,
            "code.line.number": ANY,
        }

    def test_unknown_method_is_other_and_kept_beside(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        self.call(f"{server.url}/ok", method="PURGE")
        attributes = spans.one().attributes or {}
        assert spans.one().name == "HTTP"
        assert attributes["http.request.method"] == "_OTHER"
        assert attributes["http.request.method_original"] == "PURGE"

    def test_success_leaves_the_status_unset(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        self.call(f"{server.url}/ok")
        assert spans.one().status.status_code is StatusCode.UNSET

    @pytest.mark.parametrize("status", [404, 500])
    def test_error_status_is_an_error_of_that_type(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer, status: int
    ) -> None:
        instrument(self.plugin)
        assert self.call(f"{server.url}/status/{status}").status == status
        span = spans.one()
        assert span.status.status_code is StatusCode.ERROR
        assert span.status.description is None
        assert (span.attributes or {})["error.type"] == str(status)
        assert not span.events

    def test_both_names_are_written_while_dashboards_migrate(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "database,http/dup")
        instrument(self.plugin)
        self.call(f"{server.url}/ok")
        attributes = spans.one().attributes or {}
        assert attributes["http.request.method"] == attributes["http.method"] == "GET"
        assert attributes["http.status_code"] == 200
        assert attributes["http.url"] == attributes["url.full"]
        assert attributes["net.peer.name"] == "127.0.0.1"
        assert attributes["net.peer.port"] == server.server_port

    # Who called

    def test_line_of_the_program_that_called_is_named(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        for _ in range(2):
            self.call(f"{server.url}/redirect")
            self.call_with_old_client(lambda: None, f"{server.url}/ok")
        named = [caller_of(span) for span in spans.watched]
        assert {path for path, _ in named} == {inspect.getfile(type(self).call)}
        # A redirect is nobody's line but that of the call.
        assert named[0] == named[1] != named[2]
        assert named[:3] == named[3:]

    def test_lines_that_take_turns_are_told_apart(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        for _ in range(3):
            self.call(f"{server.url}/ok")
            self.call_with_old_client(lambda: None, f"{server.url}/ok")
        named = [caller_of(span) for span in spans.watched]
        assert named[0] != named[1]
        assert named[2:] == named[:4]

    def test_line_is_named_below_a_span_of_another_process(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        remote = trace.SpanContext(1, 2, True, trace.TraceFlags(1))
        with trace.use_span(trace.NonRecordingSpan(remote)):
            self.call(f"{server.url}/ok")
        assert caller_of(spans.one())[0] == inspect.getfile(type(self).call)

    @pytest.mark.parametrize("text", ["true", "false", ""])
    def test_line_is_named_unless_the_environment_says_otherwise(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        monkeypatch: pytest.MonkeyPatch,
        text: str,
    ) -> None:
        monkeypatch.setenv("TRACEKIT_CODE_LOCATION", text)
        instrument(self.plugin)
        self.call(f"{server.url}/ok")
        attributes = spans.one().attributes or {}
        assert ("code.function.name" in attributes) == (text != "false")

    def test_no_line_is_looked_for_where_nothing_is_recorded(
        self, instrument: Instrument, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        asked: list[Any] = []
        monkeypatch.setattr(Caller, "attributes", lambda *more: asked.append(more))
        spans = Spans(sampler=ALWAYS_OFF)
        instrument(self.plugin, tracer_provider=spans.provider)
        with spans.tracer.start_as_current_span("parent"):
            self.call(f"{server.url}/redirect")
        assert asked == []

    # Where a span belongs

    def test_span_is_a_child_of_the_current_one(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        with spans.tracer.start_as_current_span("parent") as parent:
            self.call(f"{server.url}/ok")
        assert parent_id(spans.one()) == parent.get_span_context().span_id

    def test_span_is_a_root_when_there_is_no_current_one(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        self.call(f"{server.url}/ok")
        assert spans.one().parent is None

    @pytest.mark.parametrize("path", ["/ok", "/dropped"])
    def test_current_span_is_the_callers_again_after_the_call(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer, path: str
    ) -> None:
        instrument(self.plugin)
        before = otel_context.get_current()
        with contextlib.suppress(Exception):
            self.call(server.url + path)
        assert otel_context.get_current() is before

    def test_calls_at_the_same_time_have_their_own_parents(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        parents = [spans.tracer.start_span(f"parent {number}") for number in range(20)]
        self.call_together(20, f"{server.url}/ok", lambda n: trace.use_span(parents[n]))
        found = {
            str((span.attributes or {})["url.full"]).rpartition("/")[2]: parent_id(span)
            for span in spans.watched
        }
        assert found == {str(n): p.get_span_context().span_id for n, p in enumerate(parents)}

    # What the server is told

    def test_injected_header_is_the_spans(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        self.call(f"{server.url}/ok")
        assert injected(server)[0] == ids(spans.one())

    def test_header_of_the_program_is_replaced_once(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        given = {"Traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "x-own": "kept"}
        self.call(f"{server.url}/ok", headers=given)
        assert injected(server)[0] == ids(spans.one())
        assert server.received[0].headers["x-own"] == "kept"
        assert given == {"Traceparent": f"00-{'1' * 32}-{'2' * 16}-01", "x-own": "kept"}

    def test_unsampled_parent_is_propagated_and_nothing_recorded(
        self, instrument: Instrument, server: LoopbackServer
    ) -> None:
        spans = Spans(sampler=ALWAYS_OFF)
        instrument(self.plugin, tracer_provider=spans.provider)
        with spans.tracer.start_as_current_span("parent") as parent:
            self.call(f"{server.url}/ok")
        header = server.received[0].headers["traceparent"]
        assert int(header.split("-")[1], 16) == parent.get_span_context().trace_id
        assert int(header.split("-")[3], 16) & 1 == 0
        assert spans.ended == []

    def test_headers_go_to_listed_hosts_only(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin, propagation_hosts=["127.0.0.*", "*.internal"])
        self.call(f"{server.url}/ok")
        self.call(f"{server.other_host}/ok")
        assert ["traceparent" in request.headers for request in server.received] == [True, False]
        assert len(spans.watched) == 2

    def test_list_of_hosts_comes_from_the_environment_too(
        self,
        instrument: Instrument,
        server: LoopbackServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("TRACEKIT_PROPAGATION_HOSTS", "a.internal, b.internal")
        instrument(self.plugin)
        self.call(f"{server.url}/ok")
        assert "traceparent" not in server.received[0].headers

    def test_redirect_to_a_host_off_the_list_takes_no_headers_along(
        self, instrument: Instrument, server: LoopbackServer
    ) -> None:
        instrument(self.plugin, propagation_hosts="127.0.0.1")
        self.call(f"{server.url}/elsewhere")
        assert ["traceparent" in request.headers for request in server.received] == [True, False]

    @pytest.mark.usefixtures("outside_name")
    def test_baggage_stays_inside(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        with carrying(user="amy"), spans.tracer.start_as_current_span("parent"):
            self.call(f"{server.url}/ok")
            self.call(f"{server.outside}/ok")
        assert injected(server) == [ids(span) for span in spans.watched]
        assert baggage_at(server) == ["user=amy", None]

    @pytest.mark.usefixtures("outside_name")
    def test_baggage_goes_to_listed_hosts_only(
        self, instrument: Instrument, server: LoopbackServer
    ) -> None:
        instrument(self.plugin, propagation_hosts="api.example.com")
        with carrying(user="amy"):
            self.call(f"{server.url}/ok")
            self.call(f"{server.outside}/ok")
        assert baggage_at(server) == [None, "user=amy"]
        assert ["traceparent" in request.headers for request in server.received] == [False, True]

    @pytest.mark.usefixtures("outside_name")
    def test_redirect_to_the_outside_takes_no_baggage_along(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        with carrying(user="amy"):
            self.call(f"{server.url}/outside")
        assert baggage_at(server) == ["user=amy", None]
        assert injected(server) == [ids(span) for span in spans.watched]

    @pytest.mark.usefixtures("outside_name")
    def test_baggage_of_other_formats_stays_inside_too(
        self, instrument: Instrument, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        textmap = CompositePropagator([JaegerPropagator(), OTTracePropagator()])
        monkeypatch.setattr(propagate, "_HTTP_TEXT_FORMAT", textmap)
        instrument(self.plugin)
        with carrying(user="amy"):
            self.call(f"{server.url}/outside")
        first, second = (request.headers for request in server.received)
        assert first["uberctx-user"] == first["ot-baggage-user"] == "amy"
        assert second.keys().isdisjoint(("uberctx-user", "ot-baggage-user"))
        assert first["uber-trace-id"] != second["uber-trace-id"]

    # What the callee decided

    @pytest.mark.parametrize("span_ends", ["headers", "body"])
    def test_a_trace_that_the_callee_keeps_is_asked_to_be_kept(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer, span_ends: str
    ) -> None:
        deciding = Deciding()
        spans.provider.add_span_processor(deciding)
        instrument(self.plugin, span_ends=span_ends)
        self.call(f"{server.url}/decided/kept")
        assert deciding.asked == ["callee"]

    @pytest.mark.parametrize("kind", ["open", "foreign", "other", "garbage"])
    def test_nothing_else_that_a_callee_says_keeps_a_trace(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer, kind: str
    ) -> None:
        deciding = Deciding()
        spans.provider.add_span_processor(deciding)
        instrument(self.plugin)
        refused = sum(_traceresponse.refused.values())
        self.call(f"{server.url}/decided/{kind}")
        assert deciding.asked == []
        is_counted = kind in ("other", "garbage")
        assert sum(_traceresponse.refused.values()) - refused == is_counted

    def test_what_a_callee_decided_is_not_read_where_that_is_switched_off(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        deciding = Deciding()
        spans.provider.add_span_processor(deciding)
        instrument(self.plugin, traceresponse="never")
        self.call(f"{server.url}/decided/kept")
        assert deciding.asked == []

    def test_what_a_callee_decided_is_not_read_without_a_tail_sampler(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        refused = sum(_traceresponse.refused.values())
        assert self.call(f"{server.url}/decided/garbage").body == b"ok"
        assert sum(_traceresponse.refused.values()) == refused

    # One span for each attempt

    def test_each_redirect_is_a_span_beside_the_first(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        with spans.tracer.start_as_current_span("parent") as parent:
            assert self.call(f"{server.url}/redirect/2").status == 200
        assert resends(spans) == [None, 1, 2]
        assert {parent_id(span) for span in spans.watched} == {parent.get_span_context().span_id}
        assert injected(server) == [ids(span) for span in spans.watched]

    def test_answered_challenge_is_a_resend(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        with spans.tracer.start_as_current_span("parent"):
            assert self.call_with_digest(f"{server.url}/challenge").status == 200
        assert resends(spans) == [None, 1]
        assert [(s.attributes or {})["http.response.status_code"] for s in spans.watched] == [
            401,
            200,
        ]
        assert len({parent_id(span) for span in spans.watched}) == 1
        assert injected(server) == [ids(span) for span in spans.watched]

    def test_calls_one_after_the_other_are_no_resends(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        self.call(f"{server.url}/ok")
        self.call(f"{server.url}/ok")
        assert resends(spans) == [None, None]

    # Failures

    def test_refused_connection_is_the_librarys_error(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        error = attempt(lambda: self.call("http://127.0.0.1:1/"))
        assert_failed(spans.one(), error, self.connect_error)

    def test_unknown_host_is_the_librarys_error(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        error = attempt(lambda: self.call("http://no-such-host.invalid/"))
        assert_failed(spans.one(), error, self.unknown_host_error or self.connect_error)
        attributes = spans.one().attributes or {}
        assert attributes["server.address"] == "no-such-host.invalid"
        assert attributes["server.port"] == 80

    def test_timeout_is_the_librarys_error(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        error = attempt(lambda: self.call(f"{server.url}/slow", timeout=0.05))
        assert_failed(spans.one(), error, self.timeout_error)

    def test_dropped_connection_is_an_error(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        error = attempt(lambda: self.call(f"{server.url}/dropped"))
        assert len(spans.watched) == self.dropped_attempts
        for span in spans.watched:
            assert_failed(span, error, qualified(error))

    @pytest.mark.parametrize(("path", "timeout"), [("/slow", 0.05), ("/dropped", 5.0)])
    def test_exceptions_are_those_of_the_library_alone(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        path: str,
        timeout: float,
    ) -> None:
        alone = attempt(lambda: self.call(server.url + path, timeout=timeout))
        instrument(self.plugin)
        watched = attempt(lambda: self.call(server.url + path, timeout=timeout))
        assert chain(watched) == chain(alone)
        recorded = (spans.watched[-1].events[0].attributes or {})["exception.message"]
        assert recorded == str(watched)

    def test_traceback_ends_where_the_library_raised(
        self, instrument: Instrument, server: LoopbackServer
    ) -> None:
        alone = attempt(lambda: self.call("http://127.0.0.1:1/"))
        instrument(self.plugin)
        watched = attempt(lambda: self.call("http://127.0.0.1:1/"))
        assert innermost(watched) == innermost(alone)

    def test_a_provider_that_raises_does_not_break_the_call(
        self, instrument: Instrument, server: LoopbackServer, caplog: pytest.LogCaptureFixture
    ) -> None:
        instrument(self.plugin, tracer_provider=BrokenProvider())
        assert self.call(f"{server.url}/redirect").status == 200

    @pytest.mark.parametrize("broken", ["set_attributes", "end", "is_recording"])
    def test_a_span_that_raises_does_not_break_the_call(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        monkeypatch: pytest.MonkeyPatch,
        broken: str,
    ) -> None:
        instrument(self.plugin)
        monkeypatch.setattr(f"opentelemetry.sdk.trace.Span.{broken}", raise_error)
        before = otel_context.get_current()
        assert self.call(f"{server.url}/ok").body == b"ok"
        assert otel_context.get_current() is before

    def test_a_propagator_that_raises_does_not_break_the_call(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        instrument(self.plugin)
        monkeypatch.setattr(type(propagate.get_global_textmap()), "inject", raise_error)
        assert self.call(f"{server.url}/ok").body == b"ok"
        assert spans.one().name == "GET"

    # Streams

    def test_streamed_span_ends_when_headers_are_read(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        at_headers: list[int] = []

        def read_headers() -> None:
            at_headers.append(len(spans.watched))
            server.release.set()

        self.stream(f"{server.url}/chunks/3", read_headers)
        assert at_headers == [1]
        assert spans.one().status.status_code is StatusCode.UNSET

    def test_streamed_span_ends_with_the_body_on_request(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin, span_ends="body")
        at_headers: list[int] = []

        def read_headers() -> None:
            at_headers.append(len(spans.watched))
            server.release.set()

        self.stream(f"{server.url}/chunks/3", read_headers)
        assert at_headers == [0]
        assert events(spans.one()) == ["tracekit.body.started"]

    def test_abandoned_stream_ends_its_span(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin, span_ends="body")
        self.stream(f"{server.url}/chunks/3", lambda: None, chunks=1)
        assert events(spans.one()) == ["tracekit.body.started", "tracekit.body.abandoned"]

    def test_body_that_breaks_off_is_an_error(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin, span_ends="body")
        try:
            self.stream(f"{server.url}/broken", lambda: None)
        except Exception:
            assert spans.one().status.status_code is StatusCode.ERROR
        else:
            pytest.skip("this version of the library takes what it gets")

    @pytest.mark.parametrize("path", ["/ok", "/status/204", "/redirect/2"])
    def test_plain_calls_end_with_the_body_too(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        monkeypatch: pytest.MonkeyPatch,
        path: str,
    ) -> None:
        monkeypatch.setenv("TRACEKIT_HTTP_CLIENT_SPAN_ENDS", "body")
        instrument(self.plugin)
        self.call(server.url + path)
        assert len(spans.watched) == len(server.received)
        assert {tuple(events(span)) for span in spans.watched} == {("tracekit.body.started",)}

    # What is left out

    @pytest.mark.parametrize("key", SUPPRESSIONS, ids=lambda key: key.partition("-")[0])
    def test_suppressed_call_has_no_span_and_no_headers(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer, key: str
    ) -> None:
        instrument(self.plugin)
        token = otel_context.attach(otel_context.set_value(key, True))
        try:
            self.call(f"{server.url}/redirect")
        finally:
            otel_context.detach(token)
        assert spans.ended == []
        assert "traceparent" not in server.received[0].headers

    @pytest.mark.parametrize("name", ["OTEL_PYTHON_EXCLUDED_URLS", "OTEL_PYTHON_{}_EXCLUDED_URLS"])
    def test_excluded_url_has_no_span(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
    ) -> None:
        monkeypatch.setenv(name.format(self.plugin.name.upper()), "metrics, ^http://127[^/]*/ok$")
        instrument(self.plugin)
        self.call(f"{server.url}/ok")
        self.call(f"{server.url}/ok/other")
        assert str((spans.one().attributes or {})["url.full"]).endswith("/ok/other")
        assert "traceparent" not in server.received[0].headers

    # Headers and secrets

    def test_headers_are_captured_by_name_and_pattern(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        prefix = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"
        monkeypatch.setenv(f"{prefix}CLIENT_REQUEST", "X-Tenant,authorization,x-private")
        monkeypatch.setenv(f"{prefix}CLIENT_RESPONSE", "x-i.*,Set-.*")
        monkeypatch.setenv(f"{prefix}SANITIZE_FIELDS", "private")
        instrument(self.plugin)
        self.call(
            f"{server.url}/headers/5",
            headers={"x-tenant": "acme", "Authorization": "named", "X-Private": "p"},
        )
        captured = {k: v for k, v in (spans.one().attributes or {}).items() if ".header." in k}
        assert captured == {
            "http.request.header.x-tenant": ("acme",),
            "http.request.header.authorization": ("named",),
            "http.request.header.x-private": ("[REDACTED]",),
            "http.response.header.x-id": ("7",),
            "http.response.header.set-cookie": ("[REDACTED]",),
        }

    def test_long_headers_are_cut(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(
            self.plugin, capture_request_headers=["x-long"], capture_response_headers=["x-long"]
        )
        self.call(f"{server.url}/headers/60000", headers={"x-long": "y" * 60_000})
        attributes: Mapping[str, Any] = spans.one().attributes or {}
        assert [
            len(attributes[f"http.{at}.header.x-long"][0]) for at in ("request", "response")
        ] == [
            4096,
            4096,
        ]

    def test_long_url_is_cut_and_sent_whole(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        self.call(f"{server.url}/ok?q={'x' * 50_000}")
        assert len(str((spans.one().attributes or {})["url.full"])) == 4096
        assert len(server.received[0].path) > 50_000

    def test_secrets_of_a_url_are_not_recorded(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        host = server.url.removeprefix("http://")
        self.call(f"http://amy:pa55word@{host}/ok?access_token=t0ken&sig=s1g&page=2")
        assert (spans.one().attributes or {})["url.full"] == (
            f"http://{self.shown_userinfo}{host}/ok?access_token=REDACTED&sig=REDACTED&page=2"
        )
        assert "access_token=t0ken" in server.received[0].path

    def test_secrets_of_a_url_are_not_recorded_with_its_failure(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        attempt(lambda: self.call("http://amy:pa55word@127.0.0.1:1/?api_key=t0ken&page=2"))
        span = spans.one()
        said = f"{span.status.description} {[dict(e.attributes or {}) for e in span.events]}"
        assert "pa55word" not in said
        # Lines of the test's own source are in the stack trace; the value is in the URL only.
        assert "api_key=t0ken&" not in said.replace('?api_key=t0ken&page=2"))', "")
        assert span.status.status_code is StatusCode.ERROR

    # Hooks

    def test_hooks_see_the_span_and_the_librarys_own_objects(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        seen: list[Any] = []
        instrument(
            self.plugin,
            request_hook=lambda span, request: seen.append((span, str(request.url))),
            response_hook=lambda span, _, response: seen.append((span, self.status_of(response))),
        )
        self.call(f"{server.url}/ok")
        assert [what for _, what in seen] == [f"{server.url}/ok", 200]
        assert seen[0][0] is seen[1][0]

    def test_hooks_that_raise_do_not_break_the_call(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin, request_hook=raise_error, response_hook=raise_error)
        assert self.call(f"{server.url}/ok").body == b"ok"
        assert spans.one().name == "GET"

    # Instrumenting

    def test_client_made_before_is_watched(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        self.call_with_old_client(lambda: void(instrument(self.plugin)), f"{server.url}/ok")
        assert spans.one().name == "GET"

    def test_instrumenting_twice_makes_one_span(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin).instrument(tracer_provider=spans.provider)
        instrument(self.plugin)
        self.call(f"{server.url}/ok")
        assert len(spans.watched) == 1

    def test_uninstrumented_library_is_as_it_was_byte_for_byte(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        before = self.entries()
        instrumentor = instrument(self.plugin, span_ends="body")
        during = self.entries()
        assert any(during[place] is not before[place] for place in before)
        instrumentor.uninstrument()
        after = self.entries()
        assert after.keys() == before.keys()
        assert all(after[place] is before[place] for place in before)

    def test_uninstrumented_library_makes_no_spans(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin).uninstrument()
        assert self.call(f"{server.url}/ok").body == b"ok"
        assert spans.ended == []
        assert "traceparent" not in server.received[0].headers

    def test_uninstrumented_library_can_be_instrumented_again(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrumentor = instrument(self.plugin)
        instrumentor.uninstrument()
        instrumentor.instrument(tracer_provider=spans.provider)
        self.call(f"{server.url}/ok")
        assert spans.one().name == "GET"

    def test_library_that_contrib_watches_is_left_to_it(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        contrib = self.contrib()
        contrib.instrument(tracer_provider=spans.provider)
        try:
            instrumentor = instrument(self.plugin)
            self.call(f"{server.url}/ok")
        finally:
            contrib.uninstrument()
        name = f"opentelemetry-instrumentation-{self.contrib_package or self.plugin.contrib[0]}"
        assert instrumentor.status.reason == f"already instrumented by {name}"
        assert len(spans.watched) == 1

    def test_contrib_put_on_afterwards_makes_no_second_span(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)
        contrib = self.contrib()
        contrib.instrument(tracer_provider=spans.provider)
        try:
            self.call(f"{server.url}/ok")
        finally:
            contrib.uninstrument()
        assert len(spans.watched) == 1

    def test_unknown_option_is_an_error(self, instrument: Instrument) -> None:
        with pytest.raises(TypeError, match=r"has no option 'excluded_ulrs'"):
            instrument(self.plugin, excluded_ulrs="x")

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_order_of_import_and_instrumentation_does_not_matter(
        self, server: LoopbackServer, order: str
    ) -> None:
        program = [
            "from instrumentation.conftest import Spans",
            f"from {self.plugin.__module__} import plugin",
            f"URL = {server.url + '/ok'!r}",
            "spans = Spans()",
        ]
        steps = [
            "plugin().instrument(tracer_provider=spans.provider)",
            f"import {self.library or self.plugin.name}",
        ]
        program += steps if order == "before" else reversed(steps)
        program += [self.program, "print(len(spans.watched), spans.one().name)"]
        assert run("\n".join(textwrap.dedent(line) for line in program)) == "1 GET"

    def test_instrumenting_does_not_import_the_library(self) -> None:
        program = f"""
            import sys
            from {self.plugin.__module__} import plugin
            plugin().instrument()
            print({self.library or self.plugin.name!r} in sys.modules, plugin().status.reason)
        """
        assert run(textwrap.dedent(program)) == "False not instrumented"

    def contrib(self) -> Any:
        name = (self.contrib_package or self.plugin.contrib[0]).replace("-", "_")
        module = importlib.import_module(f"opentelemetry.instrumentation.{name}")
        return getattr(module, self.contrib_class)()

    def entries(self) -> dict[tuple[str, str, str], Any]:
        """Return every entry of every class and module that is patched."""
        instrumentor = self.plugin()
        instrumentor.configure({"span_ends": "body"})
        found: dict[tuple[str, str, str], Any] = {}
        for patch in instrumentor.patches():
            holder: Any = importlib.import_module(patch.module)
            path = patch.attribute.rpartition(".")[0]
            holder = getattr(holder, path, None) if path else holder
            if holder is None:
                assert patch.optional
                continue
            found |= {(patch.module, path, name): entry for name, entry in vars(holder).items()}
        return found


class BrokenProvider(trace.TracerProvider):
    """A provider whose tracer raises."""

    def get_tracer(self, *args: Any, **kwargs: Any) -> trace.Tracer:
        return BrokenTracer()


class BrokenTracer(trace.NoOpTracer):
    def start_span(self, *args: Any, **kwargs: Any) -> trace.Span:
        raise ArithmeticError("broken")


def raise_error(*args: Any, **kwargs: Any) -> Any:
    raise ArithmeticError("broken")


def void(_: object) -> None:
    return None


def attempt(call: Callable[[], Any]) -> BaseException:
    """Return what `call` raises."""
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    return caught.value


def run(program: str) -> str:
    """Run a program of its own and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-W", os.environ.get("PYTHONWARNINGS") or "error", "-c", program],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
    )
    return done.stdout.strip()


def ids(span: ReadableSpan) -> tuple[int, int]:
    return span.context.trace_id, span.context.span_id


@contextlib.contextmanager
def carrying(**entries: str) -> Iterator[None]:
    """Run the block with entries of baggage."""
    context = otel_context.get_current()
    for name, value in entries.items():
        context = baggage.set_baggage(name, value, context)
    token = otel_context.attach(context)
    yield
    otel_context.detach(token)


def baggage_at(server: LoopbackServer) -> list[str | None]:
    """Return the baggage of each request that arrived."""
    return [request.headers.get("baggage") for request in server.received]


def injected(server: LoopbackServer) -> list[tuple[int, int]]:
    """Return trace id and span id of each request that came in."""
    found = []
    for request in server.received:
        _, trace_id, span_id, _ = request.headers["traceparent"].split("-")
        found.append((int(trace_id, 16), int(span_id, 16)))
    return found


def parent_id(span: ReadableSpan) -> int | None:
    return None if span.parent is None else span.parent.span_id


def events(span: ReadableSpan) -> list[str]:
    return [event.name for event in span.events]


def caller_of(span: ReadableSpan) -> tuple[Any, Any]:
    """Return file and line of what a span says of its caller."""
    attributes = span.attributes or {}
    return attributes.get("code.file.path"), attributes.get("code.line.number")


def resends(spans: Spans) -> list[Any]:
    return [(span.attributes or {}).get("http.request.resend_count") for span in spans.watched]


def assert_failed(span: ReadableSpan, error: BaseException, error_type: str) -> None:
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == str(error)
    assert (span.attributes or {})["error.type"] == error_type == qualified(error)
    assert events(span) == ["exception"]


def qualified(error: BaseException) -> str:
    """Return a class's name with its module; builtins go without."""
    name, module = type(error).__qualname__, type(error).__module__
    return name if module == "builtins" else f"{module}.{name}"


def chain(error: BaseException | None) -> list[type[BaseException]]:
    """Return the classes of an exception and of all that led to it."""

    def links() -> Iterator[type[BaseException]]:
        at = error
        while at is not None:
            yield type(at)
            at = at.__cause__ or at.__context__

    return list(links())


def innermost(error: BaseException) -> tuple[str, str]:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return frame.filename, frame.name
