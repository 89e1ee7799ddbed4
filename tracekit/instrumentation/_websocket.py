"""WebSockets over ASGI: a SERVER span for the handshake, an INTERNAL one for the connection.

A connection may last for days, a SERVER span must not: it ends when the connection is accepted
(101) or denied. What the program does afterwards has a live parent in the second span, which also
counts the messages.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace import Span, Tracer

from tracekit import semconv
from tracekit.instrumentation._http import record_failure
from tracekit.instrumentation._http_server import ServerRequest
from tracekit.instrumentation._patch import quiet

__all__ = ["WebSocket"]

RECEIVED_MESSAGES = "tracekit.websocket.received_messages"
RECEIVED_BYTES = "tracekit.websocket.received_bytes"
SENT_MESSAGES = "tracekit.websocket.sent_messages"
SENT_BYTES = "tracekit.websocket.sent_bytes"
CLOSE_CODE = "tracekit.websocket.close_code"  # https://www.rfc-editor.org/rfc/rfc6455#section-7.4

_SWITCHING_PROTOCOLS = 101
# What a server answers to a close before the handshake: the ASGI specification says so.
_FORBIDDEN = 403

Message = Any


class WebSocket:
    """One connection, from its handshake to its close."""

    def __init__(
        self,
        request: ServerRequest,
        tracer: Tracer,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        self._request = request
        self._tracer = tracer
        self._receive = receive
        self._send = send
        self._connection: Span | None = None
        self._received = [0, 0]  # messages, bytes
        self._sent = [0, 0]
        self._close_code: int | None = None

    async def serve(self, app: Callable[..., Awaitable[None]], scope: Any) -> None:
        request = self._request
        tokens = request.attach()
        try:
            await app(scope, self.receive, self.send)
        except BaseException as exception:
            self._broke_off(exception)
            raise
        finally:
            self._end()
            request.detach(tokens)

    async def receive(self) -> Message:
        message = await self._receive()
        kind = message["type"]
        if kind == "websocket.receive":
            _count(self._received, message)
        elif kind == "websocket.disconnect":
            self._close_code = message.get("code")
        return message

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.http.response.start":
            self._responded(message["status"], message)
        await self._send(message)
        if kind == "websocket.send":
            _count(self._sent, message)
        elif kind == "websocket.accept":
            self._accepted(message)
        elif kind == "websocket.close":
            self._closed(message)
        elif kind == "websocket.http.response.body" and not message.get("more_body"):
            self._request.end()

    @quiet
    def _responded(self, status: int, message: Message) -> None:
        self._request.responded(status, message.get("headers", ()))

    @quiet
    def _accepted(self, message: Message) -> None:
        request = self._request
        self._responded(_SWITCHING_PROTOCOLS, message)
        name = f"websocket {request.route}" if request.route else "websocket"
        attributes = {semconv.HTTP_ROUTE: request.route} if request.route else None
        connection = self._tracer.start_span(name, request.context, attributes=attributes)
        self._connection = connection
        request.end()
        # Current from here to the end of the application, which runs in this very task; the
        # request's own tokens restore what was before both.
        otel_context.attach(trace.set_span_in_context(connection, request.context))

    def _closed(self, message: Message) -> None:
        if self._connection is None:
            self._responded(_FORBIDDEN, message)
            self._request.end()
        else:
            self._close_code = message.get("code", 1000)
            self._end()

    def _broke_off(self, exception: BaseException) -> None:
        if self._is_departure(exception):
            return
        if self._connection is None:
            self._request.fail(exception)
        elif self._connection.is_recording():
            record_failure(self._connection, exception)

    def _is_departure(self, exception: BaseException) -> bool:
        """Say whether an exception only tells the program that the connection is closed."""
        if not isinstance(exception, Exception):
            return type(exception).__name__ in ("CancelledError", "Cancelled", "GeneratorExit")
        # Starlette's; uvicorn's and websockets' own, raised where the program sends too late.
        return type(exception).__name__ in ("WebSocketDisconnect", "ClientDisconnected")

    @quiet
    def _end(self) -> None:
        request, connection = self._request, self._connection
        if connection is None:
            if request.failed:
                request.end()
            elif not request.is_ended:
                request.abandon()
            return
        if not connection.is_recording():
            return
        connection.set_attributes(
            {
                RECEIVED_MESSAGES: self._received[0],
                RECEIVED_BYTES: self._received[1],
                SENT_MESSAGES: self._sent[0],
                SENT_BYTES: self._sent[1],
            }
        )
        if self._close_code is not None:
            connection.set_attribute(CLOSE_CODE, self._close_code)
        connection.end()


def _count(counts: list[int], message: Message) -> None:
    counts[0] += 1
    data = message.get("bytes")
    text = message.get("text") or ""
    if data is not None:
        counts[1] += len(data)
    else:
        counts[1] += len(text) if text.isascii() else len(text.encode("utf-8", "replace"))
