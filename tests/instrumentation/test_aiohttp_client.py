"""aiohttp's client is watched as every HTTP client is."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

import aiohttp
import pytest
from aiohttp import ClientTimeout, web
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from instrumentation.conftest import Instrument, LoopbackServer, Spans
from instrumentation.http_client_contract import (
    Answer,
    HttpClientContract,
    events,
    ids,
    injected,
    parent_id,
    resends,
)
from tracekit.instrumentation.aiohttp_client import AiohttpClientInstrumentor

T = TypeVar("T")

RETRIES = tuple(map(int, aiohttp.__version__.split(".")[:2])) >= (3, 10)

READ_TIMEOUT = getattr(aiohttp, "SocketTimeoutError", aiohttp.ServerTimeoutError)
DNS_ERROR = getattr(aiohttp, "ClientConnectorDNSError", aiohttp.ClientConnectorError)


# Older versions take no longer ones.
_KNOWN = inspect.signature(aiohttp.ClientSession.__init__).parameters
LONG_HEADERS = {name: 100_000 for name in ("max_line_size", "max_field_size") if name in _KNOWN}


def run(coroutine: Awaitable[T]) -> T:
    return asyncio.run(coroutine)  # type: ignore[arg-type]


def limits(timeout: float) -> ClientTimeout:
    return ClientTimeout(total=60, connect=timeout, sock_connect=timeout, sock_read=timeout)


async def get(url: str, method: str = "GET", **options: Any) -> Answer:
    async with (
        aiohttp.ClientSession(**LONG_HEADERS) as session,
        session.request(method, url, **options) as response,
    ):
        return Answer(response.status, await response.read())


class TestClient(HttpClientContract):
    plugin = AiohttpClientInstrumentor
    library = "aiohttp"
    contrib_class = "AioHttpClientInstrumentor"
    timeouts: ClassVar = {
        "tracekit.timeout.total_s": 60,
        **{f"tracekit.timeout.{phase}_s": 5.0 for phase in ("pool", "connect", "read")},
    }
    timeout_error = f"aiohttp.client_exceptions.{READ_TIMEOUT.__name__}"
    connect_error = "aiohttp.client_exceptions.ClientConnectorError"
    unknown_host_error = f"aiohttp.client_exceptions.{DNS_ERROR.__name__}"
    dropped_attempts = 2 if RETRIES else 1  # of an idempotent method
    shown_userinfo = ""
    program = """
async def main():
    async with aiohttp.ClientSession() as session, session.get(URL) as response:
        await response.read()

