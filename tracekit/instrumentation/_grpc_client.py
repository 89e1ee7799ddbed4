"""Calls of gRPC that the program makes: one CLIENT span for each attempt.

What is patched are the classes that every channel makes its calls with, below the interceptors
of the program: a retry made by one of those is a span of its own, metadata that they change is
already there, and channels that were made before are watched too.

A call that answers at once ends with its answer. One that streams, or is a future, ends when
the library learns its status, in a thread of its own; the span is current only while the call
is started and while requests are taken from the program's iterator.
"""

from __future__ import annotations

import functools
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, get_current_span

from tracekit import semconv
from tracekit._otel_context import OnlySpan, attach, current_context, detach
from tracekit.instrumentation._carry import is_suppressed
from tracekit.instrumentation._grpc import (
    CANCELLED,
    OK,
    GrpcSettings,
    Method,
    end_with,
    method_of,
    name_of_code,
    texts_of,
)
from tracekit.instrumentation._http import is_cancellation
from tracekit.instrumentation._messages import headers_for
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._said import Said
from tracekit.instrumentation._traceresponse import NEVER, hear

__all__ = ["client_patches"]

_SYNC = "grpc._channel"
_AIO = "grpc.aio._call"
_SUCCESS = {semconv.RPC_STATUS_CODE: OK}
# Frames that are certainly ours where a call begins: that, who asks for it, and what stands in the
# place of the library's function.
_INSIDE = 4
_HERE = "localhost"  # where a socket in the file system leads


def client_patches(settings: GrpcSettings) -> Sequence[Replacing]:
    """Return what makes spans of the calls of every channel, synchronous and asynchronous."""
    calls = _Calls(settings)
    unary, stream = "_UnaryUnaryMultiCallable", "_StreamUnaryMultiCallable"
    streams = (
        "_UnaryStreamMultiCallable",
        "_SingleThreadedUnaryStreamMultiCallable",
        "_StreamStreamMultiCallable",
    )
    return (
        *(
            Replacing(_SYNC, f"{kind}.{call}", calls.answered)
            for kind in (unary, stream)
            for call in ("__call__", "with_call")
        ),
        *(Replacing(_SYNC, f"{kind}.future", calls.started) for kind in (unary, stream)),
        *(Replacing(_SYNC, f"{kind}.__call__", calls.started, True) for kind in streams),
        Replacing(_SYNC, "_end_unary_response_blocking", calls.told, True),
        *(
            Replacing(_AIO, f"{kind}Call.__init__", calls.awaited)
            for kind in ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
        ),
    )


