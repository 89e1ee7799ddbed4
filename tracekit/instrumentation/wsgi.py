"""WSGI applications: one SERVER span a request, from the call to the last byte of the body.

There is nothing to patch in an interface: wrap the application by hand in :class:`WSGIMiddleware`,
or instrument the framework it is written with.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import Tracer, TracerProvider

from tracekit import semconv
from tracekit._otel_context import attach, current_context, detach
from tracekit._version import __version__
from tracekit.instrumentation._forwarded import NOT_FORWARDED, forwarded
from tracekit.instrumentation._http_server import (
    REQUEST_KEY,
    HttpServer,
    ServerRequest,
    ServerSettings,
    adopt_route,
    enter_request,
    leave_request,
    name_route,
    note_exception,
)
from tracekit.instrumentation._http_server_attributes import body_measures, port_number
from tracekit.instrumentation._patch import (
    InstrumentationStatus,
    LibraryInstrumentor,
    Patch,
    report,
)
from tracekit.instrumentation._traceresponse import with_answer

__all__ = ["WSGIMiddleware", "WsgiInstrumentor", "WsgiServer", "name_route", "note_exception"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]


_UNPREFIXED = ("CONTENT_TYPE", "CONTENT_LENGTH")


@functools.lru_cache(maxsize=256)
def _environ_key(header: str) -> str:
    key = header.upper().replace("-", "_")
    return key if key in _UNPREFIXED else "HTTP_" + key


class _EnvironGetter(Getter[Environ]):
    """Read headers where WSGI keeps them."""

    def get(self, carrier: Environ, key: str) -> list[str] | None:
        value = carrier.get(_environ_key(key))
        return None if value is None else [value]

    def keys(self, carrier: Environ) -> list[str]:
        return [
            key.removeprefix("HTTP_").replace("_", "-").lower()
            for key in carrier
            if key.startswith("HTTP_") or key in _UNPREFIXED
        ]


class WsgiServer:
    """Trace the requests of WSGI applications.

    Args:
        is_whole: Tells a body that is in memory, and closed once it is sent, from a stream.
    """

    def __init__(
        self,
        tracer: Tracer,
        settings: ServerSettings,
        is_whole: Callable[[Any], bool] | None = None,
    ) -> None:
        self._server = HttpServer(tracer, settings, _EnvironGetter(), _environ_key)
        self._is_whole = is_whole

    def run(self, app: WsgiApp, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Call `app`, and return its body so that the span ends when the body does."""
        if REQUEST_KEY in environ:  # we are mounted in an application that is traced
            return app(environ, start_response)
        try:  # and not `quiet`: one frame less for each request
            request = _start(self._server, environ)
        except Exception:
            report("the beginning of a request")
            request = None
        environ[REQUEST_KEY] = request
        if request is None:
            return app(environ, start_response)
        token, outer = enter_request(request), attach(request.context)
        try:
            body = app(environ, _watched(start_response, request, environ))
        except BaseException as exception:
            request.fail(exception)
            # A server sends no header before the first chunk: whatever start_response was told.
            request.status = 500
            request.end()
            raise
        finally:
            leave_request(token)
            detach(outer)
        if self._is_whole is not None and self._is_whole(body):
            return _WholeBody(body, request)
        return _until_its_end(body, request, environ)


class WSGIMiddleware:
    """Trace the requests that pass through a WSGI application.

    Options are those of `instrument()`: ``excluded_urls``, ``server_request_hook``,
    ``server_response_hook``, ``capture_request_headers``, ``capture_response_headers``,
    ``sanitize_headers``, ``known_methods``, ``links``, ``traceresponse``, ``trust``.
    """

    def __init__(
        self, app: WsgiApp, *, tracer_provider: TracerProvider | None = None, **options: Any
    ) -> None:
        self.app = app
        tracer = trace.get_tracer(
            "tracekit.instrumentation.wsgi",
            __version__,
            tracer_provider,
            schema_url=semconv.SCHEMA_URL,
        )
        self._server = WsgiServer(tracer, ServerSettings.read("wsgi", options))

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return self._server.run(self.app, environ, start_response)


