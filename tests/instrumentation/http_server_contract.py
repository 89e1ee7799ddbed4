"""What every HTTP server instrumentation promises, asked over real sockets.

A test file subclasses :class:`HttpServerContract` (a framework: :class:`FrameworkContract`) and
supplies an application with the routes of :class:`Site`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import pytest
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as otel_context
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context
from opentelemetry.propagators.composite import CompositePropagator
from opentelemetry.propagators.textmap import default_getter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.sampling import DEFAULT_ON, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanContext, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from http_servers import (
    PATIENCE_S,
    Client,
    Spans,
    leaving_asgi,
    leaving_wsgi,
    read_until,
    uvicorn_server,
    werkzeug_server,
    within_asgi,
    within_wsgi,
)
from instrumentation.deciding import Deciding
from tracekit.propagators._composite import CompositePropagator as CautiousPropagator
from tracekit.propagators._composite import TrustPolicy
from tracekit.propagators.baggage import BaggagePropagator
from tracekit.propagators.tracecontext import TraceContextPropagator

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
TRACEPARENT = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")
UNSAMPLED = ("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-00")


class Oops(Exception):
    """What the application under test raises."""


class Handled(Exception):
    """What the application has an error handler for, which answers 500."""


class Site:
    """What the application does on each route; an adapter only has to call it.

    ``/items/{id}``: :meth:`item`, with the response header ``X-Reply: yes``
    ``/boom``: :meth:`boom` · ``/handled``: raises Handled · ``/unavailable``: answers 503
    ``/context``: :meth:`context` · ``/baggage``: :meth:`baggage` · ``/meet``: :meth:`meet`
    ``/stream``: the chunks of :meth:`stream`, one by one · ``/endless``: :meth:`endless`
    ``/half``: :meth:`half`
    """

    def __init__(self, provider: Any) -> None:
        self.tracer = provider.get_tracer("program")
        self.gate = threading.Event()
        self.stopped = threading.Event()
        self.meeting = threading.Barrier(4)

    def item(self) -> bytes:
        with self.tracer.start_as_current_span("work"):
            return b"item"

    def boom(self) -> bytes:
        raise Oops("boom")

    def context(self) -> bytes:
        span_context = trace.get_current_span().get_span_context()
        return f"{span_context.trace_id:032x} {span_context.trace_state.to_header()}".encode()

    def baggage(self) -> bytes:
        return str(baggage.get_baggage("user")).encode()

    def meet(self) -> bytes:
        self.meeting.wait(PATIENCE_S)
        return self.item()

    def stream(self) -> Iterator[bytes]:
        yield b"one"
        assert self.gate.wait(PATIENCE_S)
        with self.tracer.start_as_current_span("chunk"):
            chunk = b"two"
        yield chunk
        yield b"three"

    def endless(self) -> Iterator[bytes]:
        try:
            while True:
                yield b"." * 65536
        finally:
            self.stopped.set()

    def half(self) -> Iterator[bytes]:
        yield b"one"
        yield b"two"
        raise Oops("half-way")


class _NotingSampler(Sampler):
    def __init__(self) -> None:
        self.seen: list[tuple[str, dict[str, Any]]] = []

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: Any = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        if kind is SpanKind.SERVER:
            self.seen.append((name, dict(attributes or {})))
        return DEFAULT_ON.should_sample(parent_context, trace_id, name, kind, attributes, links)

    def get_description(self) -> str:
        return "noting"


class _BrokenSpan(trace.NonRecordingSpan):
    def is_recording(self) -> bool:
        return True

    def _fail(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("broken")

    set_attribute = set_attributes = update_name = set_status = record_exception = end = _fail


class _BrokenProvider(trace.TracerProvider):
    """Fail when a span is started, or later in everything that is done with it."""

    def __init__(self, *, late: bool) -> None:
        self._late = late

    def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
        return self

    def start_span(self, *args: Any, **kwargs: Any) -> Any:
        if self._late:
            return _BrokenSpan(SpanContext(1, 2, False))
        raise RuntimeError("broken")


class _OwnHeader(TraceContextTextMapPropagator):
    """A propagator that somebody wrote for a header of their own."""

    def extract(
        self, carrier: Any, context: Context | None = None, getter: Any = default_getter
    ) -> Context:
        (header,) = getter.get(carrier, "x-caller")
        return super().extract({"traceparent": header}, context)


Start = Callable[..., Client]


class HttpServerContract:
    """Hooks first, then the questions."""

    item_route: ClassVar[str | None] = None  # as this library writes the template
    route_of: ClassVar[Callable[[str], str | None]] = staticmethod(lambda path: None)
    is_async: ClassVar[bool] = False
    half_way_error: ClassVar[type[Exception]] = Oops  # what is made of one within a stream
    sees_departures: ClassVar[bool] = True  # where not, the program streams on to nobody
    unknown_method: ClassVar[str] = "BREW"  # one that the server lets through

    def make_app(self, site: Site) -> Any:
        """Return the application, not traced."""
        raise NotImplementedError

    @contextlib.contextmanager
    def watched(self, app: Any, provider: Any, **options: Any) -> Iterator[Any]:
        """Trace `app`; yield what a server is to call."""
        raise NotImplementedError
        yield

    def name_of(self, path: str, method: str = "GET") -> str:
        route = self.route_of(path)
        return f"{method} {route}" if route else method

    # What the questions need.

    @pytest.fixture(autouse=True)
    def propagators(self) -> Iterator[None]:
        before = propagate.get_global_textmap()
        propagate.set_global_textmap(
            CompositePropagator([TraceContextTextMapPropagator(), W3CBaggagePropagator()])
        )
        yield
        propagate.set_global_textmap(before)

    @pytest.fixture(autouse=True)
    def no_complaints(self, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
        """Nothing fails on our side, and no context that OpenTelemetry could not detach."""
        yield
        said = [
            record.getMessage()
            for record in caplog.get_records("call")
            if record.levelno >= logging.WARNING
            and (record.name.startswith("tracekit") or record.name == "opentelemetry.context")
        ]
        assert said == []

    @pytest.fixture
    def spans(self) -> Spans:
        return Spans()

    @pytest.fixture
    def provider(self, spans: Spans) -> TracerProvider:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(spans))
        return provider

    @pytest.fixture
    def site(self, provider: TracerProvider) -> Site:
        return Site(provider)

    @pytest.fixture
    def start(self, provider: TracerProvider, site: Site) -> Iterator[Start]:
        """Return a function that serves the application, watched with the given options."""
        with contextlib.ExitStack() as stack:

            def start(
                outer: Callable[[Any], Any] = lambda app: app,
                tracer_provider: Any = provider,
                times: int = 1,
                **options: Any,
            ) -> Client:
                app = self.make_app(site)
                for _ in range(times):
                    app = stack.enter_context(self.watched(app, tracer_provider, **options))
                return stack.enter_context(self.serve(outer(app)))

            yield start

    # Hooks of what is neither WSGI nor ASGI.

    def serve(self, app: Any) -> AbstractContextManager[Client]:
        return (uvicorn_server if self.is_async else werkzeug_server)(app)

    def within(self, context: Context) -> Callable[[Any], Any]:
        """Return what makes an application run where `context` is current."""
        put = within_asgi if self.is_async else within_wsgi
        return lambda app: put(app, context)

    def leaving(self, left: list[Any]) -> Callable[[Any], Any]:
        """Return what makes an application note the span that is current after a request."""
        put = leaving_asgi if self.is_async else leaving_wsgi
        return lambda app: put(app, left)

    @staticmethod
    def path_of(source: Any) -> Any:
        """Return the path of what a hook is given."""
        return source.get("path") or source.get("PATH_INFO")

    # The span.

    def test_a_request_is_one_server_span(self, start: Start, spans: Spans) -> None:
        answer = start().ask()
        (span,) = spans.server()
        assert answer.body == b"item"
        assert (span.name, span.status.status_code) == (self.name_of("/items/7"), StatusCode.UNSET)
        assert sorted(s.name for s in spans.all()) == sorted([span.name, "work"])

    def test_it_has_the_attributes_of_the_conventions(self, start: Start, spans: Spans) -> None:
        client = start()
        client.ask("/items/7?color=red", headers=[("User-Agent", "probe/1")])
        (span,) = spans.server()
        attributes = dict(span.attributes or {})
        assert isinstance(attributes.pop("network.peer.port", 1), int)
        expected = {
            "http.request.method": "GET",
            "url.path": "/items/7",
            "url.query": "color=red",
            "url.scheme": "http",
            "server.address": "127.0.0.1",
            "server.port": client.port,
            "client.address": "127.0.0.1",
            "network.peer.address": "127.0.0.1",
            "network.protocol.version": "1.1",
            "user_agent.original": "probe/1",
            "http.response.status_code": 200,
        }
        if self.item_route:
            expected["http.route"] = self.item_route
        assert attributes == expected

    def test_a_sampler_is_given_what_is_known_at_the_start(self, start: Start, site: Site) -> None:
        sampler = _NotingSampler()
        client = start(
            tracer_provider=TracerProvider(sampler=sampler, shutdown_on_exit=False),
            capture_request_headers=["x-tenant"],
        )
        client.ask("/items/7?a=1", headers=[("User-Agent", "probe/1"), ("X-Tenant", "acme")])
        ((name, attributes),) = sampler.seen
        attributes.pop("network.peer.port", None)
        attributes["http.request.header.x-tenant"] = [*attributes["http.request.header.x-tenant"]]
        assert name == "GET"
        assert attributes == {
            "http.request.method": "GET",
            "url.path": "/items/7",
            "url.query": "a=1",
            "url.scheme": "http",
            "server.address": "127.0.0.1",
            "server.port": client.port,
            "client.address": "127.0.0.1",
            "network.peer.address": "127.0.0.1",
            "network.protocol.version": "1.1",
            "user_agent.original": "probe/1",
            "http.request.header.x-tenant": ["acme"],
        }

    # The trace.

    def test_the_trace_of_the_caller_is_continued(self, start: Start, spans: Spans) -> None:
        start().ask(headers=[TRACEPARENT])
        (span,) = spans.server()
        assert span.parent is not None
        assert f"{span.parent.trace_id:032x}" == f"{span.context.trace_id:032x}" == TRACE_ID
        assert (f"{span.parent.span_id:016x}", span.parent.is_remote) == (SPAN_ID, True)

    def test_our_own_propagators_find_what_was_sent(self, start: Start, spans: Spans) -> None:
        # They name their headers, and are not asked about requests that have none of them.
        propagate.set_global_textmap(
            CautiousPropagator([TraceContextPropagator(), BaggagePropagator()])
        )
        client = start()
        client.ask()
        laden = client.ask("/baggage", headers=[("Baggage", "user=amy")])
        client.ask(headers=[("Traceparent", TRACEPARENT[1])])
        nothing, baggage_only, continued = spans.server(3)
        assert (laden.body, nothing.parent, baggage_only.parent) == (b"amy", None, None)
        assert f"{continued.context.trace_id:032x}" == TRACE_ID

    def test_a_propagator_is_asked_about_each_request_from_when_it_is_set(
        self, start: Start, spans: Spans
    ) -> None:
        propagate.set_global_textmap(CautiousPropagator([TraceContextPropagator()]))
        client = start()
        client.ask(headers=[("x-caller", TRACEPARENT[1])])
        propagate.set_global_textmap(_OwnHeader())
        client.ask(headers=[("x-caller", TRACEPARENT[1])])
        before, since = spans.server(2)
        assert before.parent is None
        assert f"{since.context.trace_id:032x}" == TRACE_ID

    # Whom to trust.

    @pytest.mark.parametrize("caller", [TRACEPARENT, UNSAMPLED])
    def test_an_untrusted_caller_gets_a_new_trace_with_a_link_to_its_own(
        self, start: Start, spans: Spans, caller: tuple[str, str]
    ) -> None:
        answer = start(trust="link").ask("/baggage", headers=[caller, ("baggage", "user=eve")])
        (span,) = spans.server()
        (link,) = span.links
        assert span.parent is None
        assert f"{span.context.trace_id:032x}" != TRACE_ID
        assert (f"{link.context.trace_id:032x}", f"{link.context.span_id:016x}") == (
            TRACE_ID,
            SPAN_ID,
        )
        assert answer.body == b"None"

    def test_an_ignored_caller_leaves_no_trace(self, start: Start, spans: Spans) -> None:
        answer = start(trust="ignore").ask("/baggage", headers=[TRACEPARENT, ("baggage", "user=e")])
        (span,) = spans.server()
        assert (span.parent, list(span.links), answer.body) == (None, [], b"None")

    @pytest.mark.parametrize(
        ("rules", "is_trusted"),
        [
            ("link route=/public/*", True),
            ("link route=/items/*", False),
            ("trust host=inner.test; link", True),
            ("trust host=*.example.com; link", False),
            ("trust network.peer.address=127.0.0.*; link", True),
            ("trust network.peer.address=10.*; link", False),
            ("trust http.request.header.x-edge=yes; ignore", True),
            ("trust http.request.header.x-edge=no; ignore", False),
            ("link method=POST kind=server", True),
        ],
    )
    def test_rules_say_whom_to_trust(
        self, start: Start, spans: Spans, rules: str, is_trusted: bool
    ) -> None:
        start(trust=rules).ask(headers=[TRACEPARENT, ("Host", "inner.test"), ("X-Edge", "yes")])
        (span,) = spans.server()
        assert (f"{span.context.trace_id:032x}" == TRACE_ID) is is_trusted

    def test_rules_of_trust_come_from_the_environment_too(
        self, start: Start, spans: Spans, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("TRACEKIT_TRUST", "link")
        start().ask(headers=[TRACEPARENT])
        (span,) = spans.server()
        assert len(span.links) == 1

    def test_a_caller_that_a_propagator_does_not_trust_is_linked_to(
        self, start: Start, spans: Spans
    ) -> None:
        propagate.set_global_textmap(
            CautiousPropagator([TraceContextTextMapPropagator()], trust=TrustPolicy())
        )
        start().ask(headers=[TRACEPARENT])
        (span,) = spans.server()
        (link,) = span.links
        assert (span.parent, f"{link.context.trace_id:032x}") == (None, TRACE_ID)

    # What is decided about the trace.

    def test_a_caller_is_told_nothing_without_a_tail_sampler(self, start: Start) -> None:
        answer = start().ask(headers=[TRACEPARENT])
        assert answer.headers.keys().isdisjoint(("traceresponse", "tracekit-kept"))

    @pytest.mark.parametrize("kept", [False, True])
    @pytest.mark.parametrize("options", [{}, {"server_response_hook": lambda *_: None}])
    def test_a_caller_is_told_whether_the_trace_is_kept(
        self, start: Start, spans: Spans, provider: TracerProvider, kept: bool, options: Any
    ) -> None:
        provider.add_span_processor(Deciding(kept))
        answer = start(**options).ask(headers=[TRACEPARENT])
        (span,) = spans.server()
        ids = f"{TRACE_ID}-{span.context.span_id:016x}"
        assert answer.headers["traceresponse"] == f"00-{ids}-{'01' if kept else '00'}"
        assert answer.headers.get("tracekit-kept") == ("1" if kept else None)
        assert answer.headers["x-reply"] == "yes"

    def test_an_error_status_is_told_with_the_response_that_says_it(
        self, start: Start, provider: TracerProvider
    ) -> None:
        provider.add_span_processor(Deciding())
        answer = start().ask("/unavailable", headers=[TRACEPARENT])
        assert (answer.status, answer.headers["tracekit-kept"]) == (503, "1")

    def test_nobody_is_told_who_has_no_part_in_the_trace(
        self, start: Start, provider: TracerProvider
    ) -> None:
        provider.add_span_processor(Deciding(kept=True))
        answer = start().ask()
        assert answer.headers.keys().isdisjoint(("traceresponse", "tracekit-kept"))

    def test_an_untrusted_caller_is_told_nothing(
        self, start: Start, provider: TracerProvider
    ) -> None:
        provider.add_span_processor(Deciding(kept=True))
        answer = start(trust="link").ask(headers=[TRACEPARENT])
        assert answer.headers.keys().isdisjoint(("traceresponse", "tracekit-kept"))

    def test_everybody_is_told_where_that_is_asked_for(self, start: Start, spans: Spans) -> None:
        answer = start(traceresponse="always").ask()
        (span,) = spans.server()
        ids = f"{span.context.trace_id:032x}-{span.context.span_id:016x}"
        assert answer.headers["traceresponse"] == f"00-{ids}-01"

    def test_nobody_is_told_where_that_is_switched_off(
        self, start: Start, provider: TracerProvider
    ) -> None:
        provider.add_span_processor(Deciding(kept=True))
        answer = start(traceresponse="never").ask(headers=[TRACEPARENT])
        assert "traceresponse" not in answer.headers

    def test_a_caller_without_a_trace_gets_a_new_one(self, start: Start, spans: Spans) -> None:
        client = start()
        client.ask()
        client.ask()
        first, second = spans.server(2)
        assert first.parent is second.parent is None
        assert first.context.trace_id != second.context.trace_id

    @pytest.mark.parametrize(
        "value",
        ["", "garbage", f"00-{'0' * 32}-{SPAN_ID}-01", f"ff-{TRACE_ID}-{SPAN_ID}-01", b"\xff\xfe"],
    )
    def test_a_trace_parent_that_is_none_gives_a_new_trace(
        self, start: Start, spans: Spans, value: str | bytes
    ) -> None:
        assert start().ask(headers=[("traceparent", value)]).status == 200
        (span,) = spans.server()
        assert span.parent is None

    def test_the_trace_state_is_kept(self, start: Start, spans: Spans) -> None:
        answer = start().ask("/context", headers=[TRACEPARENT, ("tracestate", "vendor=1,b=2")])
        assert answer.body.decode() == f"{TRACE_ID} vendor=1,b=2"

    def test_baggage_is_there_for_the_program(self, start: Start) -> None:
        assert start().ask("/baggage", headers=[("baggage", "user=ada")]).body == b"ada"

    def test_spans_of_the_program_are_children(self, start: Start, spans: Spans) -> None:
        start().ask(headers=[TRACEPARENT])
        (span,) = spans.server()
        (work,) = spans.named("work")
        assert work.parent is not None
        assert work.parent.span_id == span.context.span_id

    def test_requests_at_once_keep_their_own_parents(
        self, start: Start, site: Site, spans: Spans
    ) -> None:
        client = start()
        parents = [f"{number:032x}" for number in range(1, site.meeting.parties + 1)]
        with ThreadPoolExecutor(len(parents)) as pool:
            list(
                pool.map(
                    lambda trace_id: client.ask(
                        "/meet", headers=[("traceparent", f"00-{trace_id}-{SPAN_ID}-01")]
                    ),
                    parents,
                )
            )
        servers = {s.context.trace_id: s.context.span_id for s in spans.server(len(parents))}
        workers = {
            s.context.trace_id: s.parent and s.parent.span_id
            for s in spans.named("work", len(parents))
        }
        assert servers == workers
        assert {f"{trace_id:032x}" for trace_id in servers} == set(parents)

    def test_nothing_is_current_after_the_request(self, start: Start, spans: Spans) -> None:
        left: list[Any] = []
        client = start(outer=self.leaving(left))
        client.ask()
        client.ask("/boom")
        spans.server(2)
        assert left
        assert {span.get_span_context().is_valid for span in left} == {False}

    def test_a_program_that_calls_the_application_itself_is_the_parent(
        self, start: Start, spans: Spans, provider: TracerProvider
    ) -> None:
        outer = provider.get_tracer("outer").start_span("outer")
        start(outer=self.within(trace.set_span_in_context(outer))).ask()
        (span,) = spans.server()
        assert span.parent is not None
        assert span.parent.span_id == outer.get_span_context().span_id

    # Outcomes.

    def test_what_is_not_found_is_named_for_the_method_alone(
        self, start: Start, spans: Spans
    ) -> None:
        assert start().ask("/nowhere/1234").status == 404
        (span,) = spans.server()
        assert (span.name, span.status.status_code) == ("GET", StatusCode.UNSET)
        assert "error.type" not in (span.attributes or {})
        assert (span.attributes or {})["http.response.status_code"] == 404

    def test_an_exception_is_recorded_once(self, start: Start, spans: Spans) -> None:
        assert start().ask("/boom").status == 500
        (span,) = spans.server()
        self._assert_failed(span, Oops)
        assert (span.attributes or {})["http.response.status_code"] == 500

    def test_a_server_error_without_an_exception_is_an_error(
        self, start: Start, spans: Spans
    ) -> None:
        assert start().ask("/unavailable").status == 503
        (span,) = spans.server()
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "503"
        assert span.events == ()

    def _assert_failed(self, span: ReadableSpan, cls: type[Exception]) -> None:
        name = f"{cls.__module__}.{cls.__qualname__}"
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == name
        assert [(e.attributes or {})["exception.type"] for e in span.events] == [name]

    @pytest.mark.parametrize("method", ["HEAD", "OPTIONS", "POST", "DELETE"])
    def test_each_known_method_is_itself(self, start: Start, spans: Spans, method: str) -> None:
        start().ask(method=method)
        (span,) = spans.server()
        assert (span.attributes or {})["http.request.method"] == method
        assert span.name.split()[0] == method

    def test_an_answer_to_head_is_not_abandoned(self, start: Start, spans: Spans) -> None:
        assert start().ask(method="HEAD").body == b""
        (span,) = spans.server()
        assert "tracekit.abandoned" not in (span.attributes or {})

    def test_an_unknown_method_is_other(self, start: Start, spans: Spans) -> None:
        start().ask("/nowhere", method=self.unknown_method)
        (span,) = spans.server()
        attributes = span.attributes or {}
        assert span.name == "HTTP"
        assert attributes["http.request.method"] == "_OTHER"
        assert attributes["http.request.method_original"] == self.unknown_method

    # Streams.

    def test_the_span_lasts_as_long_as_the_stream(
        self, start: Start, site: Site, spans: Spans
    ) -> None:
        with start().open("/stream") as connection:
            read_until(connection, b"one")
            assert [s for s in spans.all() if s.kind is SpanKind.SERVER] == []
            site.gate.set()
            while connection.recv(65536):
                pass
        (span,) = spans.server()
        (chunk,) = spans.named("chunk")
        assert (span.end_time or 0) >= (chunk.end_time or 0)
        assert chunk.parent is not None
        assert chunk.parent.span_id == span.context.span_id
        assert (span.attributes or {}).get("tracekit.abandoned") is None

    def test_a_stream_is_measured(self, start: Start, site: Site, spans: Spans) -> None:
        site.gate.set()
        start().ask("/stream")
        (span,) = spans.server()
        attributes = dict(span.attributes or {})
        assert attributes["tracekit.response.body_bytes"] == len(b"onetwothree")
        assert attributes["tracekit.response.body_chunks"] in (3, 4)  # one may be empty
        first: Any = attributes["tracekit.response.first_byte_s"]
        assert 0 < first <= ((span.end_time or 0) - (span.start_time or 0)) / 1e9 + 0.001

    def test_a_client_that_goes_away_ends_the_span(
        self, start: Start, site: Site, spans: Spans
    ) -> None:
        if not self.sees_departures:
            pytest.skip("the framework does not look whether its client is there")
        with start().open("/endless") as connection:
            read_until(connection, b"....")
        (span,) = spans.server()
        assert site.stopped.wait(PATIENCE_S)
        assert (span.attributes or {})["tracekit.abandoned"] is True
        assert (span.status.status_code, span.events) == (StatusCode.UNSET, ())

    def test_an_exception_half_way_through_a_stream_is_recorded(
        self, start: Start, spans: Spans
    ) -> None:
        start().ask("/half")
        (span,) = spans.server()
        self._assert_failed(span, self.half_way_error)
        assert (span.attributes or {})["http.response.status_code"] == 200

    # Secrets, headers, proxies.

    def test_secrets_in_the_query_are_redacted(self, start: Start, spans: Spans) -> None:
        start().ask("/items/7?a=1&sig=s3cret&X-Amz-Signature=s3cret")
        (span,) = spans.server()
        query = (span.attributes or {})["url.query"]
        assert query == "a=1&sig=REDACTED&X-Amz-Signature=REDACTED"

    def test_headers_are_captured_on_request(self, start: Start, spans: Spans) -> None:
        client = start(capture_request_headers="X-Tenant", capture_response_headers="x-reply")
        client.ask(headers=[("X-Tenant", "acme"), ("X-Other", "no")])
        (span,) = spans.server()
        captured = {k: v for k, v in (span.attributes or {}).items() if ".header." in k}
        assert captured == {
            "http.request.header.x-tenant": ("acme",),
            "http.response.header.x-reply": ("yes",),
        }

    def test_headers_are_captured_as_the_environment_says(self, start: Start, spans: Spans) -> None:
        # Put back by the `isolated` fixture.
        os.environ["OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"] = "x-tenant"
        start().ask(headers=[("X-Tenant", "acme")])
        (span,) = spans.server()
        assert (span.attributes or {})["http.request.header.x-tenant"] == ("acme",)

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            (
                [
                    ("Forwarded", 'for="[2001:db8::1]:4711";proto=https;host=shop.example, for=x'),
                    ("X-Forwarded-For", "10.9.9.9"),
                ],
                ("2001:db8::1", "https", "shop.example", 443),
            ),
            (
                [
                    ("X-Forwarded-For", "203.0.113.7:99, 10.0.0.1"),
                    ("X-Forwarded-Proto", "https"),
                    ("X-Forwarded-Host", "shop.example:8443, inner"),
                ],
                ("203.0.113.7", "https", "shop.example", 8443),
            ),
            ([("Host", "shop.example")], ("127.0.0.1", "http", "shop.example", 80)),
            ([("Host", "[::1]:8080")], ("127.0.0.1", "http", "::1", 8080)),
        ],
    )
    def test_it_is_seen_who_asked_and_for_whom(
        self,
        start: Start,
        spans: Spans,
        headers: Sequence[tuple[str, str]],
        expected: tuple[Any, ...],
    ) -> None:
        start().ask(headers=headers)
        (span,) = spans.server()
        names = ("client.address", "url.scheme", "server.address", "server.port")
        assert tuple((span.attributes or {}).get(name) for name in names) == expected
        assert (span.attributes or {})["network.peer.address"] == "127.0.0.1"

    @pytest.mark.parametrize(
        "header",
        [
            ("Forwarded", "for=" + "a;" * 10_000),
            ("Forwarded", 'for="'),
            ("X-Forwarded-For", "x" * 20_000),
            ("X-Forwarded-Host", "h" * 20_000),
            ("X-Forwarded-Proto", "javascript"),
            ("X-Forwarded-Host", "shop:99999999"),
            ("X-Forwarded-Host", "shop:\u00b2"),
            ("User-Agent", "u" * 50_000),
            ("User-Agent", b"\xff\x80\xe4"),
            ("tracestate", "," * 20_000),
            ("baggage", "%" * 20_000),
        ],
        ids=lambda header: f"{header[0]}-{len(header[1])}",
    )
    def test_hostile_headers_are_bounded_and_harmless(
        self, start: Start, spans: Spans, header: tuple[str, str | bytes]
    ) -> None:
        answer = start().ask(headers=[header, TRACEPARENT])
        assert (answer.status, answer.body) == (200, b"item")
        (span,) = spans.server()
        attributes = span.attributes or {}
        assert max(len(str(value)) for value in attributes.values()) <= 4096
        assert attributes["url.scheme"] == "http"
        assert f"{span.context.trace_id:032x}" == TRACE_ID

    # Left alone.

    def test_an_excluded_url_is_not_traced(self, start: Start, spans: Spans) -> None:
        client = start(excluded_urls="/items/[0-9],health")
        client.ask("/items/7")
        client.ask("/context")
        (span,) = spans.server()
        assert (span.attributes or {})["url.path"] == "/context"
        (work,) = spans.named("work")
        assert work.parent is None

    def test_a_request_is_not_traced_where_that_is_suppressed(
        self, start: Start, spans: Spans
    ) -> None:
        suppressed = otel_context.set_value("suppress_instrumentation", True)
        start(outer=self.within(suppressed)).ask()
        spans.named("work")
        assert [span.name for span in spans.all()] == ["work"]

    def test_below_an_unsampled_parent_nothing_is_recorded(
        self, start: Start, spans: Spans
    ) -> None:
        client = start()
        assert client.ask("/items/1", headers=[UNSAMPLED]).body == b"item"
        assert client.ask("/boom", headers=[UNSAMPLED]).status == 500
        client.ask("/items/2")
        (span,) = spans.server()
        assert (span.attributes or {})["url.path"] == "/items/2"
        assert len(spans.named("work")) == 1

    @pytest.mark.parametrize("late", [False, True])
    def test_a_broken_provider_does_not_break_the_response(
        self, start: Start, late: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        client = start(tracer_provider=_BrokenProvider(late=late), server_request_hook=_broken)
        assert client.ask().body == b"item"
        assert client.ask("/boom").status == 500
        assert client.ask("/half").status == 200
        caplog.clear()  # it is said that it is broken

    def test_watched_twice_it_is_still_one_span(self, start: Start, spans: Spans) -> None:
        client = start(times=2)
        client.ask("/items/1")
        client.ask("/items/2")
        assert len(spans.server(2)) == 2

    # Extensions.

    def test_hooks_see_the_span_and_the_request(self, start: Start, spans: Spans) -> None:
        def asked(span: Any, source: Any) -> None:
            span.set_attribute("hook.path", self.path_of(source))

        def answered(span: Any, status: int, headers: Any) -> None:
            span.set_attribute("hook.status", status)

        start(server_request_hook=asked, server_response_hook=answered).ask()
        (span,) = spans.server()
        attributes = span.attributes or {}
        assert (attributes["hook.path"], attributes["hook.status"]) == ("/items/7", 200)

    def test_links_come_from_the_extracted_context(self, start: Start, spans: Spans) -> None:
        def links(context: Context) -> list[Link]:
            return [Link(trace.get_current_span(context).get_span_context(), {"refused": True})]

        start(links=links).ask(headers=[TRACEPARENT])
        (span,) = spans.server()
        assert [f"{link.context.trace_id:032x}" for link in span.links] == [TRACE_ID]

    def test_old_names_are_written_beside_the_new_on_request(
        self, start: Start, spans: Spans
    ) -> None:
        os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http/dup"
        start().ask("/items/7?a=1")
        (span,) = spans.server()
        attributes = span.attributes or {}
        assert attributes["http.method"] == attributes["http.request.method"] == "GET"
        assert (attributes["http.target"], attributes["http.status_code"]) == ("/items/7?a=1", 200)


def signature_of(entry: Any) -> Any:
    try:
        return inspect.signature(entry)
    except (TypeError, ValueError):
        return None


def wrapper_of(module: str, wrapped: Any) -> Any:
    """Return what another tracer's code, of that module, puts around a function."""
    kind, wait = ("async ", "await ") if inspect.iscoroutinefunction(wrapped) else ("", "")
    code = f"""
def wrap(wrapped):
    @functools.wraps(wrapped)
    {kind}def wrapper(instance, first, *args, **kwargs):
        return {wait}wrapped(instance, first, *args, **kwargs)
    return wrapper
"""
    code_globals: dict[str, Any] = {"__name__": module, "functools": functools}
    exec(code, code_globals)
    return code_globals["wrap"](wrapped)


