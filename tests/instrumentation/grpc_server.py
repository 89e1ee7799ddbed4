"""A real gRPC server whose methods say how they answer; requests and responses are bytes."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent import futures
from typing import Any

import grpc
import grpc.aio

__all__ = ["SERVICE", "Answers", "aio_server", "sync_server"]

SERVICE = "shop.Orders"


class Answers:
    """What the methods do: synchronous ones here, asynchronous ones in `aio_handlers`."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, Any]] = []
        self.release = threading.Event()
        self.gone = threading.Event()
        self.inside: Callable[[], None] = lambda: None

    def note(self, context: Any) -> None:
        self.metadata.append(dict(context.invocation_metadata() or ()))
        self.inside()

    def get(self, request: bytes, context: Any) -> bytes:
        self.note(context)
        return request

    def abort(self, request: bytes, context: Any) -> bytes:
        context.abort(grpc.StatusCode[request.decode()], "as you wish")
        raise AssertionError

    def set_code(self, request: bytes, context: Any) -> bytes:
        context.set_code(grpc.StatusCode[request.decode()])
        context.set_details("half a failure")
        return b""

    def fail(self, request: bytes, context: Any) -> bytes:
        raise ArithmeticError("on the server")

    def wait(self, request: bytes, context: Any) -> bytes:
        context.add_callback(self.gone.set)
        self.release.wait(10)
        return b"late"

    def count(self, request: bytes, context: Any) -> Iterator[bytes]:
        self.note(context)
        for number in range(int(request)):
            yield str(number).encode()

    def count_and_fail(self, request: bytes, context: Any) -> Iterator[bytes]:
        yield b"0"
        context.abort(grpc.StatusCode.DATA_LOSS, "half-way")

    def endless(self, request: bytes, context: Any) -> Iterator[bytes]:
        try:
            while context.is_active():
                yield b"more"
        finally:
            self.gone.set()

    def add_up(self, requests: Iterator[bytes], context: Any) -> bytes:
        self.note(context)
        return str(sum(int(request) for request in requests)).encode()

    def echo(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        self.note(context)
        yield from requests

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return {
            "Get": unary(self.get),
            "Abort": unary(self.abort),
            "SetCode": unary(self.set_code),
            "Fail": unary(self.fail),
            "Wait": unary(self.wait),
            "Count": stream(self.count),
            "CountAndFail": stream(self.count_and_fail),
            "Endless": stream(self.endless),
            "AddUp": grpc.stream_unary_rpc_method_handler(self.add_up),
            "Echo": grpc.stream_stream_rpc_method_handler(self.echo),
        }

    # The same, asynchronous

    async def aget(self, request: bytes, context: Any) -> bytes:
        return self.get(request, context)

    async def aabort(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode[request.decode()], "as you wish")
        raise AssertionError

    async def aset_code(self, request: bytes, context: Any) -> bytes:
        return self.set_code(request, context)

    async def afail(self, request: bytes, context: Any) -> bytes:
        raise ArithmeticError("on the server")

    async def await_(self, request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(10)
        finally:
            self.gone.set()
        return b"late"

    async def acount(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for response in self.count(request, context):
            yield response

    async def acount_and_fail(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        yield b"0"
        await context.abort(grpc.StatusCode.DATA_LOSS, "half-way")

    async def aendless(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"more"
                await asyncio.sleep(0.001)
        finally:
            self.gone.set()

    async def aadd_up(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        self.note(context)
        return str(sum([int(request) async for request in requests])).encode()

    async def aecho(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        self.note(context)
        async for request in requests:
            yield request

    def aio_handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
        return {
            "Get": unary(self.aget),
            "Abort": unary(self.aabort),
            "SetCode": unary(self.aset_code),
            "Fail": unary(self.afail),
            "Wait": unary(self.await_),
            "Count": stream(self.acount),
            "CountAndFail": stream(self.acount_and_fail),
            "Endless": stream(self.aendless),
            "AddUp": grpc.stream_unary_rpc_method_handler(self.aadd_up),
            "Echo": grpc.stream_stream_rpc_method_handler(self.aecho),
        }


@contextlib.contextmanager
def sync_server(answers: Answers, **options: Any) -> Iterator[int]:
    """Serve in threads, and yield the port."""
    server = grpc.server(futures.ThreadPoolExecutor(4), **options)
    generic = grpc.method_handlers_generic_handler(SERVICE, answers.handlers())
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        answers.release.set()
        server.stop(0).wait(10)


@contextlib.contextmanager
def aio_server(answers: Answers, **options: Any) -> Iterator[int]:
    """Serve in an event loop of a thread of its own, and yield the port."""
    started, stop = threading.Event(), asyncio.Event()
    seen: list[Any] = []

    async def serve() -> None:
        server = grpc.aio.server(**options)
        generic = grpc.method_handlers_generic_handler(SERVICE, answers.aio_handlers())
        server.add_generic_rpc_handlers((generic,))
        seen.extend((server.add_insecure_port("127.0.0.1:0"), asyncio.get_running_loop()))
        await server.start()
        started.set()
        await stop.wait()
        await server.stop(0)

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    try:
        assert started.wait(10)
        yield seen[0]
    finally:
        answers.release.set()
        seen[1].call_soon_threadsafe(stop.set)
        thread.join(10)