class _Calls:
    def __init__(self, settings: GrpcSettings) -> None:
        self._start_span = settings.tracer.start_span
        self._excluded = settings.excluded
        self._caller = settings.caller
        self._hosts = settings.hosts
        self._hears = settings.traceresponse != NEVER

    def answered(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        """Watch a call that returns when the answer is there."""
        begin_call = self._begin_sync

        def call(
            callable_: Any,
            request: Any,
            timeout: float | None = None,
            metadata: Any = None,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            begun = begin_call(callable_, timeout, metadata) if owners else None
            if begun is None:
                return original(callable_, request, timeout, metadata, *args, **kwargs)
            operation, metadata = begun
            if type(request) is not bytes and hasattr(request, "__next__"):
                request = _Requests(request, operation.context)
            try:
                answer = original(callable_, request, timeout, metadata, *args, **kwargs)
            except BaseException as error:
                _fail(operation, error)
                raise
            operation.succeed(_SUCCESS)
            return answer

        return call

    def told(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        """Read what comes behind an answer, of which :meth:`answered` is given the answer only."""

        def end(state: Any, *args: Any, **kwargs: Any) -> Any:
            if owners and self._hears:
                _hear(get_current_span(), state.trailing_metadata)
            return original(state, *args, **kwargs)

        return end

    def started(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        """Watch a call that returns as soon as it is on its way."""
        begin_call = self._begin_sync

        def call(
            callable_: Any,
            request: Any,
            timeout: float | None = None,
            metadata: Any = None,
            *args: Any,
            **kwargs: Any,
        ) -> Any:
            begun = begin_call(callable_, timeout, metadata) if owners else None
            if begun is None:
                return original(callable_, request, timeout, metadata, *args, **kwargs)
            operation, metadata = begun
            if type(request) is not bytes and hasattr(request, "__next__"):
                request = _Requests(request, operation.context)
            try:
                rendezvous = original(callable_, request, timeout, metadata, *args, **kwargs)
            except BaseException as error:
                _fail(operation, error)
                raise
            operation.leave()
            _await_end(operation, rendezvous, self._hears)
            return rendezvous

        return call

    def awaited(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        """Watch an asynchronous call from its start, when its object is made."""

        def initialize(
            call: Any, request: Any, deadline: Any, metadata: Any, *args: Any, **kwargs: Any
        ) -> None:
            begun = self._begin_aio(deadline, metadata, args) if owners else None
            if begun is None:
                original(call, request, deadline, metadata, *args, **kwargs)
                return
            operation, metadata = begun
            try:
                original(call, request, deadline, metadata, *args, **kwargs)
            except BaseException as error:
                _fail(operation, error)
                raise
            operation.leave()
            _await_aio_end(operation, call, self._hears)

        return initialize

    def _begin_sync(
        self, callable_: Any, timeout: float | None, metadata: Any
    ) -> tuple[Operation, Any] | None:
        try:
            target = getattr(callable_, "_target", None)
            if target is None:
                target = callable_._channel.target()
            return self._begin(_told(callable_._method, target, timeout), metadata)
        except Exception:
            report("the beginning of a call")
            return None

    def _begin_aio(
        self, deadline: Any, metadata: Any, args: Sequence[Any]
    ) -> tuple[Operation, Any] | None:
        try:
            # After request, deadline and metadata: credentials, wait_for_ready, channel, method.
            channel, path = args[2], args[3]
            target = getattr(channel, "target", "")  # older ones keep it to themselves
            timeout = None if deadline is None else max(0.0, round(deadline - time.time(), 2))
            return self._begin(_told(path, target, timeout), metadata)
        except Exception:
            report("the beginning of a call")
            return None

    def _begin(self, told: _Told, metadata: Any) -> tuple[Operation, Any] | None:
        """Start a call; return it with the metadata to send, None when it is not to be watched."""
        parent = current_context()
        # A context of a span only says nothing else, and would be filled by looking into it.
        if type(parent) is not OnlySpan and parent and is_suppressed(parent):
            return None
        if told.service in self._excluded:
            return None
        attributes = told.attributes
        if self._caller is not None:
            place, last = self._caller.attributes(_INSIDE), told.last
            attributes = last[1] if last[0] is place else told.asked_from(place)
        span = self._start_span(told.name, parent, SpanKind.CLIENT, attributes)
        operation = Operation(span, "", parent)
        context: Context | None = operation.context
        if self._hosts.lists_hosts or type(context) is not OnlySpan:
            context = self._hosts.context_for(told.host, operation.context)
        return operation, metadata if context is None else _injected(context, metadata)


class _Told(Said):
    """What the span of a call starts with; the same object for all that are alike."""

    __slots__ = ("host", "service")

    def __init__(self, method: Method, attributes: Mapping[str, Any], host: str) -> None:
        super().__init__(method.name, attributes)
        self.service = method.service
        self.host = host


@functools.lru_cache(maxsize=1024)
def _told(path: str | bytes, target: str | bytes, timeout: float | None) -> _Told:
    method = method_of(path)
    text = target if isinstance(target, str) else target.decode("utf-8", "replace")
    place = _place_of(text)
    attributes: dict[str, Any] = {
        semconv.RPC_SYSTEM_NAME: "grpc",
        semconv.RPC_METHOD: method.name,
    }
    if place.address:
        attributes[semconv.SERVER_ADDRESS] = place.address
    if place.port is not None:
        attributes[semconv.SERVER_PORT] = place.port
    if timeout is not None:
        attributes[semconv.TIMEOUT_TOTAL] = timeout
    host = _HERE if text.startswith("unix") else place.address
    return _Told(method, attributes, host)


class _Place(NamedTuple):
    address: str
    port: int | None


def _place_of(target: str) -> _Place:
    """Return where a target leads, as it is written: nothing is looked up.

    https://github.com/grpc/grpc/blob/master/doc/naming.md
    """
    scheme, separator, rest = target.partition(":")
    if separator and scheme in ("unix", "unix-abstract"):
        return _Place(rest.removeprefix("//"), None)
    if separator and scheme in ("dns", "ipv4", "ipv6", "xds", "passthrough"):
        # dns://authority/host:port, dns:host:port; of several addresses the first.
        target = rest.rpartition("/")[2].partition(",")[0]
    try:
        parts = urlsplit(f"//{target}")
        return _Place(parts.hostname or target, parts.port)
    except ValueError:
        return _Place(target, None)


# What is sent


class _Requests:
    """The program's iterator of requests, run below the span; another thread asks for them."""

    __slots__ = ("_context", "_requests")

    def __init__(self, requests: Iterator[Any], context: Context) -> None:
        self._requests = requests
        self._context = context

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        token = attach(self._context)
        try:
            return next(self._requests)
        finally:
            detach(token)


def _injected(sent: Context, metadata: Iterable[Any] | None) -> Any:
    """Return metadata with the trace headers, in the place of any that it had."""
    headers = headers_for(sent)
    ours = tuple([(name.lower(), value) for name, value in headers.items()])
    if metadata is None:
        return ours
    entries = tuple(metadata)
    try:
        names = {name for name, _ in ours}
        return (*(entry for entry in entries if entry[0] not in names), *ours)
    except Exception:  # no pairs: the library says so better than we could
        return entries


# What came of it


def _fail(operation: Operation, error: Any) -> None:
    """End the span of a call that raised."""
    try:
        code = error.code() if hasattr(error, "code") else None
        details = error.details() if hasattr(error, "details") else None
        name = None if code is None else name_of_code(code)
    except Exception:
        name = details = None
    if name is None or is_cancellation(error):
        operation.fail(error)
    else:
        end_with(operation, name, details, error)


def _hear(span: Span, metadata: Any) -> None:
    """Follow the callee, where a tail sampler is at work and nothing else keeps the trace."""
    if getattr(span, "kept", None) is False:
        hear(span, texts_of(metadata))


class _End:
    """Ends a span with the status in the library's state of a call; called when that is final."""

    __slots__ = ("_hears", "_operation", "_state")

    def __init__(self, operation: Operation, state: Any, hears: bool) -> None:
        self._hears = hears
        self._operation = operation
        self._state = state

    @quiet
    def __call__(self, *_: Any) -> None:
        state = self._state
        if state is None:
            return
        self._state = None
        code = name_of_code(state.code)
        # Cancelled by the program, or dropped half-way: it wanted no more.
        on_purpose = code == CANCELLED and bool(state.cancelled)
        if self._hears:
            _hear(self._operation.span, state.trailing_metadata)
        end_with(self._operation, code, state.details, is_error=code != OK and not on_purpose)


@quiet
def _await_end(operation: Operation, rendezvous: Any, hears: bool) -> None:
    """End the span with the call.

    The state is held, and not the rendezvous that the program holds: a call whose rendezvous it
    drops is cancelled by the library's ``__del__``, which must not be kept from it.
    """
    end = _End(operation, rendezvous._state, hears)
    if not rendezvous.add_callback(end):
        end()
    elif type(rendezvous).__name__ == "_SingleThreadedRendezvous":
        # Nothing but the program's own reading takes note of its end.
        weakref.finalize(rendezvous, end).atexit = False


class _AioEnd:
    """Ends a span with the status of an asynchronous call; called when that is there."""

    __slots__ = ("_call", "_hears", "_operation")

    def __init__(self, operation: Operation, call: Any, hears: bool) -> None:
        self._hears = hears
        self._operation = operation
        self._call = call

    @quiet
    def __call__(self, *_: Any) -> None:
        # The call leads here: what is let go of now is no cycle afterwards.
        call, self._call = self._call, None
        if call is None:
            return
        status = _now(call.status())
        code = name_of_code(status.code())
        on_purpose = code == CANCELLED and call.is_locally_cancelled()
        if self._hears:
            _hear(self._operation.span, status.trailing_metadata())
        is_error = code != OK and not on_purpose
        end_with(self._operation, code, status.details(), is_error=is_error)


@quiet
def _await_aio_end(operation: Operation, call: Any, hears: bool) -> None:
    # Not with the call's own add_done_callback, which would keep the call from being dropped.
    inner = call._cython_call
    inner.add_done_callback(_AioEnd(operation, inner, hears))


def _now(coroutine: Any) -> Any:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("the status of a call that is done has to be awaited")
