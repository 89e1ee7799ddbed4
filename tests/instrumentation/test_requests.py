"""requests is watched as every HTTP client is, down to the retries inside urllib3."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, NamedTuple

import pytest
import requests
import requests_mock
import responses
from opentelemetry import trace
from opentelemetry.trace import StatusCode
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import HTTPDigestAuth
from requests.structures import CaseInsensitiveDict
from urllib3.connection import HTTPConnection
from urllib3.util import Retry, Timeout

from instrumentation.conftest import Instrument, LoopbackServer, Spans
from instrumentation.http_client_contract import (
    Answer,
    HttpClientContract,
    attempt,
    ids,
    injected,
    parent_id,
    resends,
)
from tracekit.instrumentation.requests import RequestsInstrumentor


class TestRequests(HttpClientContract):
    plugin = RequestsInstrumentor
    contrib_class = "RequestsInstrumentor"
    timeouts: ClassVar = {"tracekit.timeout.connect_s": 5.0, "tracekit.timeout.read_s": 5.0}
    timeout_error = "requests.exceptions.ReadTimeout"
    connect_error = "requests.exceptions.ConnectionError"
    program = "requests.get(URL)"

    def call(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Answer:
        response = requests.request(method, url, headers=headers, timeout=timeout)
        return Answer(response.status_code, response.content)

    def call_with_old_client(self, before: Callable[[], None], url: str) -> Answer:
        with requests.Session() as session:
            before()
            return answer(session.get(url))

    def call_with_digest(self, url: str) -> Answer:
        return answer(requests.get(url, auth=HTTPDigestAuth("amy", "secret")))

    def stream(self, url: str, at_headers: Callable[[], None], chunks: int | None = None) -> None:
        with requests.get(url, stream=True) as response:
            at_headers()
            for number, _ in enumerate(response.iter_content(4), 1):
                if number == chunks:
                    return

    def call_together(
        self, count: int, url: str, under: Callable[[int], AbstractContextManager[Any]]
    ) -> None:
        def call(number: int) -> None:
            with under(number):
                self.call(f"{url}/{number}")

        threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def answer(response: requests.Response) -> Answer:
    return Answer(response.status_code, response.content)


def retrying(retry: Retry) -> requests.Session:
    session = requests.Session()
    session.mount("http://", HTTPAdapter(max_retries=retry))
    return session


@pytest.fixture
def watched(instrument: Instrument) -> RequestsInstrumentor:
    instrumentor = instrument(RequestsInstrumentor)
    assert isinstance(instrumentor, RequestsInstrumentor)
    return instrumentor


@pytest.mark.usefixtures("watched")
class TestRetries:
    def test_each_retry_is_a_span_beside_the_first(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with (
            spans.tracer.start_as_current_span("parent") as parent,
            retrying(Retry(5, status_forcelist=[503])) as session,
        ):
            assert session.get(f"{server.url}/flaky/2").status_code == 200
        assert resends(spans) == [None, 1, 2]
        assert [(s.attributes or {})["http.response.status_code"] for s in spans.watched] == [
            503,
            503,
            200,
        ]
        assert {parent_id(span) for span in spans.watched} == {parent.get_span_context().span_id}
        assert injected(server) == [ids(span) for span in spans.watched]

    def test_attempts_do_not_overlap(self, spans: Spans, server: LoopbackServer) -> None:
        with retrying(Retry(5, status_forcelist=[503], backoff_factor=0.01)) as session:
            session.get(f"{server.url}/flaky/3")
        for first, second in zip(spans.watched, spans.watched[1:], strict=False):
            assert (first.end_time or 0) <= (second.start_time or 0)

    def test_retried_connection_errors_have_their_own_type(self, spans: Spans) -> None:
        with retrying(Retry(2, backoff_factor=0)) as session:
            error = attempt(lambda: session.get("http://127.0.0.1:1/"))
        assert isinstance(error, requests.exceptions.ConnectionError)
        assert [(s.attributes or {})["error.type"] for s in spans.watched] == [
            "urllib3.exceptions.NewConnectionError",
            "urllib3.exceptions.NewConnectionError",
            "requests.exceptions.ConnectionError",
        ]

    def test_exhausted_retries_keep_the_status_of_the_last(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with retrying(Retry(1, status_forcelist=[503])) as session:
            attempt(lambda: session.get(f"{server.url}/flaky/9"))
        last = spans.watched[-1].attributes or {}
        assert last["http.response.status_code"] == 503
        assert last["error.type"] == "requests.exceptions.RetryError"
        assert len(spans.watched) == len(server.received) == 2

    def test_headers_of_the_prepared_request_are_those_of_the_first_attempt(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with retrying(Retry(5, status_forcelist=[503])) as session:
            response = session.get(f"{server.url}/flaky/1")
        first = spans.watched[0].context
        assert f"{first.span_id:016x}" in response.request.headers["traceparent"]


@pytest.mark.usefixtures("watched")
class TestAdapters:
    def test_mock_adapter_still_has_a_span(self, spans: Spans) -> None:
        adapter = requests_mock.Adapter()
        adapter.register_uri("GET", "mock://shop/cart", text="mocked")
        with requests.Session() as session:
            session.mount("mock://", adapter)
            assert session.get("mock://shop/cart").text == "mocked"
        attributes = spans.one().attributes or {}
        assert attributes["http.response.status_code"] == 200
        assert "server.port" not in attributes

    def test_library_that_replaces_the_adapters_send_still_has_spans(self, spans: Spans) -> None:
        with responses.RequestsMock() as mock:
            mock.get("http://shop/cart", status=302, headers={"Location": "http://shop/new"})
            mock.get("http://shop/new", body="mocked")
            assert requests.get("http://shop/cart").text == "mocked"
        assert resends(spans) == [None, 1]

    def test_adapter_used_without_a_session_has_a_span(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        adapter = HTTPAdapter()
        prepared = requests.Request("GET", f"{server.url}/ok").prepare()
        assert adapter.send(prepared).content == b"ok"
        adapter.close()
        assert injected(server) == [ids(spans.one())]

    def test_subclass_of_session_that_overrides_send_has_one_span(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        class Own(requests.Session):
            def send(self, request: Any, **kwargs: Any) -> requests.Response:
                return super().send(request, **kwargs)

        with Own() as session:
            session.get(f"{server.url}/ok")
        assert spans.one().name == "GET"

    def test_call_made_while_an_adapter_is_at_work_is_a_call_of_its_own(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        class Authenticating(HTTPAdapter):
            def send(self, request: Any, *args: Any, **kwargs: Any) -> requests.Response:
                requests.get(f"{server.url}/token")
                return super().send(request, *args, **kwargs)

        with requests.Session() as session:
            session.mount("http://", Authenticating())
            session.get(f"{server.url}/ok")
        outer, inner = spans.watched
        assert parent_id(inner) == outer.context.span_id
        assert resends(spans) == [None, None]

    def test_server_that_an_adapter_calls_in_process_is_not_suppressed(self, spans: Spans) -> None:
        class InProcess(BaseAdapter):
            def send(self, *args: Any, **kwargs: Any) -> requests.Response:
                self.inside = attempt(lambda: requests.get("http://127.0.0.1:1/"))
                response = requests.Response()
                response.status_code = 200
                return response

            def close(self) -> None: ...

        with requests.Session() as session:
            session.mount("app://", InProcess())
            session.get("app://shop/")
        assert [(s.attributes or {})["server.address"] for s in spans.watched] == [
            "shop",
            "127.0.0.1",
        ]


@pytest.mark.usefixtures("watched")
class TestPeers:
    @pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
    def test_peer_is_the_address_at_the_other_end(
        self, spans: Spans, server: LoopbackServer, host: str
    ) -> None:
        requests.get(f"http://{host}:{server.server_port}/ok")
        attributes = spans.one().attributes or {}
        assert attributes["network.peer.address"] == "127.0.0.1"
        assert attributes["network.peer.port"] == server.server_port

    def test_behind_a_proxy_the_peer_is_the_proxy(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        requests.get("http://192.0.2.1:81/ok", proxies={"http": server.url})
        attributes = spans.one().attributes or {}
        assert attributes["server.address"] == "192.0.2.1"
        assert attributes["network.peer.address"] == "127.0.0.1"


@pytest.mark.usefixtures("watched")
class TestSessions:
    def test_prepared_request_sent_twice_is_two_calls(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        prepared = requests.Request("GET", f"{server.url}/ok").prepare()
        with requests.Session() as session:
            session.send(prepared)
            session.send(prepared)
        assert resends(spans) == [None, None]
        assert injected(server) == [ids(span) for span in spans.watched]

    def test_prepared_request_without_headers_is_sent(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        prepared = requests.PreparedRequest()
        prepared.prepare_method("GET")
        prepared.prepare_url(f"{server.url}/ok", None)
        prepared.hooks = {"response": []}
        with requests.Session() as session:
            assert session.send(prepared).content == b"ok"
        assert injected(server) == [ids(spans.one())]

    def test_request_made_in_a_response_hook_is_a_call_of_its_own(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        def audit(response: requests.Response, **_: Any) -> None:
            session.get(f"{server.url}/audit", allow_redirects=False, hooks={"response": []})

        with requests.Session() as session, spans.tracer.start_as_current_span("parent") as parent:
            session.get(f"{server.url}/redirect", hooks={"response": [audit]})
        assert [
            str((s.attributes or {})["url.full"])[len(server.url) :] for s in spans.watched
        ] == [
            "/redirect",
            "/audit",
            "/ok",
            "/audit",
        ]
        assert resends(spans) == [None, None, 1, None]
        assert {parent_id(span) for span in spans.watched} == {parent.get_span_context().span_id}

    def test_redirect_that_is_not_followed_is_one_span(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        response = requests.get(f"{server.url}/redirect", allow_redirects=False)
        assert response.next is not None
        assert (spans.one().attributes or {})["http.response.status_code"] == 302

    def test_too_many_redirects_leave_no_span_open(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with requests.Session() as session:
            session.max_redirects = 2
            with pytest.raises(requests.TooManyRedirects):
                session.get(f"{server.url}/redirect/9")
        assert len(spans.watched) == len(server.received) == 3

    def test_request_that_was_not_prepared_fails_as_before(self) -> None:
        with requests.Session() as session, pytest.raises(ValueError, match="PreparedRequests"):
            session.send(requests.Request("GET", "http://shop/"))  # type: ignore[arg-type]

    def test_interrupted_call_is_no_error(self, spans: Spans) -> None:
        class Interrupted(BaseAdapter):
            def send(self, *args: Any, **kwargs: Any) -> requests.Response:
                raise KeyboardInterrupt

            def close(self) -> None: ...

        with requests.Session() as session:
            session.mount("http://", Interrupted())
            with pytest.raises(KeyboardInterrupt):
                session.get("http://shop/")
        assert spans.one().status.status_code is StatusCode.UNSET
        assert "error.type" not in (spans.one().attributes or {})

    def test_span_is_current_while_the_request_is_on_its_way(self, spans: Spans) -> None:
        current: list[trace.Span] = []

        class Looking(BaseAdapter):
            def send(self, *args: Any, **kwargs: Any) -> requests.Response:
                current.append(trace.get_current_span())
                raise requests.ConnectionError

            def close(self) -> None: ...

        with requests.Session() as session:
            session.mount("http://", Looking())
            attempt(lambda: session.get("http://shop/"))
        assert current[0].get_span_context() == spans.one().context


class _Pair(NamedTuple):
    """A program's own pair of limits."""

    connect: float
    read: float


