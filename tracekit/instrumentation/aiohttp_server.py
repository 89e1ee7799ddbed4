"""aiohttp's server: one SERVER span for each request, from its headers to the last byte sent.

The seam is ``RequestHandler._handle_request``: it calls the application, answers its exceptions
and sends the response, for applications and for handlers without one, whatever was made before.
It is private, but has been there with the same parameters in every version supported. An
application's middlewares, the public way, are inside of what can fail and end before the body.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.propagators.textmap import Getter

from tracekit.instrumentation._forwarded import NOT_FORWARDED, forwarded
from tracekit.instrumentation._http_server import (
    REQUEST_KEY,
    HttpServer,
    ServerRequest,
    ServerSettings,
    current_request,
    detach_request,
)
from tracekit.instrumentation._http_server_attributes import Address, body_measures
from tracekit.instrumentation._patch import LibraryInstrumentor, quiet, report
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor
from tracekit.instrumentation._traceresponse import Answer, with_answer
from tracekit.instrumentation._websocket import SWITCHING_PROTOCOLS, WebSocketLife

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest, StreamResponse

    Call = Callable[..., Awaitable[Any]]

__all__ = ["AiohttpServerInstrumentor"]

_READ = ("Host", "User-Agent")
_FORWARDED = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto")
_VERSIONS: dict[Any, str] = {(1, 0): "1.0", (1, 1): "1.1"}  # all that aiohttp speaks
_UNKNOWN: Address = (None, None)


class AiohttpServerInstrumentor(ReplacingInstrumentor):
    """Watch requests that aiohttp serves; hooks get aiohttp's own request.

    Options: ``excluded_urls``, ``server_request_hook``, ``server_response_hook``,
    ``capture_request_headers``, ``capture_response_headers``, ``sanitize_headers``,
    ``known_methods``, ``links``, ``traceresponse``, ``trust``.
    """

    name = "aiohttp_server"
    distributions = ("aiohttp",)
    supported = ">=3.9,<4"
    contrib = ("aiohttp-server",)

    def configure(self, options: Mapping[str, Any]) -> None:
        settings = ServerSettings.read(self.name, options)
        # Names of headers are looked up without being folded to lower case each time.
        self._server = HttpServer(self.tracer, settings, _HeadersGetter(), _spelled)

    def patches(self) -> Sequence[Replacing]:
        app, routes = "aiohttp.web_app", "aiohttp.web_urldispatcher"
        response, socket = "aiohttp.web_response", "aiohttp.web_ws"
        return (
            Replacing("aiohttp.web_protocol", "RequestHandler._handle_request", self._serve),
            Replacing(response, "StreamResponse._start", _start),
            Replacing(response, "StreamResponse.write", _write),
            Replacing(routes, "UrlMappingMatchInfo.add_app", _match),
            # Where a middleware answers an exception, it is gone by the time of the response.
            Replacing(app, "_cached_build_middleware", _build, optional=True),  # since 3.10
            Replacing(routes, "View._iter", _iterate),
            Replacing(socket, "WebSocketResponse.receive", _receive),
            Replacing(socket, "WebSocketResponse.send_str", _send),
            Replacing(socket, "WebSocketResponse.send_bytes", _send),
        )

    def _serve(self, original: Call, owners: Sequence[object]) -> Call:
        names = tuple(map(_spelled, (*_READ, *_FORWARDED)))

        async def handle_request(
            protocol: Any, request: BaseRequest, start_time: Any, handler: Call
        ) -> Any:
            served = self._begin(request, names) if owners else None
            if served is None:
                return await original(protocol, request, start_time, handler)
            tokens = served.request.attach()
            try:
                answered: tuple[Any, bool] = await original(protocol, request, start_time, handler)
            except BaseException as error:
                served.broke_off(error)
                served.end(is_gone=True)
                raise
            else:
                served.end(answered[1])
                return answered
            finally:
                detach_request(tokens)

        return handle_request

    def _begin(self, request: BaseRequest, names: tuple[Any, ...]) -> _Served | None:
        try:  # and not `quiet`: one frame less for each request
            traced = _start_span(self._server, request, names)
            if traced is None:
                return None
            served = _Served(traced, self._server.hears)
            # Not `request[key]`, which warns of keys that are text.
            request._state[REQUEST_KEY] = served
        except Exception:
            report("the beginning of a request")
            return None
        return served


class _Served:
    """One request in aiohttp's hands: what was sent so far, and whether anybody takes it."""

    __slots__ = (
        "_bytes",
        "_chunks",
        "_first_ns",
        "_is_gone",
        "reads_headers",
        "request",
        "websocket",
    )

    def __init__(self, request: ServerRequest, reads_headers: bool) -> None:
        self.request = request
        self.reads_headers = reads_headers
        self.websocket: WebSocketLife | None = None
        self._bytes = self._chunks = self._first_ns = 0
        self._is_gone = False

    def started(self, response: StreamResponse, status: int) -> None:
        """Note a response whose headers are sent, or just about to be."""
        try:  # and not `quiet`: one frame less for each request
            request = self.request
            if isinstance(response, Exception):
                # `raise HTTPInternalServerError from error` is an answer to that error.
                request.suspect = response.__cause__ or request.suspect
            if status == SWITCHING_PROTOCOLS and hasattr(response, "close_code"):
                self.websocket = WebSocketLife(request, request.tracer)
                self.websocket.accepted(response.headers.items())
            elif request.is_silent:
                request.responded(status, ())
            else:
                told = request.responded(status, response.headers.items())
                if told and not self.reads_headers:
                    _tell(response, told)
        except Exception:
            report("the reading of a response")

    @quiet
    def about_to_start(self, response: StreamResponse) -> None:
        """Add to the headers, where they are noted only when they are sent."""
        told = self.request.answer(response.status)
        if told and response.status != SWITCHING_PROTOCOLS:
            _tell(response, told)

    def wrote(self, size: int) -> None:
        """Count a part of a streamed body."""
        if not self._chunks:
            self._first_ns = self.request.elapsed_ns()
        self._chunks += 1
        self._bytes += size

    def lost(self) -> None:
        """Note that the client did not wait for the response."""
        self._is_gone = True

    def broke_off(self, error: BaseException) -> None:
        """Record what nothing more could be answered to.

        Where a response is on its way already, aiohttp raises a ConnectionError instead.
        """
        if isinstance(error, ConnectionError):
            error = error.__context__ or error
        if self.websocket is not None:
            self.websocket.broke_off(error)
        elif isinstance(error, ConnectionError) or not isinstance(error, Exception):
            self._is_gone = True
        else:
            self.request.fail(error)

    def end(self, is_gone: bool) -> None:
        if self.websocket is not None:
            self.websocket.end()
        elif (is_gone or self._is_gone) and not self.request.failed:
            self.request.abandon(self._measures())
        else:
            self.request.end(self._measures() if self._chunks else None)

    def _measures(self) -> Mapping[str, Any] | None:
        return body_measures(self._chunks, self._bytes, self._first_ns)


