"""What each package with httpx's interface is asked: as every HTTP client is, sync and async.

A test file says which package: it mixes a class that names it into those that are here.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import importlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any, ClassVar, TypeVar

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from instrumentation.conftest import Instrument, LoopbackServer, Spans
from instrumentation.http_client_contract import (
    Answer,
    HttpClientContract,
    attempt,
    events,
    ids,
    injected,
    parent_id,
    resends,
)
from tracekit.instrumentation._httpx import HttpxApiInstrumentor

T = TypeVar("T")


class Package:
    """The package that is asked."""

    plugin: type[HttpxApiInstrumentor]

    @property
    def httpx(self) -> Any:
        return importlib.import_module(self.plugin.name)

    def run(self, call: Callable[[Any], Awaitable[T]], **options: Any) -> T:
        async def main() -> T:
            async with self.httpx.AsyncClient(**options) as client:
                return await call(client)

        return asyncio.run(main())

    def ok(self, _: Any) -> Any:
        return self.httpx.Response(200, text="mocked")


class _ClientCalls(Package, HttpClientContract):
    plugin: type[HttpxApiInstrumentor]
    timeouts: ClassVar = {
        f"tracekit.timeout.{phase}_s": 5.0 for phase in ("connect", "read", "write", "pool")
    }


class SyncCalls(_ClientCalls):
    program = "__import__(plugin.name).get(URL)"

    def call(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Answer:
        with self.httpx.Client(follow_redirects=True) as client:
            return answer(client.request(method, url, headers=headers, timeout=timeout))

    def call_with_old_client(self, before: Callable[[], None], url: str) -> Answer:
        with self.httpx.Client() as client:
            before()
            return answer(client.get(url))

    def call_with_digest(self, url: str) -> Answer:
        return answer(self.httpx.get(url, auth=self.httpx.DigestAuth("amy", "secret")))

    def stream(self, url: str, at_headers: Callable[[], None], chunks: int | None = None) -> None:
        with self.httpx.stream("GET", url) as response:
            at_headers()
            for number, _ in enumerate(response.iter_bytes(4), 1):
                if number == chunks:
                    return

    def call_together(
        self, count: int, url: str, under: Callable[[int], AbstractContextManager[Any]]
    ) -> None:
        def call(number: int) -> None:
            with under(number):
                client.get(f"{url}/{number}")

        with self.httpx.Client() as client:
            threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


class AsyncCalls(_ClientCalls):
    program = """
        import asyncio
        async def main():
            async with __import__(plugin.name).AsyncClient() as client:
                await client.get(URL)
        asyncio.run(main())
    """

    def call(
        self,
        url: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        timeout: float = 5.0,
    ) -> Answer:
        async def call(client: Any) -> Answer:
            return answer(await client.request(method, url, headers=headers, timeout=timeout))

        return self.run(call, follow_redirects=True)

    def call_with_old_client(self, before: Callable[[], None], url: str) -> Answer:
        async def call(client: Any) -> Answer:
            before()
            return answer(await client.get(url))

        return self.run(call)

    def call_with_digest(self, url: str) -> Answer:
        async def call(client: Any) -> Answer:
            return answer(await client.get(url, auth=self.httpx.DigestAuth("amy", "secret")))

        return self.run(call)

    def stream(self, url: str, at_headers: Callable[[], None], chunks: int | None = None) -> None:
        async def call(client: Any) -> None:
            async with client.stream("GET", url) as response:
                at_headers()
                number = 0
                async for _ in response.aiter_bytes(4):
                    number += 1
                    if number == chunks:
                        return

        self.run(call)

    def call_together(
        self, count: int, url: str, under: Callable[[int], AbstractContextManager[Any]]
    ) -> None:
        async def call(client: Any) -> None:
            async def one(number: int) -> None:
                with under(number):
                    await client.get(f"{url}/{number}")

            await asyncio.gather(*map(one, range(count)))

        self.run(call)

    def test_cancelled_call_is_no_error_and_ends_its_span(
        self, instrument: Instrument, spans: Spans, server: LoopbackServer
    ) -> None:
        instrument(self.plugin)

        async def call(client: Any) -> None:
            before = otel_context.get_current()
            task = asyncio.create_task(client.get(f"{server.url}/slow"))
            await asyncio.to_thread(server.arrived.wait, 5)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert otel_context.get_current() is before

        self.run(call)
        assert spans.one().status.status_code is StatusCode.UNSET
        assert "error.type" not in (spans.one().attributes or {})
        assert events(spans.one()) == []

    def test_call_that_is_closed_in_another_context_is_quiet(
        self, instrument: Instrument, spans: Spans, caplog: pytest.LogCaptureFixture
    ) -> None:
        instrument(self.plugin)

        async def never(_: Any) -> Any:
            await asyncio.sleep(0)
            raise AssertionError

        async def main() -> None:
            client = self.httpx.AsyncClient(transport=self.httpx.MockTransport(never))
            call = client.get("http://shop/")
            contextvars.copy_context().run(call.send, None)
            call.close()

        asyncio.run(main())
        assert spans.one().status.status_code is StatusCode.UNSET
        assert caplog.records == []


def answer(response: Any) -> Answer:
    return Answer(response.status_code, response.content)


class _Watched(Package):
    @pytest.fixture(autouse=True)
    def watched(self, instrument: Instrument) -> None:
        instrument(self.plugin)


class Transports(_Watched):
    def test_mock_transport_still_has_a_span(self, spans: Spans) -> None:
        with self.httpx.Client(transport=self.httpx.MockTransport(self.ok)) as client:
            assert client.get("https://shop/cart").text == "mocked"
        attributes = spans.one().attributes or {}
        assert (attributes["server.address"], attributes["server.port"]) == ("shop", 443)
        assert "network.peer.address" not in attributes

    def test_a_response_with_a_status_of_the_programs_own_reaches_it(self, spans: Spans) -> None:
        def answer(_request: Any) -> Any:
            response: Any = self.httpx.Response(200, text="mocked")
            response.status_code = "200"
            return response

        with self.httpx.Client(transport=self.httpx.MockTransport(answer)) as client:
            assert client.get("https://shop/cart").status_code == "200"
        assert spans.one().name == "GET"

    @pytest.mark.parametrize("way", ["transport", "mounts"])
    def test_behind_a_proxy_the_peer_is_the_proxy(
        self, spans: Spans, server: LoopbackServer, way: str
    ) -> None:
        through = self.httpx.HTTPTransport(proxy=self.httpx.Proxy(server.url))
        given: Any = {way: {"http://": through} if way == "mounts" else through}
        with self.httpx.Client(**given) as client:
            client.get("http://192.0.2.1:81/ok")
        attributes = spans.one().attributes or {}
        assert attributes["server.address"] == "192.0.2.1"
        assert attributes["network.peer.address"] == "127.0.0.1"

    def test_mounted_transport_still_has_a_span(self, spans: Spans) -> None:
        with self.httpx.Client(mounts={"mock://": self.httpx.MockTransport(self.ok)}) as client:
            client.get("mock://shop/cart")
        assert (spans.one().attributes or {})["url.full"] == "mock://shop/cart"

    def test_transport_that_retries_inside_is_one_span(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with self.httpx.Client(transport=self.httpx.HTTPTransport(retries=2)) as client:
            attempt(lambda: client.get("http://127.0.0.1:1/"))
        assert (spans.one().attributes or {})["error.type"] == f"{self.plugin.name}.ConnectError"

    def test_server_called_in_process_is_not_suppressed(self, spans: Spans) -> None:
        def app(environ: Any, start_response: Any) -> list[bytes]:
            with self.httpx.Client(transport=self.httpx.MockTransport(self.ok)) as inside:
                inside.get("http://behind/")
            start_response("200 OK", [])
            return [b"ok"]

        with self.httpx.Client(transport=self.httpx.WSGITransport(app)) as client:
            client.get("http://shop/")
        outer, inner = spans.watched
        assert parent_id(inner) == outer.context.span_id
        assert resends(spans) == [None, None]

    def test_span_is_current_while_the_request_is_on_its_way(self, spans: Spans) -> None:
        current: list[trace.Span] = []

        def look(_: Any) -> Any:
            current.append(trace.get_current_span())
            return self.httpx.Response(200)

        with self.httpx.Client(transport=self.httpx.MockTransport(look)) as client:
            client.get("http://shop/")
        assert current[0].get_span_context() == spans.one().context

    def test_interrupted_call_is_no_error(self, spans: Spans) -> None:
        def interrupt(_: Any) -> Any:
            raise KeyboardInterrupt

        with (
            self.httpx.Client(transport=self.httpx.MockTransport(interrupt)) as client,
            pytest.raises(KeyboardInterrupt),
        ):
            client.get("http://shop/")
        assert spans.one().status.status_code is StatusCode.UNSET

    def test_http2_is_told_by_its_version(self, spans: Spans) -> None:
        def h2(_: Any) -> Any:
            return self.httpx.Response(200, extensions={"http_version": b"HTTP/2"})

        with self.httpx.Client(transport=self.httpx.MockTransport(h2)) as client:
            client.get("https://shop/")
        assert (spans.one().attributes or {})["network.protocol.version"] == "2"

    def test_ipv6_address_is_given_without_brackets(self, spans: Spans) -> None:
        with self.httpx.Client(transport=self.httpx.MockTransport(self.ok)) as client:
            client.get("http://[::1]:8080/")
        attributes = spans.one().attributes or {}
        assert (attributes["server.address"], attributes["server.port"]) == ("::1", 8080)


class Sends(_Watched):
    def test_request_sent_twice_is_two_calls(self, spans: Spans, server: LoopbackServer) -> None:
        with self.httpx.Client() as client:
            request = client.build_request("GET", f"{server.url}/ok")
            client.send(request)
            client.send(request)
        assert resends(spans) == [None, None]
        assert injected(server) == [ids(span) for span in spans.watched]

    def test_redirect_that_the_program_follows_is_a_call_of_its_own(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        with self.httpx.Client() as client:
            response = client.get(f"{server.url}/redirect")
            assert response.next_request is not None
            client.send(response.next_request)
        assert resends(spans) == [None, None]

    def test_authentication_that_asks_for_a_token_first_is_a_sibling(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        httpx = self.httpx

        class Token(httpx.Auth):  # type: ignore[misc]
            requires_response_body = True

            def auth_flow(self, request: Any) -> Iterator[Any]:
                token = yield httpx.Request("POST", f"{server.url}/token")
                request.headers["authorization"] = token.text
                yield request

        with spans.tracer.start_as_current_span("parent") as parent:
            httpx.get(f"{server.url}/ok", auth=Token())
        assert [span.name for span in spans.watched] == ["POST", "GET"]
        assert {parent_id(span) for span in spans.watched} == {parent.get_span_context().span_id}

    def test_event_hooks_run_outside_the_span(self, spans: Spans) -> None:
        current: list[trace.Span] = []

        def look(_: Any) -> None:
            current.append(trace.get_current_span())

        with (
            spans.tracer.start_as_current_span("parent") as parent,
            self.httpx.Client(
                transport=self.httpx.MockTransport(self.ok),
                event_hooks={"request": [look], "response": [look]},
            ) as client,
        ):
            client.get("http://shop/")
        assert current == [parent, parent]

    def test_sync_stream_with_an_async_client_fails_as_before(self) -> None:
        def body() -> Iterator[bytes]:
            yield b""

        async def call(client: Any) -> None:
            await client.post("http://shop/", content=body())  # type: ignore[arg-type]

        with pytest.raises(RuntimeError, match="sync request with an AsyncClient"):
            self.run(call)

    def test_generators_of_the_program_still_stream(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield b"one"

        async def call(client: Any) -> Answer:
            return answer(
                await client.post(
                    f"{server.url}/ok", content=body(), headers={"content-length": "3"}
                )
            )

        assert self.run(call).body == b"ok"


class Bodies(Package):
    def test_stream_that_is_forgotten_ends_its_span(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin, span_ends="body")
        with self.httpx.Client(transport=self.httpx.MockTransport(self.ok)) as client:
            response = client.send(client.build_request("GET", "http://shop/"), stream=True)
            assert spans.ended == []
            del response
            gc.collect()
        assert events(spans.one()) == ["tracekit.body.started", "tracekit.body.abandoned"]


class Limits(_Watched):
    @pytest.mark.parametrize(
        ("timeout", "expected"),
        [
            (None, {}),
            (2, dict.fromkeys(["connect_s", "read_s", "write_s", "pool_s"], 2)),
            ((1.5, None, None, None), {"connect_s": 1.5}),
        ],
    )
    def test_configured_timeouts_are_recorded(
        self, spans: Spans, timeout: Any, expected: Mapping[str, float]
    ) -> None:
        with self.httpx.Client(transport=self.httpx.MockTransport(self.ok)) as client:
            client.get("http://shop/", timeout=timeout)
        attributes = spans.one().attributes or {}
        prefix = "tracekit.timeout."
        found = {k.removeprefix(prefix): v for k, v in attributes.items() if k.startswith(prefix)}
        assert found == expected

    def test_wait_for_a_free_connection_is_recorded(
        self, spans: Spans, server: LoopbackServer
    ) -> None:
        core = importlib.import_module(f"{self.plugin.core}._async.connection_pool")
        if not hasattr(core, "AsyncPoolRequest"):
            pytest.skip("httpcore before 1.0 waits elsewhere")

        async def call(client: Any) -> None:
            async with client.stream("GET", f"{server.url}/chunks/2") as held:
                waiting = asyncio.create_task(client.get(f"{server.url}/ok"))
                await asyncio.sleep(0.02)
                server.release.set()
                await held.aread()
            await waiting

        self.run(call, limits=self.httpx.Limits(max_connections=1))
        held, waited = spans.watched
        assert "tracekit.pool.wait_s" not in (held.attributes or {})
        wait = (waited.attributes or {})["tracekit.pool.wait_s"]
        assert isinstance(wait, float)
        assert wait >= 0.01
