"""A call of gRPC that the program serves: how its span begins, and what it ends with."""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from opentelemetry.trace import SpanKind, Status, StatusCode

from tracekit import semconv
from tracekit._otel_context import NO_CONTEXT, PLAIN_SPANS, OnlySpan, attach, detach
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
from tracekit.instrumentation._operation import BareOperation, Operation, begin_work
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._traceresponse import NEVER, answer, with_answer
from tracekit.instrumentation._trust import Caller, Trust, caller_of

__all__ = ["Served", "refuse"]

# The others are the caller's mistakes, and no failure of the server.
# https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
_SERVER_ERRORS = frozenset(
    ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
)
_SERVER = SpanKind.SERVER
_SUCCESS = {semconv.RPC_STATUS_CODE: OK}
_NOBODY = Caller(NO_CONTEXT, ())
_key_of = operator.itemgetter(0)
_MOST_PEERS = 64


class Served:
    """One method of the program's, and what its calls begin and end with.

    Args:
        owners: While there are none, no call is watched.
        gone: What a synchronous server writes into its state of a call when the caller is gone.
            None for an asynchronous one, which cancels the task, and has all else in C.
    """

    __slots__ = (
        "_attributes",
        "_gone",
        "_name",
        "_owners",
        "_reads",
        "_start_span",
        "_starts",
        "_told",
        "_trust",
    )

    def __init__(
        self,
        settings: GrpcSettings,
        path: str | bytes,
        owners: Sequence[object],
        gone: str | None,
    ) -> None:
        self._name = method_of(path).name
        self._attributes = {semconv.RPC_SYSTEM_NAME: "grpc", semconv.RPC_METHOD: self._name}
        self._starts: dict[str | bytes, dict[str, Any]] = {}
        self._start_span = settings.tracer.start_span
        self._trust = settings.trust
        self._told = settings.traceresponse
        self._owners = owners
        self._gone = gone
        self._reads: tuple[Any, frozenset[str] | None] = (None, None)

    def begin(self, context: Any) -> Operation | None:
        """Start the span of a call and make it current; None where it is not to be watched."""
        if not self._owners:
            return None
        try:
            if self._gone is None:
                peer, metadata = context.peer(), context.invocation_metadata()
            else:
                try:  # as the public methods do it, without the frames of three
                    event = context._rpc_event
                    peer, metadata = event.call.peer(), event.invocation_metadata
                except AttributeError:  # of a version that keeps it elsewhere
                    peer, metadata = context.peer(), context.invocation_metadata()
            attributes = self._starts.get(peer)
            if attributes is None:
                attributes = self._start_with(peer)
            propagator = TEXTMAP._HTTP_TEXT_FORMAT
            known, reads = self._reads
            if known is not propagator:
                reads = self._ask(propagator)
            entries = () if metadata is None else metadata
            if reads is None or not reads.isdisjoint(map(_key_of, entries)):
                parent, links = _caller(self._trust, attributes, texts_of(metadata))
                return begin_work(self._start_span, self._name, attributes, _SERVER, parent, links)
            # Nothing is brought along. As `begin_work` does it, and Operation, without frames.
            operation, only = BareOperation(), OnlySpan()
            operation.span = only.span = self._start_span(
                self._name, NO_CONTEXT, _SERVER, attributes
            )
            operation.system = ""
            operation._ended = False
            operation.context = only
            operation._token = attach(only)
            return operation
        except Exception:
            report("the beginning of a call")
            return None

    def _ask(self, propagator: Any) -> frozenset[str] | None:
        """Return the names of the metadata that a propagator reads; None where it does not say."""
        given = getattr(propagator, "reads", None)
        reads = frozenset(given) if isinstance(given, tuple) else None
        self._reads = (propagator, reads)
        return reads

    def _start_with(self, peer: str | bytes) -> dict[str, Any]:
        """Return what the spans of calls from one socket start with."""
        if len(self._starts) >= _MOST_PEERS:
            self._starts.clear()
        text = peer if isinstance(peer, str) else peer.decode("utf-8", "replace")
        self._starts[peer] = attributes = {**self._attributes, **_peer_of(text)}
        return attributes

    def succeed(self, operation: Operation, context: Any) -> None:
        """End the span of a call whose function has returned, or whose stream is over."""
        try:
            gone = self._gone
            if gone is None:
                is_fine = context.code() is None
            else:  # as the public methods see it, without their seven frames and the call's lock
                state = context._state
                is_fine = state.code is None and state.client is not gone and not state.statused
            span: Any = operation.span
            if is_fine and type(span) in PLAIN_SPANS and span._anchor[3] is None:
                # As `Operation.succeed` does, without its frame; nobody else may end it.
                detach(operation._token)
                span.end(None, _SUCCESS)
                return
        except Exception:  # a context of somebody else's, or of a version that keeps it elsewhere
            pass
        self._settle(operation, context)

    def _settle(self, operation: Operation, context: Any) -> None:
        try:
            code, details = _status_of(context)
            if code == OK and not _is_active(context):
                code = _why_gone(context)
        except Exception:
            report("the status of a call")
            code, details = OK, None
        self._end(operation, context, code, details if code != OK else None)

    def fail(self, operation: Operation, context: Any, error: BaseException) -> None:
        """End the span of a call whose function has raised."""
        try:
            code, details = _status_of(context)
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


def refuse(settings: GrpcSettings, path: str | bytes, metadata: Any) -> None:
    """Make a span of a call of a method that there is not.

    Its name is the caller's, who may write anything.
    """
    attributes = {
        semconv.RPC_SYSTEM_NAME: "grpc",
        semconv.RPC_METHOD: semconv.METHOD_OTHER,
        semconv.RPC_METHOD_ORIGINAL: method_of(path).name,
    }
    parent, links = _caller(settings.trust, attributes, texts_of(metadata))
    start_span = settings.tracer.start_span
    operation = begin_work(start_span, "grpc", attributes, _SERVER, parent, links)
    if operation is not None:
        end_with(operation, "UNIMPLEMENTED")


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


# What came of it


def _status_of(context: Any) -> tuple[str, Any]:
    """Return what the program has said; None and OK stand for nothing."""
    if not hasattr(context, "code"):  # of a plain function in an asynchronous server
        return OK, None
    return name_of_code(context.code()), context.details()


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


# Who calls


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