def _start(server: HttpServer, environ: Environ) -> ServerRequest | None:
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    if not path.isascii():  # PEP 3333: bytes, each as the character of its number
        path = path.encode("latin-1", "replace").decode("utf-8", "replace")
    version, port = environ.get("SERVER_PROTOCOL", ""), environ.get("REMOTE_PORT")
    return server.start(
        environ,
        environ,
        environ,
        environ.get("REQUEST_METHOD", ""),
        environ.get("wsgi.url_scheme", "http"),
        path,
        environ.get("QUERY_STRING", ""),
        version[5:] if version.startswith("HTTP/") else None,
        (environ.get("REMOTE_ADDR"), None if port is None else port_number(port)),
        (environ.get("SERVER_NAME"), environ.get("SERVER_PORT")),
        environ.get("HTTP_HOST"),
        environ.get("HTTP_USER_AGENT"),
        forwarded(
            environ.get("HTTP_FORWARDED"),
            environ.get("HTTP_X_FORWARDED_FOR"),
            environ.get("HTTP_X_FORWARDED_HOST"),
            environ.get("HTTP_X_FORWARDED_PROTO"),
        )
        if "HTTP_FORWARDED" in environ
        or "HTTP_X_FORWARDED_FOR" in environ
        or "HTTP_X_FORWARDED_HOST" in environ
        or "HTTP_X_FORWARDED_PROTO" in environ
        else NOT_FORWARDED,
    )


def _watched(
    start_response: StartResponse, request: ServerRequest, environ: Environ
) -> StartResponse:
    """Note the status; what `start_response` returns is the server's own write()."""

    def start(status: str, headers: Any, exc_info: Any = None) -> Any:
        try:
            if not request.route:
                adopt_route(request, environ)
            if exc_info is not None and exc_info[1] is not None:
                request.suspect = exc_info[1]
            code = status[:3]
            told = request.responded(int(code) if code.isdecimal() else 0, headers)
            request.body_length = _content_length(headers)
            if told:
                headers = with_answer(headers, told)
        except Exception:
            report("the reading of a response")
        if exc_info is None:
            return start_response(status, headers)
        return start_response(status, headers, exc_info)

    return start


def _content_length(headers: Any) -> int:
    """Return how many bytes the body has, or more than it ever will where that is not said.

    Spelled in one of the two ways that frameworks do: looking at each of the headers takes longer.
    """
    said = dict(headers)
    length = said.get("Content-Length") or said.get("content-length")
    return int(length) if length is not None and length.isdecimal() else sys.maxsize


def _until_its_end(
    body: Iterable[bytes], request: ServerRequest, environ: Environ
) -> Iterable[bytes]:
    """Return `body`, or the same chunks in something that ends the span behind the last one."""
    if isinstance(body, (list, tuple)):
        # Complete already, and servers look for its length.
        request.end()
        return body
    wrapper = environ.get("wsgi.file_wrapper")
    if wrapper is not None and _is_file(body, wrapper) and _ends_at_close(body, request):
        return body
    return (_SizedBody if hasattr(body, "__len__") else _Body)(body, request)


def _is_file(body: Iterable[bytes], wrapper: Any) -> bool:
    """Say whether the server knows a faster way to send this body than by iterating it.

    Servers tell by the class: https://peps.python.org/pep-3333/#optional-platform-specific-file-handling
    """
    return isinstance(wrapper, type) and isinstance(body, wrapper)


def _ends_at_close(body: Any, request: ServerRequest) -> bool:
    """End the span in the body's own close(); False where that cannot be replaced."""
    close = getattr(body, "close", None)

    def close_and_end() -> None:
        try:
            if close is not None:
                close()
        finally:
            request.end()

    try:
        body.close = close_and_end
    except AttributeError:
        return False
    return True


