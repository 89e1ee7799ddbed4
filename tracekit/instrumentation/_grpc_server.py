"""The servers of gRPC: a SERVER span for each call that they answer, streams until their end.

A handler is replaced as it is found for a call, outside of the program's interceptors, so one
that refuses is seen. Synchronous servers look it up in one function, whenever they were made. An
asynchronous server does so in C. It is given one handler that asks all of the program's; or,
where it has interceptors, one of ours in front of them, which costs two coroutines a call. What
it is told beforehand by name, it never asks for: that is replaced when it is handed over.
"""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

from tracekit.instrumentation._grpc import GrpcSettings, method_of
from tracekit.instrumentation._grpc_served import Served, refuse
from tracekit.instrumentation._patch import report
from tracekit.instrumentation._replacing import Replacing

__all__ = ["server_patches"]

_SYNC = "grpc._server"
_AIO = "grpc.aio._server"
_MOST_KEPT = 1024


def server_patches(settings: GrpcSettings) -> Sequence[Replacing]:
    """Return what makes spans of the calls that servers answer."""
    asynchronous = _AsyncServers(settings)
    return (
        Replacing(_SYNC, "_find_method_handler", _Servers(settings).found),
        Replacing(_AIO, "Server.__init__", asynchronous.made),
        Replacing(_AIO, "Server.add_generic_rpc_handlers", asynchronous.added),
        # Older ones register none.
        Replacing(_AIO, "Server.add_registered_method_handlers", asynchronous.registered, True),
    )


class _Methods:
    """The methods of servers of one kind, and what answers in their places.

    Attributes:
        watched: By path, the program's handler and ours that was made of it last.
    """

    def __init__(
        self,
        settings: GrpcSettings,
        owners: Sequence[object],
        gone: str | None = None,
    ) -> None:
        self.watched: dict[str | bytes, tuple[Any, Any]] = {}
        self._settings = settings
        self._owners = owners
        self._gone = gone

    def found(self, handler: Any, path: str | bytes, metadata: Any) -> Any:
        """Return what takes the place of the handler of a call; of None, which answers nothing."""
        known = self.watched.get(path)
        if known is not None and known[0] is handler:
            return known[1]
        if handler is None:
            refuse(self._settings, path, metadata)
            return None
        if len(self.watched) >= _MOST_KEPT:
            self.watched.clear()
        watched = self.below_span(handler, path)
        self.watched[path] = (handler, watched)
        return watched

    def below_span(self, handler: Any, path: str | bytes) -> Any:
        """Return a handler that does the same below a span."""
        if method_of(path).service in self._settings.excluded:
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
        served = Served(self._settings, path, self._owners, self._gone)
        if inspect.isasyncgenfunction(behavior):
            return _async_stream(behavior, served)
        if inspect.iscoroutinefunction(behavior):
            return _coroutine(behavior, served)
        return _stream(behavior, served) if streams else _answer(behavior, served)


