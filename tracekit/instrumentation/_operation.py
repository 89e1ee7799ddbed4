"""One operation of a library and the span that stands for it.

What a command of a database, a call of another service and a message have in common: the span
starts with everything a sampler may want to know, is current while the library works, and ends
with what came of it. An instrumentation calls :func:`begin` before the library's own code, and
``succeed`` or ``fail`` after it; none of them raises.

Inside of an operation a library may call its own functions that are patched too: a cluster asks
a node, a pipeline loads its scripts. Those are part of it: :func:`under_way` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.trace import Link, Span, SpanKind, Status, StatusCode

from tracekit import semconv
from tracekit._otel_context import (
    NO_CONTEXT,
    PLAIN_SPANS,
    SPAN_KEY,
    OnlySpan,
    attach,
    current_context,
    detach,
    fills_itself,
)
from tracekit.instrumentation._carry import is_suppressed
from tracekit.instrumentation._http import is_cancellation, record_failure
from tracekit.instrumentation._patch import report

__all__ = [
    "BareOperation",
    "OnlyOperation",
    "OnlySpeaking",
    "Operation",
    "begin",
    "begin_work",
    "is_spoken_for",
    "under_way",
]

StartSpan = Callable[..., Span]

_KEY = "tracekit-operation"
_NOTHING = Context()
_SUPPRESS = "suppress_instrumentation"  # what opentelemetry.instrumentation.utils sets
# Waits below are the cost of asking, not of waiting.
_NOTABLE_WAIT_NS = 1_000_000


@fills_itself
class OnlyOperation(Context):
    """A Context that holds an operation with its span and nothing else, as most of these do.

    Made for every call of a library, and hardly ever asked: filling two dictionaries for it
    takes 0.3 µs longer than two slots.
    """

    __slots__ = ("operation", "span")

    operation: Operation
    span: Span

    if not TYPE_CHECKING:
        # There is nothing to fill it with, which dict's own would look for.
        __init__ = object.__init__

    def get(self, key: str, default: Any = None) -> Any:
        if key == SPAN_KEY:
            return self.span
        return self.operation if key == _KEY else default

    def __contains__(self, key: object) -> bool:
        return key in (SPAN_KEY, _KEY)

    def __len__(self) -> int:
        return 2

    def copy(self) -> dict[str, object]:
        return {SPAN_KEY: self.span, _KEY: self.operation}

    def _fill(self) -> None:
        dict.update(self, self.copy())
        self.__class__: type[Any] = _FilledOnlyOperation


class _FilledOnlyOperation(Context):
    """What becomes of an ``OnlyOperation`` that was asked for more."""

    __slots__ = ("operation", "span")


class OnlySpeaking(OnlyOperation):
    """A Context that holds nothing but an operation that speaks for others, and its span."""

    __slots__ = ()

    def get(self, key: str, default: Any = None) -> Any:
        return True if key == _SUPPRESS else OnlyOperation.get(self, key, default)

    def __contains__(self, key: object) -> bool:
        return key in (SPAN_KEY, _KEY, _SUPPRESS)

    def __len__(self) -> int:
        return 3

    def copy(self) -> dict[str, object]:
        return {SPAN_KEY: self.span, _KEY: self.operation, _SUPPRESS: True}


class Operation:
    """A call that is under way.

    Concurrency: used by the thread or task that makes the call.
    """

    __slots__ = ("_ended", "_token", "context", "span", "system")

    def __init__(
        self,
        span: Span,
        system: str,
        parent: Context,
        current: bool = True,
        speaks_for_others: bool = False,
    ) -> None:
        """Stand for a call whose span has started.

        Args:
            current: False where nothing would know that it is.
            speaks_for_others: Whatever other libraries do for it makes no spans.
        """
        self.span = span
        self.system = system
        self._ended = False
        if not current:
            self.context = parent
            self._token: Any = None
            return
        # As `enter` does, without its frame: this is on the path of every call.
        context: Any
        if type(parent) is not OnlySpan and parent is not NO_CONTEXT:
            # Its copy, because unpacking fills one that holds a span only: a microsecond.
            values = {**parent.copy(), SPAN_KEY: span, _KEY: self}
            if speaks_for_others:
                values[_SUPPRESS] = True
            context = Context(values)
        elif system:
            context = OnlySpeaking() if speaks_for_others else OnlyOperation()
            context.span = span
            context.operation = self
        else:  # nothing asks what it is part of
            context = OnlySpan()
            context.span = span
        self.context = context
        self._token = attach(context)

    def leave(self) -> None:
        """Make current what was before; safe to call twice."""
        token, self._token = self._token, None
        if token is not None:
            # A coroutine that garbage collection closes does so in another context.
            try:
                detach(token)
            except (ValueError, RuntimeError):
                pass

    def enter(self, context: Context) -> None:
        """Make current what was made of this operation's context, in its place."""
        self.leave()
        self.context = context
        self._token = attach(context)

    def succeed(self, attributes: Mapping[str, Any] | None = None) -> None:
        """End the span, which adds `attributes`; safe to call twice."""
        token = self._token
        if token is not None:  # as `leave` does, without its frame
            self._token = None
            try:
                detach(token)
            except (ValueError, RuntimeError):
                pass
        if self._ended:
            return
        self._ended = True
        # It holds this operation in turn: neither is to wait for the garbage collector.
        self.context = _NOTHING
        span: Any = self.span
        try:
            if type(span) in PLAIN_SPANS:
                span.end(None, attributes)
                return
            if attributes is not None:
                span.set_attributes(attributes)
            span.end()
        except Exception:
            report("the end of a span")

    def fail(self, exception: BaseException, attributes: Mapping[str, Any] | None = None) -> None:
        """Record the exception that goes on to the program, and end the span.

        Args:
            attributes: Written last: an ``error.type`` among them takes the class's place.
        """
        if not self._ended and not is_cancellation(exception):
            record_failure(self.span, exception)
        self.succeed(attributes)

    def fail_with(self, code: str, message: str, attributes: Mapping[str, Any]) -> None:
        """End the span of an operation that was answered with an error, and raised none."""
        try:
            self.span.set_attribute(semconv.ERROR_TYPE, code)
            self.span.set_status(Status(StatusCode.ERROR, message))
        except Exception:
            report("the record of an error")
        self.succeed(attributes)

    def add_pool_wait(self, wait_ns: int) -> None:
        """Record that the operation waited for a connection of a pool that was used up."""
        if wait_ns >= _NOTABLE_WAIT_NS and not self._ended:
            try:
                self.span.set_attribute(semconv.POOL_WAIT, wait_ns / 1e9)
            except Exception:
                report("the record of a wait")


