"""A server on 127.0.0.1 that answers every request alike: ``python -m benchmarks.loopback``.

A GET is answered with two letters, a POST as an OTLP server that took everything, after as many
milliseconds as the argument says. Prints its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import re
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nok"
_TAKEN = b"HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n"

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


class _Answers(asyncio.Protocol):
    def __init__(self, latency_s: float) -> None:
        self._latency_s = latency_s

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._received = bytearray()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end)
        if len(self._received) < end + 4 + (int(length[1]) if length else 0):
            return
        is_post = self._received.startswith(b"POST")
        self._received.clear()
        if not is_post:
            self._transport.write(_ANSWER)
        elif not self._latency_s:
            self._transport.write(_TAKEN)
        else:
            asyncio.get_running_loop().call_later(self._latency_s, self._transport.write, _TAKEN)


async def _serve(latency_s: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Answers(latency_s), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    # Leaving `async with server` would wait for clients that keep their connections.
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1]) / 1000 if sys.argv[1:] else 0.0))