class _Seconds(float):
    """A number that is more than one, as numpy's are."""


@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize(
    ("timeout", "expected"),
    [
        (None, {}),
        (2, {"connect_s": 2, "read_s": 2}),
        ((1, None), {"connect_s": 1}),
        ((0.5, 3.0), {"connect_s": 0.5, "read_s": 3.0}),
        (_Pair(0.5, 3.0), {"connect_s": 0.5, "read_s": 3.0}),
        (_Seconds(2.5), {"connect_s": 2.5, "read_s": 2.5}),
        (Timeout(total=4, read=3), {"total_s": 4, "read_s": 3}),
    ],
)
def test_configured_timeouts_are_recorded(
    spans: Spans, server: LoopbackServer, timeout: Any, expected: Mapping[str, float]
) -> None:
    requests.get(f"{server.url}/ok", timeout=timeout)
    attributes = spans.one().attributes or {}
    prefix = "tracekit.timeout."
    found = {k.removeprefix(prefix): v for k, v in attributes.items() if k.startswith(prefix)}
    assert found == expected


def test_a_request_that_the_library_refuses_for_its_timeout_has_a_span_as_well(
    instrument: Instrument, spans: Spans, server: LoopbackServer
) -> None:
    instrument(RequestsInstrumentor)
    with pytest.raises(ValueError, match="Timeout value connect was"):
        requests.get(f"{server.url}/ok", timeout=[1, 2])  # type: ignore[arg-type]
    assert spans.one().status.status_code is StatusCode.ERROR


