"""urllib3 is watched as every HTTP client is, and once only below a library that is watched."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar

import pytest
import requests
import urllib3
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
from tracekit.instrumentation.urllib3 import Urllib3Instrumentor, Urllib3Request

REDIRECTS_ONLY = Retry(10, connect=False, read=False)


class TestUrllib3(HttpClientContract):
    plugin = Urllib3Instrumentor
    contrib_class = "URLLib3Instrumentor"
    timeouts: ClassVar = {"tracekit.timeout.connect_s": 5.0, "tracekit.timeout.read_s": 5.0}
    timeout_error = "urllib3.exceptions.ReadTimeoutError"
    connect_error = "urllib3.exceptions.NewConnectionError"
    unknown_host_error = (
        "urllib3.exceptions.NameResolutionError"  # since 2.0
        if hasattr(urllib3.exceptions, "NameResolutionError")
        else connect_error
    )
    program = "urllib3.PoolManager().request('GET', URL)"
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
        with urllib3.PoolManager() as manager:
            return answer(
                manager.request(
                    method, url, headers=headers, timeout=timeout, retries=REDIRECTS_ONLY
                )
            )

    def call_with_old_client(self, before: Callable[[], None], url: str) -> Answer:
        with urllib3.PoolManager() as manager:
            before()
            return answer(manager.request("GET", url))

    def call_with_digest(self, url: str) -> Answer:
        pytest.skip("urllib3 answers no challenges")

    def stream(self, url: str, at_headers: Callable[[], None], chunks: int | None = None) -> None:
        with urllib3.PoolManager() as manager:
            response = manager.request("GET", url, preload_content=False)
            at_headers()
            try:
                for number, _ in enumerate(response.stream(4), 1):
                    if number == chunks:
                        return
            finally:
                response.close()

    def call_together(
        self, count: int, url: str, under: Callable[[int], AbstractContextManager[Any]]
    ) -> None:
        manager = urllib3.PoolManager(maxsize=count)

        def call(number: int) -> None:
            with under(number):
                manager.request("GET", f"{url}/{number}")

        threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        manager.clear()


def answer(response: Any) -> Answer:
    return Answer(response.status, response.data)


@pytest.fixture
def watched(instrument: Instrument) -> None:
    instrument(Urllib3Instrumentor)


def test_a_response_with_a_status_of_the_programs_own_reaches_it(
    instrument: Instrument,
    server: LoopbackServer,
    spans: Spans,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Neither of our steps may compare what is no number, as a test's stand-in may have it."""
    instrument(Urllib3Instrumentor)
    getresponse = urllib3.connection.HTTPConnection.getresponse

    def with_text_for_status(connection: Any) -> Any:
        response: Any = getresponse(connection)
        response.status = str(response.status)
        return response

    monkeypatch.setattr(urllib3.connection.HTTPConnection, "getresponse", with_text_for_status)
    with urllib3.PoolManager() as manager:
        assert manager.request("GET", f"{server.url}/ok", retries=False).status == "200"
    assert spans.one().name == "GET"
    caplog.clear()  # it is said that it could not be read


@pytest.fixture
def manager() -> Any:
    with urllib3.PoolManager() as manager:
        yield manager