import asyncio
asyncio.run(main())
"""

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
        return run(get(url, method, headers=headers, timeout=limits(timeout)))

    def call_with_old_client(self, before: Callable[[], None], url: str) -> Answer:
        async def call() -> Answer:
            async with aiohttp.ClientSession() as session:
                before()
                async with session.get(url) as response:
                    return Answer(response.status, await response.read())

        return run(call())

    def call_with_digest(self, url: str) -> Answer:
        if not hasattr(aiohttp, "DigestAuthMiddleware"):
            pytest.skip("this version of aiohttp has no digest authentication")
        return run(get(url, middlewares=(aiohttp.DigestAuthMiddleware("amy", "secret"),)))

    def stream(self, url: str, at_headers: Callable[[], None], chunks: int | None = None) -> None:
        async def read() -> None:
            async with aiohttp.ClientSession() as session, session.get(url) as response:
                at_headers()
                number = 0
                async for _ in response.content.iter_chunked(4):
                    number += 1
                    if number == chunks:
                        return

        run(read())

    def call_together(
        self, count: int, url: str, under: Callable[[int], AbstractContextManager[Any]]
    ) -> None:
        async def call(session: aiohttp.ClientSession, number: int) -> None:
            with under(number):
                async with session.get(f"{url}/{number}") as response:
                    await response.read()

        async def together() -> None:
            async with aiohttp.ClientSession() as session:
                await asyncio.gather(*(call(session, number) for number in range(count)))

        run(together())


@pytest.fixture
def watched(instrument: Instrument) -> None:
    instrument(AiohttpClientInstrumentor)


def attributes_of(spans: Spans) -> dict[str, Any]:
    return dict(spans.one().attributes or {})


def test_a_response_with_a_status_of_the_programs_own_reaches_it(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    class OwnResponse(aiohttp.ClientResponse):
        def __setattr__(self, name: str, value: Any) -> None:
            super().__setattr__(name, str(value) if name == "status" else value)

    async def main() -> Any:
        async with (
            aiohttp.ClientSession(response_class=OwnResponse) as session,
            session.get(f"{server.url}/ok") as response,
        ):
            return response.status

    assert run(main()) == "200"
    assert spans.one().name == "GET"


def test_wait_for_a_used_up_pool_is_recorded(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    if not hasattr(aiohttp.BaseConnector, "_wait_for_available_connection"):
        pytest.skip("this version of aiohttp has no place to see the wait")

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=1)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def call(path: str) -> None:
                async with session.get(server.url + path) as response:
                    await response.read()

            first = asyncio.create_task(call("/slow"))
            await asyncio.to_thread(server.arrived.wait)
            second = asyncio.create_task(call("/ok"))
            await asyncio.sleep(0.05)
            server.release.set()
            await asyncio.gather(first, second)

    run(main())
    waits = [(span.attributes or {}).get("tracekit.pool.wait_s") for span in spans.watched]
    assert waits[0] is None
    assert isinstance(waits[1], float)
    assert 0.04 < waits[1] < 10


def test_a_connection_closed_by_the_server_meanwhile_is_a_retry(
    watched: None, spans: Spans
) -> None:
    """The kept connection is dead when the second request is written: aiohttp makes another."""
    if not RETRIES:
        pytest.skip("this version of aiohttp does not retry")

    async def main(port: int) -> list[int]:
        async with aiohttp.ClientSession() as session:
            found = []
            for _ in range(2):
                async with session.get(f"http://127.0.0.1:{port}/") as response:
                    await response.read()
                    found.append(response.status)
            return found

    with closing_after_each_answer() as port:
        assert run(main(port)) == [200, 200]
    assert resends(spans) == [None, None, 1]
    first, lost, again = spans.watched
    assert lost.status.status_code is StatusCode.ERROR
    assert (lost.attributes or {})["error.type"].endswith("ServerDisconnectedError")
    assert (lost.end_time or 0) <= (again.start_time or 0)
    assert first.status.status_code is again.status.status_code is StatusCode.UNSET


@contextlib.contextmanager
def closing_after_each_answer() -> Iterator[int]:
    """Keep a connection alive until its second request comes, and close it then."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

    def serve() -> None:
        for requests in (2, 1):
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)
                if requests == 2:
                    connection.recv(65536)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


