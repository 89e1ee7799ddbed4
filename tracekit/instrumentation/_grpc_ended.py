"""How the span of a call of gRPC ends that the program makes."""

from __future__ import annotations

import sys
import weakref
from collections.abc import Sequence
from typing import Any

from opentelemetry.trace import Span

from tracekit import semconv
from tracekit.instrumentation._grpc import CANCELLED, OK, end_with, name_of_code, texts_of
from tracekit.instrumentation._http import is_cancellation
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._traceresponse import hear

__all__ = ["SUCCESS", "EndOfAsync", "await_end", "fail", "follow", "refuse"]

SUCCESS = {semconv.RPC_STATUS_CODE: OK}


def fail(operation: Operation, error: Any) -> None:
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


def refuse(operation: Operation, state: Any, answer: Sequence[Any]) -> None:
    """End the span of a call that was answered with an error.

    The library raises that next, from the same state; asked for it here, it is one with a stack.
    """
    raised: BaseException | None = None
    try:
        sys.modules["grpc._channel"]._end_unary_response_blocking(*answer, False, None)
    except sys.modules["grpc"].RpcError as error:
        raised = error
    end_with(operation, name_of_code(state.code), state.details, raised)


@quiet
def follow(span: Span, metadata: Any) -> None:
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
            follow(self._operation.span, state.trailing_metadata)
        end_with(self._operation, code, state.details, is_error=code != OK and not on_purpose)


@quiet
def await_end(operation: Operation, rendezvous: Any, hears: bool) -> None:
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


class EndOfAsync:
    """Ends a span with the status of an asynchronous call; called when that is there."""

    __slots__ = ("_call", "_hears", "_operation")

    def __init__(self, operation: Operation, call: Any, hears: bool) -> None:
        self._hears = hears
        self._operation = operation
        self._call = call

    def __call__(self, *_: Any) -> None:
        # The call leads here: what is let go of now is no cycle afterwards.
        call, self._call = self._call, None
        if call is None:
            return
        try:
            operation = self._operation
            if call.is_ok() and getattr(operation.span, "kept", None) is not False:
                operation.succeed(SUCCESS)
            else:
                self._end(operation, call)
        except Exception:
            report("the end of a call")

    def _end(self, operation: Operation, call: Any) -> None:
        status = _now(call.status())
        code = name_of_code(status.code())
        on_purpose = code == CANCELLED and call.is_locally_cancelled()
        if self._hears:
            follow(operation.span, status.trailing_metadata())
        is_error = code != OK and not on_purpose
        end_with(operation, code, status.details(), is_error=is_error)


def _now(coroutine: Any) -> Any:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        return done.value
    coroutine.close()
    raise RuntimeError("the status of a call that is done has to be awaited")