@pytest.mark.usefixtures("watched")
class TestAttempts:
    def test_each_retry_is_a_span_beside_the_first(
        self, spans: Spans, server: LoopbackServer, manager: urllib3.PoolManager
    ) -> None:
        retries = Retry(5, status_forcelist=[503])
        with spans.tracer.start_as_current_span("parent") as parent:
            assert manager.request("GET", f"{server.url}/flaky/2", retries=retries).status == 200
        assert resends(spans) == [None, 1, 2]
        assert statuses(spans) == [503, 503, 200]
        assert {parent_id(span) for span in spans.watched} == {parent.get_span_context().span_id}
        assert injected(server) == [ids(span) for span in spans.watched]

    def test_attempts_do_not_overlap(
        self, spans: Spans, server: LoopbackServer, manager: urllib3.PoolManager
    ) -> None:
        retries = Retry(5, status_forcelist=[503], backoff_factor=0.01)
        manager.request("GET", f"{server.url}/flaky/3", retries=retries)
        for first, second in zip(spans.watched, spans.watched[1:], strict=False):
            assert (first.end_time or 0) <= (second.start_time or 0)

    def test_refused_connections_have_their_own_type_until_retries_end(
        self, spans: Spans, manager: urllib3.PoolManager
    ) -> None:
        attempt(lambda: manager.request("GET", "http://127.0.0.1:1/", retries=Retry(2)))
        assert [(s.attributes or {})["error.type"] for s in spans.watched] == [
            "urllib3.exceptions.NewConnectionError",
            "urllib3.exceptions.NewConnectionError",
            "urllib3.exceptions.MaxRetryError",
        ]

    def test_redirects_and_retries_of_a_pool_used_alone_are_attempts_too(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with urllib3.HTTPConnectionPool("127.0.0.1", server.server_port) as pool:
            assert pool.urlopen("GET", "/redirect/2").status == 200
        assert resends(spans) == [None, 1, 2]
        assert [str((s.attributes or {})["url.full"]) for s in spans.watched] == [
            f"{server.url}/redirect/2",
            f"{server.url}/redirect/1",
            f"{server.url}/ok",
        ]

    def test_headers_of_the_program_are_left_as_they_were(
        self, server: LoopbackServer, manager: urllib3.PoolManager
    ) -> None:
        manager.headers["x-own"] = "kept"
        retries = Retry(5, status_forcelist=[503])
        manager.request("GET", f"{server.url}/flaky/1", retries=retries)
        assert dict(manager.headers) == {"x-own": "kept"}
        assert [request.headers["x-own"] for request in server.received] == ["kept", "kept"]

    def test_behind_a_proxy_the_peer_is_the_proxy(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with urllib3.ProxyManager(server.url) as proxy:
            assert proxy.request("GET", "http://192.0.2.1:81/ok").status == 200
        attributes = spans.one().attributes or {}
        assert attributes["url.full"] == "http://192.0.2.1:81/ok"
        assert attributes["network.peer.address"] == "127.0.0.1"

    def test_wait_for_a_place_in_the_pool_is_recorded_when_it_is_in_vain(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with urllib3.HTTPConnectionPool(
            "127.0.0.1", server.server_port, maxsize=1, block=True
        ) as pool:
            held = pool.urlopen("GET", "/ok", preload_content=False, release_conn=False)
            error = attempt(lambda: pool.urlopen("GET", "/ok", pool_timeout=0.05))
            held.close()
        attributes: Mapping[str, Any] = spans.watched[1].attributes or {}
        assert attributes["error.type"] == f"urllib3.exceptions.{type(error).__name__}"
        assert attributes["tracekit.pool.wait_s"] >= 0.05

    @pytest.mark.parametrize(
        ("timeout", "expected"),
        [
            (2, {"connect_s": 2, "read_s": 2}),
            (None, {}),
            (Timeout(connect=1, read=3), {"connect_s": 1, "read_s": 3}),
            (Timeout(total=4), {"total_s": 4}),
        ],
    )
    def test_configured_timeouts_are_recorded(
        self,
        spans: Spans,
        server: LoopbackServer,
        manager: urllib3.PoolManager,
        timeout: Any,
        expected: Mapping[str, float],
    ) -> None:
        manager.request("GET", f"{server.url}/ok", timeout=timeout)
        assert limits(spans) == expected

    def test_timeouts_of_a_pool_are_recorded_where_a_call_has_none(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with urllib3.PoolManager(timeout=Timeout(connect=1, read=3)) as manager:
            manager.request("GET", f"{server.url}/ok")
        assert limits(spans) == {"connect_s": 1, "read_s": 3}


def test_hooks_get_the_request_with_its_body(
    instrument: Instrument, server: LoopbackServer, manager: urllib3.PoolManager
) -> None:
    seen: list[Urllib3Request] = []
    instrument(Urllib3Instrumentor, request_hook=lambda _, request: seen.append(request))
    manager.request("POST", f"{server.url}/ok", body=b"cart", headers={"x-own": "kept"})
    assert [(r.method, r.body, r.headers["x-own"]) for r in seen] == [("POST", b"cart", "kept")]


class TestCallers:
    @pytest.mark.parametrize("order", [1, -1])
    def test_requests_that_is_watched_itself_has_one_span_an_attempt(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer, order: int
    ) -> None:
        for plugin in [RequestsInstrumentor, Urllib3Instrumentor][::order]:
            instrument(plugin)
        with requests.Session() as session:
            session.mount("http://", requests.adapters.HTTPAdapter(max_retries=Retry(2)))
            session.get(f"{server.url}/redirect")
        assert scopes(spans) == ["tracekit.instrumentation.requests"] * 2
        assert resends(spans) == [None, 1]

    def test_url_that_is_excluded_for_requests_is_excluded(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(RequestsInstrumentor, excluded_urls="/ok")
        instrument(Urllib3Instrumentor)
        requests.get(f"{server.url}/ok")
        assert spans.ended == []

    def test_call_made_in_a_hook_of_requests_is_watched(
        self,
        instrument: Instrument,
        spans: Spans,
        server: LoopbackServer,
        manager: urllib3.PoolManager,
    ) -> None:
        instrument(RequestsInstrumentor)
        instrument(Urllib3Instrumentor)

        def audit(response: requests.Response, **_: Any) -> None:
            manager.request("GET", f"{server.url}/audit")

        requests.get(f"{server.url}/ok", hooks={"response": audit})
        assert scopes(spans) == [
            "tracekit.instrumentation.requests",
            "tracekit.instrumentation.urllib3",
        ]

    def test_requests_that_is_not_watched_itself_is_named(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(Urllib3Instrumentor)
        requests.get(f"{server.url}/ok")
        assert scopes(spans) == ["tracekit.instrumentation.requests"]
        assert injected(server) == [ids(spans.one())]

    def test_botocore_is_named(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        awsrequest = pytest.importorskip("botocore.awsrequest")
        instrument(Urllib3Instrumentor)
        with awsrequest.AWSHTTPConnectionPool("127.0.0.1", server.server_port) as pool:
            pool.urlopen("GET", "/ok")
        assert scopes(spans) == ["tracekit.instrumentation.botocore"]


def statuses(spans: Spans) -> list[Any]:
    return [(span.attributes or {}).get("http.response.status_code") for span in spans.watched]


def scopes(spans: Spans) -> list[str]:
    return [span.instrumentation_scope.name for span in spans.watched if span.instrumentation_scope]


def limits(spans: Spans) -> Mapping[str, Any]:
    prefix = "tracekit.timeout."
    attributes = spans.one().attributes or {}
    return {k.removeprefix(prefix): v for k, v in attributes.items() if k.startswith(prefix)}