def _tell(response: StreamResponse, told: Answer) -> None:
    headers = response.headers
    pairs = with_answer(headers.items(), told)
    headers.clear()
    headers.extend(pairs)


def _served(request: Any) -> _Served | None:
    return None if request is None else request._state.get(REQUEST_KEY)


def _start(original: Call, _owners: Sequence[object]) -> Call:
    # No coroutine of ours around the library's, where nothing is to be read when it is done.
    def start(response: StreamResponse, request: BaseRequest) -> Awaitable[Any]:
        served = _served(request)
        if served is None:
            return original(response, request)
        status = response.status
        if served.reads_headers or status == SWITCHING_PROTOCOLS:
            served.about_to_start(response)
            return _started(served, response, original(response, request))
        served.started(response, status)
        return original(response, request)

    return start


async def _started(served: _Served, response: StreamResponse, starting: Awaitable[Any]) -> Any:
    writer = await starting
    served.started(response, response.status)
    return writer


def _write(original: Call, _owners: Sequence[object]) -> Call:
    async def write(response: StreamResponse, data: Any) -> Any:
        served = _served(response._req)
        if served is None:
            return await original(response, data)
        try:
            result = await original(response, data)
        except OSError:
            served.lost()
            raise
        served.wrote(len(data))
        return result

    return write