def test_a_total_timeout_is_the_programs_exception(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    with pytest.raises(asyncio.TimeoutError):
        run(get(f"{server.url}/slow", timeout=ClientTimeout(total=0.05)))
    attributes = attributes_of(spans)
    assert attributes["error.type"].endswith("TimeoutError")
    assert attributes["tracekit.timeout.total_s"] == 0.05


def test_limits_of_the_session_are_those_of_the_request(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    run(get(f"{server.url}/ok"))
    timeouts = {k: v for k, v in attributes_of(spans).items() if ".timeout." in k}
    assert timeouts["tracekit.timeout.total_s"] == 300


def test_a_cancelled_call_ends_its_span_without_an_error(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    async def main() -> None:
        task = asyncio.create_task(get(f"{server.url}/slow"))
        await asyncio.to_thread(server.arrived.wait)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(main())
    span = spans.one()
    assert (span.status.status_code, events(span)) == (StatusCode.UNSET, [])


def test_a_middleware_that_sends_again_makes_a_resend(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    if not hasattr(aiohttp, "DigestAuthMiddleware"):
        pytest.skip("this version of aiohttp has no middlewares")

    async def retry(request: Any, handler: Any) -> Any:
        response = await handler(request)
        while response.status == 503:
            response.release()
            response = await handler(request)
        return response

    assert run(get(f"{server.url}/flaky/2", middlewares=(retry,))).status == 200
    assert resends(spans) == [None, 1, 2]
    assert injected(server) == [ids(span) for span in spans.watched]


def test_a_middleware_that_keeps_an_exception_ends_the_span(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    if not hasattr(aiohttp, "DigestAuthMiddleware"):
        pytest.skip("this version of aiohttp has no middlewares")

    async def ask_elsewhere(request: Any, handler: Any) -> Any:
        try:
            return await handler(request)
        except aiohttp.ClientError:
            request.url = request.url.with_path("/ok")
            return await handler(request)

    run(get(f"{server.url}/dropped", method="POST", middlewares=(ask_elsewhere,)))
    failed, good = spans.watched
    assert (failed.attributes or {})["error.type"].endswith("ServerDisconnectedError")
    assert (good.attributes or {})["http.response.status_code"] == 200
    assert (good.attributes or {})["url.full"] == f"{server.url}/ok"


def test_raise_for_status_does_not_fail_twice(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    with pytest.raises(aiohttp.ClientResponseError):
        run(get(f"{server.url}/status/404", raise_for_status=True))
    assert events(spans.one()) == []
    assert attributes_of(spans)["error.type"] == "404"


def test_a_websocket_is_its_handshake(watched: None, spans: Spans) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(message.data)
        return socket

    async def main() -> None:
        app = web.Application()
        app.router.add_get("/ws", echo)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with (
            aiohttp.ClientSession() as session,
            session.ws_connect(f"http://127.0.0.1:{port}/ws") as connection,
        ):
            assert len(spans.watched) == 1
            await connection.send_str("x")
            assert await connection.receive_str() == "x"
        await runner.cleanup()

    run(main())
    assert attributes_of(spans)["http.response.status_code"] == 101


def test_through_a_tunnel_the_answer_of_the_proxy_is_not_the_servers(
    watched: None, spans: Spans
) -> None:
    with refusing_proxy() as port, pytest.raises(aiohttp.ClientError) as caught:
        run(get("https://shop.invalid/", proxy=f"http://127.0.0.1:{port}"))
    attributes = attributes_of(spans)
    assert attributes["server.address"] == "shop.invalid"
    assert attributes["error.type"] == (
        f"{type(caught.value).__module__}.{type(caught.value).__qualname__}"
    )
    assert "http.response.status_code" not in attributes


@contextlib.contextmanager
def refusing_proxy() -> Iterator[int]:
    def serve() -> None:
        connection, _ = listening.accept()
        with connection:
            assert connection.recv(65536).startswith(b"CONNECT shop.invalid:443 ")
            connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")
            connection.recv(1)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        thread.join()


@pytest.mark.filterwarnings("ignore:Unclosed:ResourceWarning")
def test_a_response_that_is_dropped_unread_ends_its_span(
    instrument: Instrument, spans: Spans, server: LoopbackServer
) -> None:
    instrument(AiohttpClientInstrumentor, span_ends="body")

    async def main() -> None:
        async with aiohttp.ClientSession() as session:
            response: Any = await session.get(f"{server.url}/chunks/3")
            assert spans.watched == []
            del response
        # The connection held it until now.
        await asyncio.sleep(0)
        gc.collect()
        assert events(spans.one()) == ["tracekit.body.started", "tracekit.body.abandoned"]

    run(main())


def test_requests_of_a_task_that_a_hook_starts_are_calls_of_their_own(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    async def main() -> None:
        config = aiohttp.TraceConfig()
        async with aiohttp.ClientSession() as other:
            tasks: list[Any] = []

            async def started(*_: Any) -> None:
                tasks.append(asyncio.create_task(call(other, "/other")))

            config.on_request_start.append(started)
            async with aiohttp.ClientSession(trace_configs=[config]) as session:
                with spans.tracer.start_as_current_span("parent"):
                    await call(session, "/ok")
            await asyncio.gather(*tasks)

    async def call(session: aiohttp.ClientSession, path: str) -> None:
        async with session.get(server.url + path) as response:
            await response.read()

    run(main())
    (parent,) = (span for span in spans.ended if span.name == "parent")
    assert resends(spans) == [None, None]
    assert {parent_id(span) for span in spans.watched} == {parent.context.span_id}


def test_current_span_while_a_request_is_on_its_way_is_its_own(
    watched: None, spans: Spans, server: LoopbackServer
) -> None:
    seen: list[Any] = []

    async def sent(*_: Any) -> None:
        seen.append(trace.get_current_span().get_span_context().span_id)

    async def main() -> None:
        config = aiohttp.TraceConfig()
        config.on_request_headers_sent.append(sent)
        async with (
            aiohttp.ClientSession(trace_configs=[config]) as session,
            session.get(f"{server.url}/ok") as response,
        ):
            await response.read()

    run(main())
    assert seen == [spans.one().context.span_id]