class _AskingConnection(HTTPConnection):
    """A program's own connection, which asks for a header by another spelling."""

    asked: ClassVar[list[tuple[type, str]]] = []

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        headers: Any = kwargs["headers"]
        self.asked.append((type(headers), headers["USER-agent"]))
        return super().request(method, url, *args, **kwargs)


class _OwnConnections(HTTPAdapter):
    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        pool.ConnectionCls = _AskingConnection
        return pool

    def get_connection(self, *args: Any, **kwargs: Any) -> Any:  # before requests 2.32
        pool: Any = super().get_connection(*args, **kwargs)
        pool.ConnectionCls = _AskingConnection
        return pool


def test_a_connection_class_of_the_programs_gets_the_headers_that_requests_made(
    instrument: Instrument, server: LoopbackServer
) -> None:
    instrument(RequestsInstrumentor)
    _AskingConnection.asked.clear()
    with requests.Session() as session:
        session.mount("http://", _OwnConnections())
        session.get(f"{server.url}/ok", headers={"User-Agent": "me"})
    assert _AskingConnection.asked == [(CaseInsensitiveDict, "me")]


def test_urllib3_sends_the_same_headers_in_the_same_order_as_without_tracing(
    instrument: Instrument, server: LoopbackServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[list[tuple[Any, Any]]] = []
    put, end = HTTPConnection.putheader, HTTPConnection.endheaders

    def putheader(connection: HTTPConnection, *header: Any) -> None:
        sent[-1].append(header)
        put(connection, *header)

    def endheaders(connection: HTTPConnection, *args: Any, **kwargs: Any) -> None:
        end(connection, *args, **kwargs)
        sent.append([])

    monkeypatch.setattr(HTTPConnection, "putheader", putheader)
    monkeypatch.setattr(HTTPConnection, "endheaders", endheaders)
    headers = {"X-One": "1", b"x-two": b"2", "user-agent": "me", "Accept": None}
    for prepare in (lambda: None, lambda: instrument(RequestsInstrumentor)):
        prepare()
        sent.append([])
        requests.post(f"{server.url}/ok", headers=headers, data={"a": "b"})
        sent.pop()
    without, traced = sent
    assert [header for header in traced if header[0] != "traceparent"] == without
    assert len(traced) == len(without) + 1


def test_wait_for_a_free_connection_is_recorded(
    instrument: Instrument, spans: Spans, server: LoopbackServer
) -> None:
    instrument(RequestsInstrumentor)
    session = requests.Session()
    session.mount("http://", HTTPAdapter(pool_connections=1, pool_maxsize=1, pool_block=True))
    held = session.get(f"{server.url}/chunks/2", stream=True)
    waiting = threading.Thread(target=lambda: session.get(f"{server.url}/ok"))
    waiting.start()
    waiting.join(0.5)
    server.release.set()
    assert held.content == b"datadata"
    waiting.join()
    session.close()
    waited = {
        str((s.attributes or {})["url.full"])[len(server.url) :]: (s.attributes or {}).get(
            "tracekit.pool.wait_s", 0.0
        )
        for s in spans.watched
    }
    # Whoever is not run for a while by a busy machine seems to wait as well.
    assert waited["/ok"] >= 0.2 > waited["/chunks/2"]