def _match(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    def add_app(match: Any, app: Any) -> Any:
        request = current_request() if owners else None
        if request is not None:
            try:
                resource = match.route.resource
                if resource is not None:
                    request.matched(resource.canonical)
            except Exception:
                report("the name of a request")
        return original(match, app)

    return add_app


def _build(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    def build_middlewares(handler: Any, apps: Any) -> Any:
        # A class of views is told by its being a class; see `_iterate`.
        if owners and inspect.iscoroutinefunction(handler):
            handler = _suspecting(handler)
        return original(handler, apps)

    return build_middlewares


@functools.lru_cache(maxsize=1024)  # as aiohttp keeps the chains that it makes of them
def _suspecting(handler: Call) -> Call:
    @functools.wraps(handler)
    async def call(request: BaseRequest) -> Any:
        try:
            return await handler(request)
        except Exception as error:
            _suspect(error)
            raise

    return call


def _iterate(original: Call, owners: Sequence[object]) -> Call:
    async def iterate(view: Any) -> Any:
        try:
            return await original(view)
        except Exception as error:
            if owners:
                _suspect(error)
            raise

    return iterate


def _suspect(error: Exception) -> None:
    request = current_request()
    if request is not None and not hasattr(error, "status_code"):
        request.suspect = error


def _receive(original: Call, _owners: Sequence[object]) -> Call:
    async def receive(socket: Any, *args: Any, **kwargs: Any) -> Any:
        message = await original(socket, *args, **kwargs)
        _count_received(socket, message)
        return message

    return receive


@quiet
def _count_received(socket: Any, message: Any) -> None:
    served = _served(socket._req)
    if served is None or served.websocket is None:
        return
    if isinstance(message.data, (str, bytes)) and message.type.name in ("TEXT", "BINARY"):
        served.websocket.received(message.data)
    else:
        served.websocket.close_code = socket.close_code


def _send(original: Call, _owners: Sequence[object]) -> Call:
    async def send(socket: Any, data: Any, *args: Any, **kwargs: Any) -> Any:
        result = await original(socket, data, *args, **kwargs)
        served = _served(socket._req)
        if served is not None and served.websocket is not None:
            served.websocket.sent(data)
        return result

    return send


class _HeadersGetter(Getter[Any]):
    """Read headers from the multidict of a request."""

    def get(self, carrier: Any, key: str) -> list[str] | None:
        values = carrier.getall(key, None)
        return None if values is None else [_text(value) for value in values]

    def keys(self, carrier: Any) -> list[str]:
        return list(dict.fromkeys(name.lower() for name in carrier))


def _text(value: str) -> str:
    # aiohttp decodes headers as UTF-8 and keeps what is none of it as lone surrogates, which
    # nothing further on can encode.
    return (
        value
        if value.isascii()
        else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    )


def _spelled(name: str) -> Any:
    return sys.modules["multidict"].istr(name)


def _start_span(
    server: HttpServer, request: BaseRequest, names: tuple[Any, ...]
) -> ServerRequest | None:
    host_name, agent_name, by_standard, by_for, by_host, by_proto = names
    # What the public properties are made of, without a frame for each.
    headers, url = request._headers, request._rel_url
    host, user_agent = headers.get(host_name), headers.get(agent_name)
    is_proxied = by_standard in headers or by_for in headers or by_host in headers
    is_proxied = is_proxied or by_proto in headers
    return server.start(
        request,
        headers,
        headers,
        request._method,
        request.scheme,
        url.path,
        url.raw_query_string,
        _VERSIONS.get(request._version),
        _address(request._transport_peername),
        _UNKNOWN if host else _own_address(request),
        host if host is None or host.isascii() else _text(host),
        user_agent if user_agent is None or user_agent.isascii() else _text(user_agent),
        forwarded(*map(headers.get, names[2:])) if is_proxied else NOT_FORWARDED,
    )


def _own_address(request: BaseRequest) -> Address:
    transport = request.transport
    return _UNKNOWN if transport is None else _address(transport.get_extra_info("sockname"))


def _address(name: Any) -> Address:
    """Return host and port of a socket's name, which is a path or empty for a Unix socket."""
    return (name[0], name[1]) if isinstance(name, tuple) and len(name) >= 2 else _UNKNOWN


plugin: type[LibraryInstrumentor] = AiohttpServerInstrumentor
