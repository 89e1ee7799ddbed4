"""Calls of gRPC that the program serves: one SERVER span for each, streams until their end.

The handler is wrapped as it is found for a call, outside of the program's interceptors, so one
that refuses is seen. Synchronous servers look it up in one function, whenever they were made;
an asynchronous server does in C, so it gets an interceptor in front of its own when it is made.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.trace import SpanKind, Status, StatusCode

from tracekit import semconv
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
from tracekit.instrumentation._http import is_cancellation, truncated
from tracekit.instrumentation._operation import Operation, begin_work
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._traceresponse import NEVER, answer, with_answer
from tracekit.instrumentation._trust import Caller, caller_of

__all__ = ["server_patches"]

# The others are the caller's mistakes, and no failure of the server.
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_SERVER_ERRORS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


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
        self.traceresponse = settings.traceresponse

    def found(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        def find(rpc_event: Any, *args: Any, **kwargs: Any) -> Any:
            handler = original(rpc_event, *args, **kwargs)
            if not owners:
                return handler
            try:
                path = _path_of(rpc_event, args)
                if handler is None:
                    self._refuse(path, rpc_event.invocation_metadata)
                return self.watched(handler, path)
            except Exception:
                report("the watching of a handler")
                return handler

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

    def watched(self, handler: Any, path: str) -> Any:
        """Return a handler that does the same below a span."""
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

    def _behavior(self, behavior: Any, path: str, streams: bool) -> Any:
        # The library looks at the kind of function that it is given.
        call = _Call(self, path)
        if inspect.isasyncgenfunction(behavior):
            return _async_stream(behavior, call)
        if inspect.iscoroutinefunction(behavior):
            return _coroutine(behavior, call)
        return _stream(behavior, call) if streams else _answer(behavior, call)

    def begin(self, path: str, context: Any) -> Operation | None:
        try:
            metadata = texts_of(context.invocation_metadata())
            attributes = {
                semconv.RPC_SYSTEM_NAME: "grpc",
                semconv.RPC_METHOD: method_of(path).name,
                **_peer_of(context.peer()),
            }
            parent, links = self._caller(attributes, metadata)
        except Exception:
            report("what is known of a call")
            return None
        name = attributes[semconv.RPC_METHOD]
        start_span = self._settings.tracer.start_span
        return begin_work(start_span, name, attributes, SpanKind.SERVER, parent, links)

    def _caller(self, attributes: Mapping[str, Any], metadata: dict[str, str]) -> Caller:
        nobody = Context()
        sent = get_global_textmap().extract(metadata, nobody)
        return caller_of(self._settings.trust, sent, nobody, attributes, metadata)

    def _refuse(self, path: str, metadata: Any) -> None:
        """Make a span of a call of a method that there is not.

        Its name is the caller's, who may write anything.
        """
        attributes = {
            semconv.RPC_SYSTEM_NAME: "grpc",
            semconv.RPC_METHOD: semconv.METHOD_OTHER,
            semconv.RPC_METHOD_ORIGINAL: truncated(path.removeprefix("/"), 256),
        }
        parent, links = self._caller(attributes, texts_of(metadata))
        start_span = self._settings.tracer.start_span
        operation = begin_work(start_span, "grpc", attributes, SpanKind.SERVER, parent, links)
        if operation is not None:
            end_with(operation, "UNIMPLEMENTED")


def _path_of(rpc_event: Any, args: Sequence[Any]) -> str:
    # A registered method, from grpcio 1.63 on, comes without its name in the event.
    registered = args[1].name() if len(args) > 1 and hasattr(args[1], "name") else None
    path = registered or rpc_event.call_details.method
    return path if isinstance(path, str) else path.decode("utf-8", "replace")


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

    __slots__ = ("_path", "_served")

    def __init__(self, served: _Served, path: str) -> None:
        self._served = served
        self._path = path

    def begin(self, context: Any) -> Operation | None:
        return self._served.begin(self._path, context)

    def succeed(self, operation: Operation, context: Any) -> None:
        try:
            code, details = name_of_code(context.code()), context.details()
            if code == OK and not _is_active(context):
                code = _why_gone(context)
        except Exception:
            report("the status of a call")
            code, details = OK, None
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
            _tell(operation.span, context, is_error, self._served.traceresponse)
        end_with(operation, code, details, error, is_error)


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
    if hasattr(context, "is_active"):
        return bool(context.is_active())
    return not (hasattr(context, "cancelled") and context.cancelled())