def _broken(*args: Any) -> None:
    raise RuntimeError("broken")


class FrameworkContract(HttpServerContract):
    """Promises of what patches a library."""

    plugin: ClassVar[type[Any]]
    contrib_class: ClassVar[str]

    def patched(self) -> list[tuple[Any, str]]:
        """Return the classes and names that are patched."""
        raise NotImplementedError

    @contextlib.contextmanager
    def watched(self, app: Any, provider: Any, **options: Any) -> Iterator[Any]:
        instrumentor = self.plugin()
        instrumentor.instrument(tracer_provider=provider, **options)
        assert instrumentor.status.active, instrumentor.status.reason
        try:
            yield app
        finally:
            instrumentor.uninstrument()

    def test_an_exception_that_the_program_answers_is_recorded(
        self, start: Start, spans: Spans
    ) -> None:
        answer = start().ask("/handled")
        assert (answer.status, answer.body) == (500, b"handled")
        (span,) = spans.server()
        self._assert_failed(span, Handled)

    @pytest.mark.filterwarnings("ignore:Inheritance:DeprecationWarning")  # of aiohttp, at contrib
    def test_a_library_that_contrib_watches_is_left_to_it(
        self, provider: TracerProvider, caplog: pytest.LogCaptureFixture
    ) -> None:
        name = self.plugin.contrib[0]
        module = importlib.import_module(f"opentelemetry.instrumentation.{name.replace('-', '_')}")
        contrib = getattr(module, self.contrib_class)()
        before = [vars(holder).get(name) for holder, name in self.patched()]
        contrib.instrument(tracer_provider=provider)
        try:
            instrumentor = self.plugin()
            instrumentor.instrument(tracer_provider=provider)
            reason = instrumentor.status.reason
        finally:
            contrib.uninstrument()
        assert reason == f"already instrumented by opentelemetry-instrumentation-{name}"
        assert before == [vars(holder).get(name) for holder, name in self.patched()]
        caplog.clear()  # it is said, once

    @pytest.mark.parametrize(
        ("tracer", "name"),
        [("sentry_sdk.integrations.x", "sentry-sdk"), ("ddtrace.contrib.x", "ddtrace")],
    )
    def test_a_library_that_somebody_else_watches_is_left_alone(
        self,
        provider: TracerProvider,
        site: Site,
        spans: Spans,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        tracer: str,
        name: str,
    ) -> None:
        holder, attribute = self.patched()[0]
        monkeypatch.setattr(holder, attribute, wrapper_of(tracer, vars(holder)[attribute]))
        before = [vars(holder).get(name) for holder, name in self.patched()]
        instrumentor = self.plugin()
        instrumentor.instrument(tracer_provider=provider)
        assert instrumentor.status.reason == f"already instrumented by {name}"
        assert before == [vars(holder).get(name) for holder, name in self.patched()]
        with self.serve(self.make_app(site)) as client:
            assert client.ask().body == b"item"
        assert [span.name for span in spans.all()] == ["work"]
        caplog.clear()  # it is said, once

    def test_an_unsupported_version_is_left_alone_and_said_once(
        self,
        provider: TracerProvider,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        before = [vars(holder).get(name) for holder, name in self.patched()]
        monkeypatch.setattr(self.plugin, "supported", ">=99")
        instrumentor = self.plugin()
        instrumentor.instrument(tracer_provider=provider)
        instrumentor.instrument(tracer_provider=provider)
        assert instrumentor.status.reason.endswith("is not supported (>=99)")
        assert before == [vars(holder).get(name) for holder, name in self.patched()]
        said = [record for record in caplog.records if "does not instrument" in record.message]
        assert len(said) == 1
        caplog.clear()

    def test_uninstrumented_it_is_as_before(
        self, provider: TracerProvider, site: Site, spans: Spans
    ) -> None:
        before = [vars(holder).get(name) for holder, name in self.patched()]
        app = self.make_app(site)
        inherited = [inspect.getattr_static(holder, name) for holder, name in self.patched()]
        signatures = [str(signature_of(entry)) for entry in inherited]
        with self.watched(app, provider):
            during = [vars(holder).get(name) for holder, name in self.patched()]
            assert [str(signature_of(entry)) for entry in during] == signatures
        assert not any(a is b for a, b in zip(during, before, strict=True))
        after = [vars(holder).get(name) for holder, name in self.patched()]
        assert all(a is b for a, b in zip(after, before, strict=True))
        with self.serve(app) as client:
            assert client.ask().body == b"item"
        assert [span.name for span in spans.all()] == ["work"]
