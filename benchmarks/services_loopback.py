"""The other side of a call on 127.0.0.1: servers that answer all alike, and one client.

``python -m benchmarks.services_loopback redis|grpc|http`` prints its port, and serves until its
input ends; ``grpc_client PORT`` makes as many calls as each line of its input says.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from concurrent import futures

__all__: list[str] = []

_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\nContent-Length: 0\r\n\r\n"


class _Redis(asyncio.Protocol):
    """Answers each command with OK: the client's own greeting too."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        # A command is an array, "*3\r\n$3\r\n…"; each is one write of the client's.
        commands = data.count(b"\r\n*") + data.startswith(b"*")
        self._transport.write(b"+OK\r\n" * commands)


class _Http(_Redis):
    def data_received(self, data: bytes) -> None:
        if data.endswith(b"\r\n\r\n"):
            self._transport.write(_HEAD)


async def _serve(protocol: Callable[[], asyncio.Protocol]) -> None:
    server = await asyncio.get_running_loop().create_server(protocol, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Leaving `async with server` would wait for clients that keep their connections.
    await asyncio.to_thread(sys.stdin.read)


def _serve_grpc() -> None:
    import grpc

    handlers = {"Get": grpc.unary_unary_rpc_method_handler(lambda request, _context: request)}
    server = grpc.server(futures.ThreadPoolExecutor(2))
    generic = grpc.method_handlers_generic_handler("shop.Orders", handlers)
    server.add_generic_rpc_handlers((generic,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    sys.stdin.read()
    server.stop(0)


def _call_grpc(port: str) -> None:
    import grpc

    call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary("/shop.Orders/Get")
    for line in sys.stdin:
        for _ in range(int(line)):
            call(b"7", timeout=10)
        print(int(line), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "grpc":
        _serve_grpc()
    elif sys.argv[1] == "grpc_client":
        _call_grpc(sys.argv[2])
    else:
        asyncio.run(_serve({"redis": _Redis, "http": _Http}[sys.argv[1]]))
