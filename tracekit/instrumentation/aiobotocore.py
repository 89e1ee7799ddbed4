"""aiobotocore, and aioboto3 on it: what botocore has, one span for a call and for each attempt.

The requests of a call are seen where the library hands them to aiohttp or httpx, and not within
these, which it can do without. An attempt ends when that function returns: the body is read by
then, unless the program reads it as a stream.
https://opentelemetry.io/docs/specs/semconv/cloud-providers/aws-sdk/
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tracekit import semconv
from tracekit.instrumentation._botocore import CallSteps, complete
from tracekit.instrumentation._http_client import current_exchange
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["AiobotocoreInstrumentor"]

_Call = Callable[..., Awaitable[Any]]


class AiobotocoreInstrumentor(ReplacingInstrumentor):
    """Watch aiobotocore. Options are those of botocore."""

    name = "aiobotocore"
    distributions = ("aiobotocore",)
    supported = ">=2.5,<4"
    contrib = ("aiobotocore",)

    def configure(self, options: Mapping[str, Any]) -> None:
        self._steps = CallSteps(self.name, self.tracer, _timeouts_of, **options)

    def patches(self) -> Sequence[Replacing]:
        over_httpx = "aiobotocore.httpxsession"  # since 2.20
        return (
            Replacing("aiobotocore.client", "AioBaseClient._make_api_call", self._make_api_call),
            Replacing("aiobotocore.httpsession", "AIOHTTPSession.send", self._send),
            Replacing(over_httpx, "HttpxSession.send", self._send, optional=True),
        )

    def _make_api_call(self, original: _Call, owners: Sequence[object]) -> _Call:
        begin = self._steps.begin

        async def make_api_call(client: Any, operation_name: str, api_params: Any) -> Any:
            call = begin(client, operation_name, api_params) if owners else None
            if call is None:
                return await original(client, operation_name, api_params)
            try:
                response = await original(client, operation_name, call.params)
            except BaseException as error:
                call.fail(error)
                raise
            call.succeed(response)
            return response

        return make_api_call

    def _send(self, original: _Call, owners: Sequence[object]) -> _Call:
        steps = self._steps

        async def send(session: Any, request: Any) -> Any:
            exchange: Any = current_exchange()
            if exchange is None or exchange.owner is not session or exchange.closed:
                alone = send_alone if owners else original
                return await alone(session, request)
            attempt = steps.begin_attempt(exchange, request, request.headers)
            if attempt is None:
                return await original(session, request)
            # aiohttp and httpx may be watched themselves, by whomever: this attempt is theirs.
            attempt.silence()
            try:
                response = await original(session, request)
            except BaseException as error:
                attempt.fail(error)
                raise
            raw = getattr(response, "raw", None)
            attempt.peer = _peer_of(raw)
            complete(attempt, response, _version_of(raw))
            return response

        async def send_alone(session: Any, request: Any) -> Any:
            """Send what no call asked for, such as a request for credentials."""
            exchange = steps.sending(session)
            try:
                return await send(session, request)
            finally:
                exchange.close()

        return send


def _timeouts_of(session: Any) -> Mapping[str, float]:
    """Return the limits of a ``ClientTimeout`` of aiohttp, or of a ``Timeout`` of httpx."""
    timeout = getattr(session, "_timeout", None)
    connect = getattr(timeout, "sock_connect", getattr(timeout, "connect", None))
    read = getattr(timeout, "sock_read", getattr(timeout, "read", None))
    return _limits(connect, read)


@functools.lru_cache(maxsize=64)
def _limits(connect: float | None, read: float | None) -> Mapping[str, float]:
    limits = {semconv.TIMEOUT_CONNECT: connect, semconv.TIMEOUT_READ: read}
    return {name: s for name, s in limits.items() if s is not None}


def _version_of(raw: Any) -> str:
    """Return the protocol version of a response of aiohttp or httpx, empty when unknown."""
    version: Any = getattr(raw, "version", None)
    if isinstance(version, tuple) and len(version) == 2:
        return f"{version[0]}.{version[1]}"
    text = getattr(raw, "http_version", "")
    return text.removeprefix("HTTP/") if isinstance(text, str) else ""


def _peer_of(raw: Any) -> Sequence[Any]:
    """Return the other end of a response's connection; empty once that was given back."""
    try:
        if hasattr(raw, "extensions"):  # of httpx
            peer = raw.extensions["network_stream"].get_extra_info("server_addr")
        else:
            peer = raw.connection.transport.get_extra_info("peername")
    except Exception:
        return ()
    return peer if isinstance(peer, tuple) else ()


plugin: type[LibraryInstrumentor] = AiobotocoreInstrumentor