class _Body:
    """The chunks of a response, each made with the span current, which ends after the last.

    A server may iterate in another thread than the one that called the application, and drop
    the body without closing it.
    """

    __slots__ = (
        "__weakref__",
        "_body",
        "_bytes",
        "_chunks",
        "_context",
        "_first_ns",
        "_iterator",
        "_request",
    )

    def __init__(self, body: Iterable[bytes], request: ServerRequest) -> None:
        self._body = body
        self._request = request
        self._context = request.context
        self._iterator: Iterator[bytes] | None = None
        self._chunks = 0
        self._bytes = 0
        self._first_ns = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        request, iterator = self._request, self._iterator
        if iterator is not None and request.is_ended:
            # Behind the last byte: the span is over, and usually so is the body.
            return next(iterator)
        token = attach(self._context)
        try:
            if iterator is None:
                iterator = self._iterator = iter(self._body)
            chunk = next(iterator)
            # A generator may hold a span open across its yields: that one is the parent again
            # when the generator goes on.
            self._context = current_context()
        except StopIteration:
            request.end(self._measures())
            raise
        except BaseException as exception:
            request.fail(exception)
            request.end(self._measures())
            raise
        finally:
            detach(token)
        if isinstance(chunk, bytes):  # anything else is for the server to refuse
            self._count(len(chunk), request)
        return chunk

    def _count(self, size: int, request: ServerRequest) -> None:
        self._bytes += size
        if size:
            self._chunks += 1
        # Clients inside the process (Flask's, for tests) ask for no more than they need.
        if self._bytes >= request.body_length:
            request.end(self._measures() if self._chunks > 1 else None)
        elif self._chunks == 1 and size:
            self._first_ns = request.elapsed_ns()

    def close(self) -> None:
        """Close the program's body; what it has not sent by then, nobody waits for."""
        request = self._request
        token = attach(self._context)
        try:
            close = getattr(self._body, "close", None)
            if close is not None:
                close()
        except BaseException as exception:
            request.fail(exception)
            raise
        finally:
            detach(token)
            if not request.is_ended:
                self._abandon()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __del__(self) -> None:
        if not self._request.is_ended:
            self._abandon()

    def _abandon(self) -> None:
        self._request.abandon(self._measures())

    def _measures(self) -> Mapping[str, Any] | None:
        return body_measures(self._chunks, self._bytes, self._first_ns)


class _SizedBody(_Body):
    """A body whose number of chunks is known; of one chunk a server makes a Content-Length."""

    __slots__ = ()

    def __len__(self) -> int:
        return len(self._body)  # type: ignore[arg-type]


class _WholeBody:
    """A body that is in memory already: iterated as it is, it ends the span when it is closed."""

    __slots__ = ("__weakref__", "_body", "_request")

    def __init__(self, body: Iterable[bytes], request: ServerRequest) -> None:
        self._body = body
        self._request = request

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._body)

    def close(self) -> None:
        request = self._request
        token = attach(request.context)
        try:
            self._body.close()  # type: ignore[attr-defined]
        except BaseException as exception:
            request.fail(exception)
            raise
        finally:
            detach(token)
            request.end()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __del__(self) -> None:
        self._request.end()


class WsgiInstrumentor(LibraryInstrumentor):
    """Have nothing to patch: WSGI applications are wrapped by hand or through their framework."""

    name = "wsgi"
    contrib = ("wsgi",)

    def patches(self) -> Sequence[Patch]:
        return ()

    @property
    def status(self) -> InstrumentationStatus:
        reason = f"nothing to patch: wrap applications in {__name__}.{WSGIMiddleware.__name__}"
        return InstrumentationStatus(self.name, None, self.supported, False, reason)


plugin: type[LibraryInstrumentor] = WsgiInstrumentor
