"""http.client is watched as every HTTP client is, below urllib and alone; silent below others."""

from __future__ import annotations

import http.client
import socket
import threading
import urllib.error
import urllib.request
import xmlrpc.client
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import pytest
import requests
import urllib3
from opentelemetry import context as otel_context
from opentelemetry.trace import StatusCode

from instrumentation.conftest import Instrument, LoopbackServer, Spans
from instrumentation.http_client_contract import (
    Answer,
    HttpClientContract,
    attempt,
    ids,
    injected,
    qualified,
)
from tracekit.instrumentation.http_client import HttpClientInstrumentor, HttpClientRequest
from tracekit.instrumentation.requests import RequestsInstrumentor
from tracekit.instrumentation.urllib3 import Urllib3Instrumentor


class TestUrllib(HttpClientContract):
    plugin = HttpClientInstrumentor
    contrib_class = "URLLibInstrumentor"
    timeouts: ClassVar = {"tracekit.timeout.connect_s": 5.0, "tracekit.timeout.read_s": 5.0}
    timeout_error = "TimeoutError"
    connect_error = "urllib.error.URLError"
    program = "urllib.request.urlopen(URL)"
    library = "urllib.request"
    shown_userinfo = ""

    @staticmethod
    def status_of(response: Any) -> int:
        return response.status  # type: ignore[no-any-return]

    def call(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Answer:
        url, own = without_userinfo(url), dict(headers or {})
        request = urllib.request.Request(url, headers=own, method=method)
        return answer(lambda: urllib.request.urlopen(request, timeout=timeout))

    def call_with_old_client(self, before: Callable[[], None], url: str) -> Answer:
        opener = urllib.request.build_opener()
        before()
        return answer(lambda: opener.open(url))

    def call_with_digest(self, url: str) -> Answer:
        passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, url, "amy", "secret")
        opener = urllib.request.build_opener(urllib.request.HTTPDigestAuthHandler(passwords))
        return answer(lambda: opener.open(url))

    def stream(self, url: str, at_headers: Callable[[], None], chunks: int | None = None) -> None:
        with urllib.request.urlopen(url) as response:
            at_headers()
            number = 0
            while response.read(4):
                number += 1
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