class _Servers:
    """Synchronous servers, which all look for handlers in one function."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._settings = settings

    def found(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        gone = getattr(sys.modules[_SYNC], "_CANCELLED", None)
        methods = _Methods(self._settings, owners, gone)
        watched = methods.watched

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
                return methods.found(handler, path, args[0].invocation_metadata)
            except Exception:
                report("the watching of a handler")
                return handler

        return find


class _AsyncServers:
    """Asynchronous servers; those that were made before are left alone."""

    def __init__(self, settings: GrpcSettings) -> None:
        self._settings = settings
        # By server, what asks the program's handlers in its place.
        self._asking: Any = weakref.WeakKeyDictionary()

    def made(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        methods = _Methods(self._settings, owners)

        def initialize(
            server: Any,
            thread_pool: Any,
            generic_handlers: Any,
            interceptors: Any,
            *args: Any,
            **kwargs: Any,
        ) -> None:
            if owners and interceptors:
                interceptors = (_interceptor(methods, owners), *interceptors)
            elif owners:
                asking = _asking(methods, owners, generic_handlers)
                self._asking[server], generic_handlers = asking, (asking,)
            original(server, thread_pool, generic_handlers, interceptors, *args, **kwargs)

        return initialize

    def added(self, original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
        def add(server: Any, generic_rpc_handlers: Any) -> None:
            asking = self._asking.get(server)
            if asking is None:
                original(server, generic_rpc_handlers)
            else:
                asking.all.extend(generic_rpc_handlers)

        return add

    def registered(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        methods = _Methods(self._settings, owners)

        def register(server: Any, service_name: Any, method_handlers: Any) -> None:
            if owners and server in self._asking:
                method_handlers = _all_below_spans(methods, service_name, method_handlers)
            original(server, service_name, method_handlers)

        return register


def _all_below_spans(methods: _Methods, service: str, handlers: Mapping[str, Any]) -> Any:
    try:
        return {
            name: methods.below_span(handler, f"/{service}/{name}")
            for name, handler in handlers.items()
        }
    except Exception:
        report("the watching of handlers")
        return handlers


# Made here, where grpc is imported


def _asking(methods: _Methods, owners: Sequence[object], handlers: Sequence[Any]) -> Any:
    """Return a handler that asks others; the program's, and those that it will add to them."""
    grpc: Any = sys.modules["grpc"]
    # What generated code adds. It has the same methods as long as it lives: each is asked for once.
    lasting = type(grpc.method_handlers_generic_handler("", {}))
    lasts = dict[str, Any]()

    class TracekitLookup(grpc.GenericRpcHandler):  # type: ignore[misc]
        def __init__(self) -> None:
            self.all = list(handlers)

        def service(self, details: Any) -> Any:
            path = details.method
            watched = lasts.get(path)
            if watched is not None and owners:
                return watched
            handler, is_lasting = None, True
            for each in self.all:
                is_lasting = is_lasting and type(each) is lasting
                handler = each.service(details)
                if handler is not None:
                    break
            if not owners:
                return handler
            try:
                watched = methods.found(handler, path, details.invocation_metadata)
            except Exception:
                report("the watching of a handler")
                return handler
            if is_lasting and watched is not None:
                lasts[path] = watched
            return watched

    return TracekitLookup()


def _interceptor(methods: _Methods, owners: Sequence[object]) -> Any:
    """Return an interceptor of an asynchronous server."""
    grpc: Any = sys.modules["grpc"]

    class TracekitInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
        async def intercept_service(self, continuation: Any, details: Any) -> Any:
            handler = await continuation(details)
            if not owners:
                return handler
            try:
                return methods.found(handler, details.method, details.invocation_metadata)
            except Exception:
                report("the watching of a handler")
                return handler

    return TracekitInterceptor()


# The four ways to answer


def _answer(behavior: Any, served: Served) -> Any:
    def answer(request: Any, context: Any) -> Any:
        operation = served.begin(context)
        if operation is None:
            return behavior(request, context)
        try:
            response = behavior(request, context)
        except BaseException as error:
            served.fail(operation, context, error)
            raise
        served.succeed(operation, context)
        return response

    return answer


def _stream(behavior: Any, served: Served) -> Any:
    def stream(request: Any, context: Any) -> Iterator[Any]:
        operation = served.begin(context)
        if operation is None:
            yield from behavior(request, context)
            return
        try:
            yield from behavior(request, context)
        except BaseException as error:
            served.fail(operation, context, error)
            raise
        served.succeed(operation, context)

    return stream


def _coroutine(behavior: Any, served: Served) -> Any:
    async def coroutine(request: Any, context: Any) -> Any:
        operation = served.begin(context)
        if operation is None:
            return await behavior(request, context)
        try:
            response = await behavior(request, context)
        except BaseException as error:
            served.fail(operation, context, error)
            raise
        served.succeed(operation, context)
        return response

    return coroutine


def _async_stream(behavior: Any, served: Served) -> Any:
    async def async_stream(request: Any, context: Any) -> AsyncIterator[Any]:
        operation = served.begin(context)
        responses = behavior(request, context)
        if operation is None:
            async for response in responses:
                yield response
            return
        try:
            async for response in responses:
                yield response
        except BaseException as error:
            served.fail(operation, context, error)
            raise
        finally:
            await responses.aclose()
        served.succeed(operation, context)

    return async_stream
