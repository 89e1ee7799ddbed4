"""A server of MongoDB's wire protocol on loopback, with the few commands that the tests send.

No MongoDB, and nothing that speaks its protocol, can be had from the registries that the tests
install from. This one reads and writes OP_MSG with the `bson` of pymongo itself, and answers the
OP_QUERY by which older ones say hello.
https://www.mongodb.com/docs/manual/reference/mongodb-wire-protocol/
"""

from __future__ import annotations

import contextlib
import socketserver
import struct
import threading
from collections.abc import Iterator
from typing import Any

import bson

__all__ = ["mongo_server"]

_OP_MSG = 2013
_OP_QUERY = 2004
_OP_REPLY = 1
_MORE_TO_COME = 2  # a flag: whoever sent it waits for no answer


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    allow_reuse_address = True


class _Connection(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        with contextlib.suppress(OSError, EOFError):
            while True:
                length, request_id, _, kind = struct.unpack("<iiii", self._read(16))
                message = self._read(length - 16)
                answer = _answer(_query(message) if kind == _OP_QUERY else _command(message))
                if answer is None:
                    return
                if kind == _OP_MSG and message[0] & _MORE_TO_COME:
                    continue
                if kind == _OP_QUERY:
                    kind, body = _OP_REPLY, struct.pack("<iqii", 8, 0, 0, 1) + bson.encode(answer)
                else:
                    body = struct.pack("<i", 0) + b"\0" + bson.encode(answer)
                header = struct.pack("<iiii", len(body) + 16, 1, request_id, kind)
                self.request.sendall(header + body)

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.request.recv(size - len(data))
            if not part:
                raise EOFError
            data += part
        return data


def _query(message: bytes) -> dict[str, Any]:
    """Return the document of a query: behind flags, a name, and two numbers."""
    return dict(bson.decode(message[message.index(b"\0", 4) + 9 :]))


def _command(message: bytes) -> dict[str, Any]:
    """Return the document of a message, with the sequences of documents beside it put in."""
    command: dict[str, Any] = {}
    at = 4
    while at < len(message):
        kind, at = message[at], at + 1
        (size,) = struct.unpack_from("<i", message, at)
        if kind == 0:
            command.update(bson.decode(message[at : at + size]))
        else:
            name, _, documents = message[at + 4 : at + size].partition(b"\0")
            command[name.decode()] = bson.decode_all(documents)
        at += size
    return command


def _answer(command: dict[str, Any]) -> dict[str, Any] | None:
    name = next(iter(command))
    collection = command.get("collection", command[name])
    namespace = f"{command.get('$db')}.{collection}"
    if name in ("hello", "ismaster", "isMaster"):
        return {
            "ok": 1,
            "isWritablePrimary": True,
            "helloOk": True,
            "minWireVersion": 0,
            "maxWireVersion": 21,
            "maxBsonObjectSize": 2**24,
            "maxMessageSizeBytes": 48_000_000,
            "maxWriteBatchSize": 100_000,
        }
    if collection == "dropped":
        return None
    if collection == "slow":
        threading.Event().wait(1)
    if collection == "refused":
        return {"ok": 0, "code": 13, "codeName": "Unauthorized", "errmsg": "not yours"}
    if collection == "twice":
        error = {"index": 0, "code": 11000, "errmsg": "E11000 duplicate key"}
        return {"ok": 1, "n": 0, "writeErrors": [error]}
    if name == "find":
        return {"ok": 1, "cursor": {"id": 7, "ns": namespace, "firstBatch": [{"n": 1}, {"n": 2}]}}
    if name == "getMore":
        return {"ok": 1, "cursor": {"id": 0, "ns": namespace, "nextBatch": [{"n": 3}]}}
    return {"ok": 1, "n": len(command.get("documents", ()))}


@contextlib.contextmanager
def mongo_server() -> Iterator[int]:
    """Serve, and yield the port."""
    with _Server(("127.0.0.1", 0), _Connection) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()