def without_userinfo(url: str) -> str:
    """Return a URL that urllib can open: it takes credentials for a part of the host's name."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def answer(open_: Callable[[], Any]) -> Answer:
    try:
        with open_() as response:
            return Answer(response.status, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Answer(error.code, error.read())


@pytest.fixture
def watched(instrument: Instrument) -> None:
    instrument(HttpClientInstrumentor)


@pytest.fixture
def connection(server: LoopbackServer) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    yield connection
    connection.close()


@pytest.mark.usefixtures("watched")
class TestHttpClient:
    def test_request_on_a_connection_has_a_span(
        self, spans: Spans, server: LoopbackServer, connection: http.client.HTTPConnection
    ) -> None:
        connection.request("POST", "/ok?page=2", body=b"cart")
        assert connection.getresponse().read() == b"ok"
        attributes = spans.one().attributes or {}
        assert attributes["url.full"] == f"{server.url}/ok?page=2"
        assert attributes["http.response.status_code"] == 200
        assert injected(server) == [ids(spans.one())]

    def test_a_response_with_a_status_of_the_programs_own_reaches_it(
        self, spans: Spans, connection: http.client.HTTPConnection
    ) -> None:
        class OwnResponse(http.client.HTTPResponse):
            def begin(self) -> None:
                super().begin()
                self.status: Any = str(self.status)

        connection.response_class = OwnResponse
        connection.request("GET", "/ok")
        assert connection.getresponse().status == "200"
        assert spans.one().name == "GET"

    def test_connection_that_is_kept_has_a_span_for_each_request(
        self, spans: Spans, server: LoopbackServer, connection: http.client.HTTPConnection
    ) -> None:
        for _ in range(3):
            connection.request("GET", "/ok")
            connection.getresponse().read()
        assert injected(server) == [ids(span) for span in spans.watched]
        assert len(spans.watched) == 3

    def test_header_written_line_by_line_is_replaced(
        self, spans: Spans, server: LoopbackServer, connection: http.client.HTTPConnection
    ) -> None:
        connection.putrequest("GET", "/ok")
        connection.putheader("Traceparent", f"00-{'1' * 32}-{'2' * 16}-01")
        connection.putheader("x-own", "kept")
        connection.endheaders()
        connection.getresponse().read()
        assert injected(server) == [ids(spans.one())]
        assert server.received[0].headers["x-own"] == "kept"

    def test_nothing_is_current_between_request_and_response(
        self, spans: Spans, connection: http.client.HTTPConnection
    ) -> None:
        before = otel_context.get_current()
        connection.request("GET", "/ok")
        assert otel_context.get_current() is before
        connection.getresponse().read()
        assert otel_context.get_current() is before

    def test_request_whose_answer_nobody_reads_ends_with_the_connection(
        self, spans: Spans, connection: http.client.HTTPConnection
    ) -> None:
        connection.request("GET", "/ok")
        assert spans.ended == []
        connection.close()
        assert "http.response.status_code" not in (spans.one().attributes or {})

    @pytest.mark.parametrize(("path", "timeout"), [("/slow", 0.05), ("/dropped", 5.0)])
    def test_failure_is_recorded_as_it_is_raised(
        self, spans: Spans, server: LoopbackServer, path: str, timeout: float
    ) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=timeout)
        connection.request("GET", path)
        error = attempt(connection.getresponse)
        connection.close()
        span = spans.one()
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == qualified(error)

    def test_refused_connection_is_recorded_as_it_is_raised(self, spans: Spans) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", 1)
        attempt(lambda: connection.request("GET", "/"))
        assert (spans.one().attributes or {})["error.type"] == "ConnectionRefusedError"

    def test_wrong_order_of_calls_fails_as_before(
        self, spans: Spans, connection: http.client.HTTPConnection
    ) -> None:
        assert isinstance(attempt(connection.endheaders), http.client.CannotSendHeader)
        assert isinstance(attempt(connection.getresponse), http.client.ResponseNotReady)
        assert spans.ended == []

    def test_default_timeout_of_sockets_is_a_configured_one(
        self,
        spans: Spans,
        connection: http.client.HTTPConnection,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(socket, "getdefaulttimeout", lambda: 7.0)
        connection.timeout = socket._GLOBAL_DEFAULT_TIMEOUT  # type: ignore[attr-defined]
        connection.request("GET", "/ok")
        connection.getresponse().read()
        assert (spans.one().attributes or {})["tracekit.timeout.read_s"] == 7.0

    def test_tunnelled_request_says_where_it_goes(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
        connection.connect()
        connection._tunnel_host, connection._tunnel_port = "shop.example", 80  # type: ignore[attr-defined]
        connection.request("GET", "/ok")
        connection.getresponse().read()
        connection.close()
        attributes = spans.one().attributes or {}
        assert attributes["url.full"] == "http://shop.example/ok"
        assert attributes["network.peer.port"] == server.server_port

    def test_other_libraries_of_the_standard_one_have_spans(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with xmlrpc.client.ServerProxy(f"{server.url}/status/500") as proxy:
            attempt(proxy.system.listMethods)
        assert spans.one().name == "POST"
        assert (spans.one().attributes or {})["error.type"] == "500"


def test_hooks_get_the_headers_of_the_request(
    instrument: Instrument, connection: http.client.HTTPConnection
) -> None:
    seen: list[tuple[str, dict[str, str]]] = []

    def note(_: object, request: HttpClientRequest) -> None:
        seen.append((request.method, dict(request.headers.items())))

    instrument(HttpClientInstrumentor, request_hook=note)
    connection.request("GET", "/ok", headers={"x-own": "kept"})
    connection.getresponse().read()
    ((method, headers),) = seen
    assert (method, headers["x-own"]) == ("GET", "kept")


@pytest.mark.parametrize("order", [1, -1])
def test_libraries_that_are_watched_themselves_have_one_span(
    instrument: Instrument, spans: Spans, server: LoopbackServer, order: int
) -> None:
    for plugin in [RequestsInstrumentor, Urllib3Instrumentor, HttpClientInstrumentor][::order]:
        instrument(plugin)
    with urllib3.PoolManager() as manager:
        manager.request("GET", f"{server.url}/redirect")
    requests.get(f"{server.url}/ok")
    urllib.request.urlopen(f"{server.url}/ok").close()
    assert [s.instrumentation_scope.name for s in spans.watched if s.instrumentation_scope] == [
        "tracekit.instrumentation.urllib3",
        "tracekit.instrumentation.urllib3",
        "tracekit.instrumentation.requests",
        "tracekit.instrumentation.http_client",
    ]
    assert injected(server) == [ids(span) for span in spans.watched]


def test_url_that_is_excluded_above_is_excluded(
    instrument: Instrument, spans: Spans, server: LoopbackServer
) -> None:
    instrument(Urllib3Instrumentor, excluded_urls="/ok")
    instrument(HttpClientInstrumentor)
    with urllib3.PoolManager() as manager:
        manager.request("GET", f"{server.url}/ok")
    assert spans.ended == []
