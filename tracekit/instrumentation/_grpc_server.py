"""Calls of gRPC that the program serves: one SERVER span for each, streams until their end.

The handler is wrapped as it is found for a call, outside of the program's interceptors, so one
that refuses is seen. Synchronous servers look it up in one function, whenever they were made;
an asynchronous server does in C, so it gets an interceptor in front of its own when it is made.
"""

from __future__ import annotations

import functools
import inspect
import operator
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from opentelemetry.trace import SpanKind, Status, StatusCode

from tracekit import semconv
from tracekit._otel_context import NO_CONTEXT
from tracekit._otel_propagate import TEXTMAP
from tracekit.instrumentation._grpc import (
    CANCELLED,
    OK,
    UNKNOWN,
    GrpcSettings,
    end_with,
    method_of,
    name_of_code,
    texts_of,
)
from tracekit.instrumentation._http import is_cancellation
from tracekit.instrumentation._operation import Operation, begin_work
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._traceresponse import NEVER, answer, with_answer
from tracekit.instrumentation._trust import Caller, Trust, caller_of

__all__ = ["server_patches"]

# The others are the caller's mistakes, and no failure of the server.
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_SERVER_ERRORS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
_SERVER = SpanKind.SERVER
_SUCCESS = {semconv.RPC_STATUS_CODE: OK}
_NOBODY = Caller(NO_CONTEXT, ())
_key_of = operator.itemgetter(0)
_MOST_KEPT = 1024
_MOST_PEERS = 64


def server_patches(settings: GrpcSettings) -> Sequence[Replacing]:
    """Return what makes spans of the calls that servers answer."""
    served = _Served(settings)
    return (
        Replacing("grpc._server", "_find_method_handler", served.found),
        Replacing("grpc.aio._server", "Server.__init__", served.made),
    )


