"""Calls of gRPC that the program makes: one CLIENT span for each attempt.

What is patched are the classes that every channel makes its calls with, below the interceptors
of the program: a retry made by one of those is a span of its own, metadata that they change is
already there, and channels that were made before are watched too.

A call that answers at once ends with its answer. One that streams, or is a future, ends when
the library learns its status, in a thread of its own; the span is current only while the call
is started and while requests are taken from the program's iterator.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind

from tracekit._otel_context import (
    NO_CONTEXT,
    PLAIN_SPANS,
    OnlySpan,
    attach,
    current_context,
    detach,
)
from tracekit._otel_propagate import TEXTMAP
from tracekit.instrumentation._around import around
from tracekit.instrumentation._caller import frame_at
from tracekit.instrumentation._carry import is_suppressed
from tracekit.instrumentation._grpc import GrpcSettings
from tracekit.instrumentation._grpc_ended import (
    SUCCESS,
    EndOfAsync,
    await_end,
    fail,
    follow,
    refuse,
)
from tracekit.instrumentation._grpc_told import Told, told_of
from tracekit.instrumentation._messages import headers_for
from tracekit.instrumentation._operation import BareOperation, Operation
from tracekit.instrumentation._patch import report
from tracekit.instrumentation._propagation import PropagationHosts
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._traceresponse import NEVER

__all__ = ["client_patches"]

_SYNC = "grpc._channel"
_AIO = "grpc.aio._call"
_CLIENT = SpanKind.CLIENT
# How far out the frame is that calls what stands in the place of the library's function; and who
# calls that, where it is the library itself.
_DIRECT = 2
_BEHIND_LIBRARY = 3
_BEHIND_LIBRARY_AIO = 4  # one more step of ours
_AT_LIBRARY = 2
_BLOCKING = (
    *("self", "request", "timeout", "metadata"),
    *("credentials", "wait_for_ready", "compression"),
)
# Arguments, and where each stands that is not named.
_TOLD = {"self": 0, "timeout": 2, "metadata": 3}
_TOLD_STREAM = {**_TOLD, "request_iterator": 1}
_TOLD_AIO = {"self": 0, "deadline": 2, "channel": 6, "method": 7, "metadata": 3}
_CHANGED = {"metadata": 3}
_CHANGED_STREAM = {"request_iterator": 1, "metadata": 3}
_MOST_KEPT = 1024
_TRACEPARENT = "traceparent"


def client_patches(settings: GrpcSettings) -> Sequence[Replacing]:
    """Return what makes spans of the calls of every channel, synchronous and asynchronous."""
    calls = _Calls(settings)
    return (
        # Where `__call__` and `with_call` meet, and the status of a call is seen with all else.
        Replacing(_SYNC, "_UnaryUnaryMultiCallable._blocking", calls.answered_at_once),
        Replacing(_SYNC, "_StreamUnaryMultiCallable._blocking", calls.answered),
        Replacing(_SYNC, "_UnaryUnaryMultiCallable.future", calls.started),
        Replacing(_SYNC, "_StreamUnaryMultiCallable.future", calls.started),
        *(
            Replacing(_SYNC, f"_{kind}MultiCallable.__call__", calls.started, True)
            for kind in ("UnaryStream", "SingleThreadedUnaryStream", "StreamStream")
        ),
        *(
            Replacing(_AIO, f"{kind}Call.__init__", calls.awaited)
            for kind in ("UnaryUnary", "UnaryStream", "StreamUnary", "StreamStream")
        ),
    )


class _Sent(BareOperation):
    """A call that is under way, and what the library is given in place of the program's.

    Attributes:
        metadata: With the trace headers.
        request_iterator: Below the span.
    """

    __slots__ = ("metadata", "request_iterator")

    metadata: Any
    request_iterator: Any


def _sent(span: Span, context: Context, token: Any) -> _Sent:
    """Return what stands for a call that was begun without it."""
    sent = _Sent()
    sent.span = span
    sent.system = ""
    sent._ended = False
    sent.context = context
    sent._token = token
    return sent


class _Calls:
    def __init__(self, settings: GrpcSettings) -> None:
        self._start_span = settings.tracer.start_span
        self._excluded = settings.excluded
        self._known: dict[tuple[str | bytes, str | bytes, float | None], Told] = {}
        self._caller = settings.caller
        self._hosts = settings.hosts
        self._hears = settings.traceresponse != NEVER

    def answered(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        """Watch a call that returns when the answer is there: the library's state of it."""
        return self._around(original, owners, _BEHIND_LIBRARY, self._ends())

    def answered_at_once(
        self, original: Callable[..., Any], owners: Sequence[object]
    ) -> Callable[..., Any]:
        """Watch a call of one request and one answer; in one frame for nearly all of them.

        Those are the second and later of a kind, without metadata of the program's, below a span
        or nothing; what :meth:`_begins` and :meth:`_ends` do is written out for them, without an
        object for each call.
        """
        if tuple(inspect.signature(original).parameters) != _BLOCKING or self._hosts.lists_hosts:
            return self.answered(original, owners)
        watched = self._around(original, owners, _BEHIND_LIBRARY + 1, self._ends())
        ok, end, hosts = sys.modules["grpc"].StatusCode.OK, self._ends(), self._hosts
        start_span, known, caller = self._start_span, self._known, self._caller

        def blocking(
            self: Any,
            request: Any,
            timeout: float | None = None,
            metadata: Any = None,
            credentials: Any = None,
            wait_for_ready: Any = None,
            compression: Any = None,
        ) -> Any:
            try:
                told = known.get((self._method, self._target, timeout))
            except (AttributeError, TypeError):  # older ones; a timeout that the library refuses
                told = None
            parent = current_context()
            if (
                told is None
                or not told.is_watched
                or metadata is not None
                or not (type(parent) is OnlySpan or parent is NO_CONTEXT)
                or not owners
            ):
                return watched(
                    self, request, timeout, metadata, credentials, wait_for_ready, compression
                )
            span: Any = None
            context, token = OnlySpan(), None
            try:
                attributes = told.attributes
                if caller is not None:
                    code, at, attributes = told.seen
                    try:
                        frame = frame_at(_AT_LIBRARY)
                        if frame.f_code is not code or frame.f_lasti != at:
                            attributes = caller.asked(told, frame, _AT_LIBRARY)
                    except ValueError:  # the stack begins with the library
                        attributes = caller.asked(told, None, _AT_LIBRARY)
                context.span = span = start_span(told.name, parent, _CLIENT, attributes)
                try:
                    header = TEXTMAP._HTTP_TEXT_FORMAT.traceparent_of(span)
                except AttributeError:  # of somebody else
                    header = None
                if header is None:
                    metadata = _with_headers(None, hosts, told.host, context)
                else:
                    metadata = ((_TRACEPARENT, header),)
                token = attach(context)
            except Exception:
                report("the beginning of a call")
            try:
                answer = original(
                    self, request, timeout, metadata, credentials, wait_for_ready, compression
                )
            except BaseException as error:
                if token is not None:
                    fail(_sent(span, context, token), error)
                raise
            if token is not None:
                try:
                    if (
                        type(span) in PLAIN_SPANS
                        and span._anchor[3] is None
                        and answer[0].code is ok
                    ):
                        detach(token)
                        span.end(None, SUCCESS)
                        return answer
                except Exception:
                    report("the end of a call")
                end(_sent(span, context, token), answer)
            return answer

        return blocking

    def _ends(self) -> Callable[..., None]:
        """Return what ends a call whose answer is there."""
        ok, hears = sys.modules["grpc"].StatusCode.OK, self._hears

        def end(sent: _Sent, answer: Any, *_told: Any) -> None:
            try:
                state = answer[0]
                span: Any = sent.span
                is_fine = state.code is ok
                if is_fine and type(span) in PLAIN_SPANS and span._anchor[3] is None:
                    # As succeed() does, without its frame; nobody else may end it.
                    detach(sent._token)
                    span.end(None, SUCCESS)
                    return
                if hears and state.trailing_metadata:
                    follow(span, state.trailing_metadata)
                if is_fine:
                    sent.succeed(SUCCESS)
                else:
                    refuse(sent, state, answer)
            except Exception:
                report("the status of a call")
                sent.succeed()

        return end

    def started(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        """Watch a call that returns as soon as it is on its way."""
        hears = self._hears

        def leave(sent: _Sent, rendezvous: Any, *_told: Any) -> None:
            sent.leave()
            await_end(sent, rendezvous, hears)

        return self._around(original, owners, _DIRECT, leave)

    def _around(
        self,
        original: Callable[..., Any],
        owners: Sequence[object],
        depth: int,
        after: Callable[..., object],
    ) -> Callable[..., Any]:
        if "request_iterator" not in inspect.signature(original).parameters:
            begin = self._begins(depth)
            return around(original, _TOLD, begin, after, fail, _CHANGED, owners=owners)
        begin = self._begins(depth + 1)

        def begin_stream(
            callable_: Any, timeout: float | None, metadata: Any, requests: Any
        ) -> _Sent | None:
            sent = begin(callable_, timeout, metadata)
            if sent is not None:
                is_iterator = hasattr(requests, "__next__")
                sent.request_iterator = (
                    _Requests(requests, sent.context) if is_iterator else requests
                )
            return sent

        told, changed = _TOLD_STREAM, _CHANGED_STREAM
        return around(original, told, begin_stream, after, fail, changed, owners=owners)

    def awaited(self, original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
        """Watch an asynchronous call from its start, when its object is made."""
        begin, hears = self._begins(_BEHIND_LIBRARY_AIO), self._hears

        def begin_call(
            _call: Any, deadline: float | None, channel: Any, path: Any, metadata: Any
        ) -> _Sent | None:
            timeout = None if deadline is None else max(0.0, round(deadline - time.time(), 2))
            # The library makes an object of metadata, of nearly none as well.
            if metadata is not None and len(metadata) == 0:
                metadata = None
            # Older channels keep their target to themselves.
            return begin(_Called(path, getattr(channel, "target", "")), timeout, metadata)

        def leave(
            sent: _Sent,
            _nothing: None,
            call: Any,
            _deadline: Any,
            _channel: Any,
            _path: Any,
            _metadata: Any,
        ) -> None:
            sent.leave()
            try:
                # Not with the call's own add_done_callback, which would keep it from being dropped.
                inner = call._cython_call
                inner.add_done_callback(EndOfAsync(sent, inner, hears))
            except Exception:
                report("the end of a call")

        return around(original, _TOLD_AIO, begin_call, leave, fail, _CHANGED, owners=owners)

    def _begins(self, depth: int) -> Callable[[Any, float | None, Any], _Sent | None]:
        """Return what starts a call; that returns None where it is not to be watched."""
        start_span, known, caller = self._start_span, self._known, self._caller
        hosts, lists_hosts = self._hosts, self._hosts.lists_hosts

        # In one function: with cold caches each further call costs half a microsecond.
        def begin(callable_: Any, timeout: float | None, metadata: Any) -> _Sent | None:
            try:
                try:
                    target = callable_._target
                except AttributeError:  # of older ones the channel knows it
                    target = callable_._channel.target()
                # Not `lru_cache`, which keeps account of who was asked for last.
                told = known.get((callable_._method, target, timeout))
                if told is None:
                    told = self._learn(callable_._method, target, timeout)
                parent = current_context()
                # A context of a span only says nothing else, and would be filled by a look into it.
                is_lone = type(parent) is OnlySpan or parent is NO_CONTEXT
                if not told.is_watched or (not is_lone and is_suppressed(parent)):
                    return None
                attributes = told.attributes
                if caller is not None:
                    code, at, attributes = told.seen
                    try:
                        frame = frame_at(depth)
                        if frame.f_code is not code or frame.f_lasti != at:
                            attributes = caller.asked(told, frame, depth)
                    except ValueError:  # the stack begins with ours
                        attributes = caller.asked(told, None, depth)
                span = start_span(told.name, parent, _CLIENT, attributes)
                sent, header = _Sent(), None
                if is_lone:
                    # As _sent(), and with_span(), without a frame.
                    sent.span = span
                    sent.system = ""
                    sent._ended = False
                    sent.context = context = OnlySpan()
                    context.span = span
                    sent._token = attach(context)
                    if not lists_hosts:
                        try:
                            header = TEXTMAP._HTTP_TEXT_FORMAT.traceparent_of(span)
                        except AttributeError:  # of somebody else
                            pass
                else:
                    Operation.__init__(sent, span, "", parent)
                if header is None:
                    sent.metadata = _with_headers(metadata, hosts, told.host, sent.context)
                elif metadata is None:
                    sent.metadata = ((_TRACEPARENT, header),)
                else:
                    sent.metadata = _with_entries(metadata, ((_TRACEPARENT, header),))
                return sent
            except Exception:
                report("the beginning of a call")
                return None

        return begin

    def _learn(self, path: str | bytes, target: str | bytes, timeout: float | None) -> Told:
        told = told_of(self._excluded, path, target, timeout)
        if len(self._known) >= _MOST_KEPT:
            self._known.clear()
        self._known[path, target, timeout] = told
        return told


class _Called:
    """What an asynchronous call calls, as a synchronous one has it."""

    __slots__ = ("_method", "_target")

    def __init__(self, method: str | bytes, target: str | bytes) -> None:
        self._method = method
        self._target = target


# What is sent


def _with_headers(
    metadata: Iterable[Any] | None, hosts: PropagationHosts, host: str, context: Context
) -> Any:
    """Return metadata with what a host may be told of a context."""
    try:
        told = hosts.context_for(host, context)
        if told is None:
            return metadata
        ours = [(name.lower(), value) for name, value in headers_for(told).items()]
    except Exception:
        report("the headers of a call")
        return metadata
    return _with_entries(metadata, ours)


def _with_entries(metadata: Iterable[Any] | None, ours: Sequence[tuple[str, str]]) -> Any:
    """Return metadata with entries of ours, in the place of any of these names that it had."""
    if metadata is None:
        return tuple(ours)
    entries: Any = metadata
    try:
        entries = tuple(metadata)
        names = {name for name, _ in ours}
        return (*(entry for entry in entries if entry[0] not in names), *ours)
    except Exception:  # no pairs: the library says so better than we could
        return entries


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