class BareOperation(Operation):
    """An operation without what it stands for: whoever makes one fills all slots.

    That spares the path of a call the frame of a constructor.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        def __init__(self) -> None:
            """Hold nothing yet."""
    else:
        __init__ = object.__init__


def begin(
    start_span: StartSpan,
    system: str,
    name: str,
    attributes: Mapping[str, Any],
    kind: SpanKind = SpanKind.CLIENT,
) -> Operation | None:
    """Start the span of an operation and make it current; None when it is not to be watched.

    Args:
        system: Whose operation it is; one inside another of the same system has no span. Empty
            where every operation has one.
    """
    try:
        parent = current_context()
        # A context of a span only says nothing else, and would be filled by looking into it.
        if (
            type(parent) is not OnlySpan
            and parent is not NO_CONTEXT
            and is_spoken_for(parent, system)
        ):
            return None
        span = start_span(name, parent, kind, attributes)
        return Operation(span, system, parent)
    except Exception:
        report("the beginning of a span")
        return None


def begin_work(
    start_span: StartSpan,
    name: str,
    attributes: Mapping[str, Any],
    kind: SpanKind,
    parent: Context,
    links: Sequence[Link] | None = None,
) -> Operation | None:
    """Start the span of what the program itself does: serve a call, work a message off.

    What it calls from there are operations of their own. None when it is not to be watched.
    """
    try:
        if type(parent) is not OnlySpan and parent is not NO_CONTEXT and is_suppressed(parent):
            return None
        # All five: with defaults left out, CPython has no short cut for making an object.
        return Operation(start_span(name, parent, kind, attributes, links), "", parent, True, False)
    except Exception:
        report("the beginning of a span")
        return None


def is_spoken_for(parent: Context, system: str) -> bool:
    """Tell whether an operation of `system` is part of another, or is not to be watched."""
    if type(parent) is OnlyOperation:  # and no OnlySpeaking, which is one too
        return _is_inside(parent.operation, system)
    if is_suppressed(parent):
        return True
    outer = parent.get(_KEY)
    return outer is not None and _is_inside(outer, system)


def under_way(system: str) -> Operation | None:
    """Return the operation of `system` that this code runs inside of."""
    context: Any = current_context()
    cls = type(context)
    if cls is OnlyOperation or cls is OnlySpeaking:
        outer = context.operation
    else:
        outer = None if cls is OnlySpan else context.get(_KEY)
    # As `_is_inside` does, without its frame.
    return outer if outer is not None and outer.system == system and not outer._ended else None


def _is_inside(outer: Any, system: str) -> bool:
    # A thread or task that was started meanwhile may have copied the context.
    return system != "" and outer.system == system and not outer._ended