class _Served:
    def __init__(self, settings: GrpcSettings) -> None:
        self._settings = settings
        self._watched: dict[str | bytes, tuple[Any, Any]] = {}

    def found(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        # The library itself calls it, by position, with more of them from version to version.
        def find(*args: Any) -> Any:
            handler = original(*args)
            if not owners:
                return handler
            try:
                # A registered method, from grpcio 1.63 on, comes without its name in the event.
                details = args[0].call_details
                path = details.method if details is not None else b""
                if not path:
                    path = args[2].name()
                known = watched.get(path)
                if known is not None and known[0] is handler:
                    return known[1]
                if handler is None:
                    self._refuse(path, args[0].invocation_metadata)
                return self.watched(handler, path)
            except Exception:
                report("the watching of a handler")
                return handler

        watched = self._watched

        return find

    def made(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        def initialize(
            server: Any,
            thread_pool: Any,
            generic_handlers: Any,
            interceptors: Any,
            *args: Any,
            **kwargs: Any,
        ) -> None:
            if owners:
                interceptors = (_interceptor(self, owners), *(interceptors or ()))
            original(server, thread_pool, generic_handlers, interceptors, *args, **kwargs)

        return initialize

    def watched(self, handler: Any, path: str | bytes) -> Any:
        """Return a handler that does the same below a span; the same one for the same."""
        known = self._watched.get(path)
        if known is not None and known[0] is handler:
            return known[1]
        watched = self._below_span(handler, path)
        if handler is not None:
            if len(self._watched) >= _MOST_KEPT:
                self._watched.clear()
            self._watched[path] = (handler, watched)
        return watched

    def _below_span(self, handler: Any, path: str | bytes) -> Any:
        if handler is None or method_of(path).service in self._settings.excluded:
            return handler
        kind = ("stream" if handler.request_streaming else "unary") + (
            "_stream" if handler.response_streaming else "_unary"
        )
        behavior = getattr(handler, kind)
        if getattr(behavior, "experimental_non_blocking", False):
            return handler  # takes a callback, and ends in a thread of the program's own
        return getattr(sys.modules["grpc"], f"{kind}_rpc_method_handler")(
            self._behavior(behavior, path, handler.response_streaming),
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _behavior(self, behavior: Any, path: str | bytes, streams: bool) -> Any:
        # The library looks at the kind of function that it is given.
        call = _Call(self._settings, path)
        if inspect.isasyncgenfunction(behavior):
            return _async_stream(behavior, call)
        if inspect.iscoroutinefunction(behavior):
            return _coroutine(behavior, call)
        return _stream(behavior, call) if streams else _answer(behavior, call)

    def _refuse(self, path: str | bytes, metadata: Any) -> None:
        """Make a span of a call of a method that there is not.

        Its name is the caller's, who may write anything.
        """
        attributes = {
            semconv.RPC_SYSTEM_NAME: "grpc",
            semconv.RPC_METHOD: semconv.METHOD_OTHER,
            semconv.RPC_METHOD_ORIGINAL: method_of(path).name,
        }
        parent, links = _caller(self._settings.trust, attributes, texts_of(metadata))
        start_span = self._settings.tracer.start_span
        operation = begin_work(start_span, "grpc", attributes, _SERVER, parent, links)
        if operation is not None:
            end_with(operation, "UNIMPLEMENTED")


@functools.lru_cache(maxsize=1024)
def _peer_of(peer: str) -> Mapping[str, Any]:
    """Read ``ipv4:127.0.0.1:57284`` and ``ipv6:%5B::1%5D:57284``."""
    scheme, _, rest = unquote(peer).partition(":")
    if scheme not in ("ipv4", "ipv6"):
        return {}
    address, _, port = rest.partition(",")[0].rpartition(":")
    found: dict[str, Any] = {semconv.NETWORK_PEER_ADDRESS: address.strip("[]")}
    if port.isdecimal():
        found[semconv.NETWORK_PEER_PORT] = int(port)
    return found


def _interceptor(served: _Served, owners: Sequence[object]) -> Any:
    """Return an interceptor of an asynchronous server; made here, where grpc is imported."""
    grpc: Any = sys.modules["grpc"]

    class TracekitInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            handler = await continuation(details)
            if not owners:
                return handler
            try:
                if handler is None:
                    served._refuse(details.method, details.invocation_metadata)
                return served.watched(handler, details.method)
            except Exception:
                report("the watching of a handler")
                return handler

    return TracekitInterceptor()


# The four ways to answer


class _Call:
    """One method of the program's, and what its calls begin and end with."""

    __slots__ = ("_attributes", "_name", "_reads", "_start_span", "_starts", "_told", "_trust")

    def __init__(self, settings: GrpcSettings, path: str | bytes) -> None:
        self._name = method_of(path).name
        self._attributes = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: self._name}
        self._starts: dict[str, dict[str, Any]] = {}
        self._start_span = settings.tracer.start_span
        self._trust = settings.trust
        self._told = settings.traceresponse
        self._reads: tuple[Any, frozenset[str] | None] = (None, None)

    def begin(self, context: Any) -> Operation | None:
        """Start the span of a call and make it current; None where it is not to be watched."""
        try:
            peer = context.peer()
            attributes = self._starts.get(peer) or self._start_with(peer)
            metadata = context.invocation_metadata()
            propagator = TEXTMAP._HTTP_TEXT_FORMAT
            known, reads = self._reads
            if known is not propagator:
                reads = self._ask(propagator)
            if reads is None or not reads.isdisjoint(map(_key_of, metadata or ())):
                parent, links = _caller(self._trust, attributes, texts_of(metadata))
                return begin_work(self._start_span, self._name, attributes, _SERVER, parent, links)
            span = self._start_span(self._name, NO_CONTEXT, _SERVER, attributes)
            # All five: with defaults left out, CPython has no short cut for making an object.
            return Operation(span, "", NO_CONTEXT, True, False)
        except Exception:
            report("the beginning of a call")
            return None

    def _ask(self, propagator: Any) -> frozenset[str] | None:
        """Return the names of the metadata that a propagator reads; None where it does not say."""
        given = getattr(propagator, "reads", None)
        reads = frozenset(given) if isinstance(given, tuple) else None
        self._reads = (propagator, reads)
        return reads

    def _start_with(self, peer: str) -> dict[str, Any]:
        """Return what the spans of calls from one socket start with."""
        if len(self._starts) >= _MOST_PEERS:
            self._starts.clear()
        self._starts[peer] = attributes = {**self._attributes, **_peer_of(peer)}
        return attributes

    def succeed(self, operation: Operation, context: Any) -> None:
        try:
            given = context.code()
            code, details = name_of_code(given) if given else OK, None
            if code != OK:
                details = context.details()
            elif not _is_active(context):
                code = _why_gone(context)
        except Exception:
            report("the status of a call")
            code, details = OK, None
        if code == OK and getattr(operation.span, "kept", None) is None:
            operation.succeed(_SUCCESS)
        else:
            self._end(operation, context, code, details)

    def fail(self, operation: Operation, context: Any, error: BaseException) -> None:
        try:
            code, details = name_of_code(context.code()), context.details()
        except Exception:
            report("the status of a call")
            code, details = OK, None
        if is_cancellation(error):  # of a coroutine, or the end of a stream that nobody reads on
            code = _why_gone(context) if code == OK else code
            self._end(operation, context, code, details)
        elif _is_abort(error):
            self._end(operation, context, code, details)
        else:
            self._end(operation, context, UNKNOWN if code == OK else code, details, error)

    def _end(
        self,
        operation: Operation,
        context: Any,
        code: str,
        details: Any,
        error: BaseException | None = None,
    ) -> None:
        is_error = error is not None or code in _SERVER_ERRORS
        if getattr(operation.span, "kept", None) is not None:
            _tell(operation.span, context, is_error, self._told)
        end_with(operation, code, details, error, is_error)


def _caller(trust: Trust | None, attributes: Mapping[str, Any], metadata: dict[str, str]) -> Caller:
    sent = TEXTMAP._HTTP_TEXT_FORMAT.extract(metadata, NO_CONTEXT)
    # Where nothing was sent there is nothing to judge, and nothing that a policy left.
    if sent is NO_CONTEXT:
        return _NOBODY
    return caller_of(trust, sent, NO_CONTEXT, attributes, metadata)


@quiet
def _tell(span: Any, context: Any, is_error: bool, mode: str) -> None:
    """Say in the trailing metadata what is decided; unlike headers it is sent behind all else."""
    if mode == NEVER:
        return
    if is_error and not span.kept:
        span.set_status(Status(StatusCode.ERROR))  # otherwise written when it is sent
    told = answer(span, span.kept, mode)
    if told:
        context.set_trailing_metadata(with_answer(context.trailing_metadata() or (), told))


def _answer(behavior: Any, call: _Call) -> Any:
    def answer(request: Any, context: Any) -> Any:
        operation = call.begin(context)
        if operation is None:
            return behavior(request, context)
        try:
            response = behavior(request, context)
        except BaseException as error:
            call.fail(operation, context, error)
            raise
        call.succeed(operation, context)
        return response

    return answer


def _stream(behavior: Any, call: _Call) -> Any:
    def stream(request: Any, context: Any) -> Iterator[Any]:
        operation = call.begin(context)
        if operation is None:
            yield from behavior(request, context)
            return
        try:
            yield from behavior(request, context)
        except BaseException as error:
            call.fail(operation, context, error)
            raise
        call.succeed(operation, context)

    return stream


def _coroutine(behavior: Any, call: _Call) -> Any:
    async def coroutine(request: Any, context: Any) -> Any:
        operation = call.begin(context)
        if operation is None:
            return await behavior(request, context)
        try:
            response = await behavior(request, context)
        except BaseException as error:
            call.fail(operation, context, error)
            raise
        call.succeed(operation, context)
        return response

    return coroutine


def _async_stream(behavior: Any, call: _Call) -> Any:
    async def async_stream(request: Any, context: Any) -> AsyncIterator[Any]:
        operation = call.begin(context)
        responses = behavior(request, context)
        if operation is None:
            async for response in responses:
                yield response
            return
        try:
            async for response in responses:
                yield response
        except BaseException as error:
            call.fail(operation, context, error)
            raise
        finally:
            await responses.aclose()
        call.succeed(operation, context)

    return async_stream


# What came of it


def _is_abort(error: BaseException) -> bool:
    """Say whether it is what ``context.abort()`` raises: a bare Exception, or aio's AbortError."""
    cls = type(error)
    return (cls is Exception and not error.args) or (
        cls.__name__ == "AbortError" and cls.__module__.startswith("grpc")
    )


def _why_gone(context: Any) -> str:
    """Say why nobody gets the answer: the caller's time was over, or it wanted no more."""
    try:
        left = context.time_remaining()
    except Exception:
        report("the time that a call had")
        return CANCELLED
    return CANCELLED if left is None or left > 0 else "DEADLINE_EXCEEDED"


def _is_active(context: Any) -> bool:
    is_active = getattr(context, "is_active", None)
    if is_active is not None:
        return bool(is_active())
    return not (hasattr(context, "cancelled") and context.cancelled())
