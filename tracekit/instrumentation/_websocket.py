"""WebSockets: a SERVER span for the handshake, an INTERNAL one for the connection.

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
from tracekit.instrumentation._http_server import (
    Headers,
    ServerRequest,
    adopt_route,
    detach_request,
)
from tracekit.instrumentation._patch import quiet

__all__ = ["SWITCHING_PROTOCOLS", "WebSocket", "WebSocketLife"]

RECEIVED_MESSAGES = "tracekit.websocket.received_messages"
RECEIVED_BYTES = "tracekit.websocket.received_bytes"
SENT_MESSAGES = "tracekit.websocket.sent_messages"
SENT_BYTES = "tracekit.websocket.sent_bytes"
CLOSE_CODE = "tracekit.websocket.close_code"  # https://www.rfc-editor.org/rfc/rfc6455#section-7.4

SWITCHING_PROTOCOLS = 101
# What a server answers to a close before the handshake: the ASGI specification says so.
_FORBIDDEN = 403

Message = Any


class WebSocketLife:
    """One connection, from its handshake to its close, whatever interface shows it.

    Called from the task that serves the connection.
    """

    def __init__(self, request: ServerRequest, tracer: Tracer) -> None:
        self._request = request
        self._tracer = tracer
        self._connection: Span | None = None
        self._received = [0, 0]  # messages, bytes
        self._sent = [0, 0]
        self.close_code: int | None = None

    @property
    def is_accepted(self) -> bool:
        return self._connection is not None

    @quiet
    def responded(self, status: int, headers: Headers) -> None:
        self._request.responded(status, headers)

    @quiet
    def accepted(self, headers: Headers) -> None:
        """End the handshake and begin the connection, which is current from here on."""
        request = self._request
        self.responded(SWITCHING_PROTOCOLS, headers)
        name = f"websocket {request.route}" if request.route else "websocket"
        attributes = {semconv.HTTP_ROUTE: request.route} if request.route else None
        connection = self._tracer.start_span(name, request.context, attributes=attributes)
        self._connection = connection
        request.end()
        # Current to the end of the application, which runs in this very task; the request's own
        # tokens restore what was before both.
        otel_context.attach(trace.set_span_in_context(connection, request.context))

    def received(self, data: str | bytes) -> None:
        _count(self._received, data)

    def sent(self, data: str | bytes) -> None:
        _count(self._sent, data)

    def broke_off(self, exception: BaseException) -> None:
        """Record an exception that leaves the application."""
        if _is_departure(exception):
            return
        if self._connection is None:
            self._request.fail(exception)
        elif self._connection.is_recording():
            record_failure(self._connection, exception)

    @quiet
    def end(self) -> None:
        """End what has not ended: the connection, or a handshake that was never answered."""
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
        if self.close_code is not None:
            connection.set_attribute(CLOSE_CODE, self.close_code)
        connection.end()


class WebSocket(WebSocketLife):
    """A connection whose messages come by as those of ASGI."""

    def __init__(
        self,
        request: ServerRequest,
        tracer: Tracer,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        super().__init__(request, tracer)
        self._receive = receive
        self._send = send

    async def serve(self, app: Callable[..., Awaitable[None]], scope: Any) -> None:
        self._scope = scope
        request = self._request
        tokens = request.attach()
        try:
            await app(scope, self.receive, self.send)
        except BaseException as exception:
            self.broke_off(exception)
            raise
        finally:
            self.end()
            detach_request(tokens)

    async def receive(self) -> Message:
        message = await self._receive()
        self._came(message)
        return message

    async def send(self, message: Message) -> None:
        self._goes(message)
        await self._send(message)
        self._went(message)

    @quiet
    def _came(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.receive":
            self.received(_data(message))
        elif kind == "websocket.disconnect":
            self.close_code = message.get("code")

    @quiet
    def _goes(self, message: Message) -> None:
        if message["type"] == "websocket.http.response.start":
            self.responded(message["status"], message.get("headers", ()))

    @quiet
    def _went(self, message: Message) -> None:
        kind = message["type"]
        if kind == "websocket.send":
            self.sent(_data(message))
        elif kind == "websocket.accept":
            if not self._request.route:
                adopt_route(self._request, self._scope)
            self.accepted(message.get("headers", ()))
        elif kind == "websocket.close":
            self._closed(message)
        elif kind == "websocket.http.response.body" and not message.get("more_body"):
            self._request.end()

    def _closed(self, message: Message) -> None:
        if self.is_accepted:
            self.close_code = message.get("code", 1000)
            self.end()
        else:
            self.responded(_FORBIDDEN, message.get("headers", ()))
            self._request.end()


def _is_departure(exception: BaseException) -> bool:
    """Say whether an exception only tells the program that the connection is closed."""
    if not isinstance(exception, Exception):
        return type(exception).__name__ in ("CancelledError", "Cancelled", "GeneratorExit")
    # Starlette's, Litestar's; uvicorn's and websockets' own, raised where the program sends too
    # late; what aiohttp's transport says then.
    return isinstance(exception, ConnectionResetError) or type(exception).__name__ in (
        "WebSocketDisconnect",
        "ClientDisconnected",
    )


def _data(message: Message) -> str | bytes:
    data = message.get("bytes")
    return (message.get("text") or "") if data is None else data


def _count(counts: list[int], data: str | bytes) -> None:
    counts[0] += 1
    if isinstance(data, str) and not data.isascii():
        data = data.encode("utf-8", "replace")
    counts[1] += len(data)
