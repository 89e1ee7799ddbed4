"""The few private names of opentelemetry-api that the path of a span uses.

Through the public API, reading the current span and making one current costs 0.4 µs a span;
through the ContextVar behind it, 0.2. The names are looked up and tried once, when this
module is loaded; where they are not what was expected (a future API version, or a context
implementation chosen by ``OTEL_PYTHON_CONTEXT``) the public functions are used instead.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    INVALID_SPAN,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.trace.propagation import _SPAN_KEY

__all__ = [
    "FLAGS",
    "NO_CONTEXT",
    "PLAIN_SPANS",
    "SPAN_KEY",
    "OnlySpan",
    "attach",
    "current_context",
    "detach",
    "fills_itself",
    "is_fast",
    "new_span_context",
    "span_context",
    "with_span",
]

C = TypeVar("C", bound=type[Any])
GetCurrent = Callable[[], Context]
Attach = Callable[[Context], Any]
Detach = Callable[[Any], None]


def _span_key() -> str:
    """Return the key under which the API keeps the current span, however it is called."""
    if set_span_in_context(INVALID_SPAN, Context()) == {_SPAN_KEY: INVALID_SPAN}:
        return _SPAN_KEY
    return next(iter(set_span_in_context(INVALID_SPAN, Context())))


def _public_detach(token: Any) -> None:
    # The public detach() logs an error for a token of another Context instead of raising.
    context_api._RUNTIME_CONTEXT.detach(token)


def _ways() -> tuple[GetCurrent, Attach, Detach, bool]:
    runtime = getattr(context_api, "_RUNTIME_CONTEXT", None)
    variable = getattr(runtime, "_current_context", None)
    if isinstance(variable, ContextVar) and variable.get() is context_api.get_current():
        return variable.get, variable.set, variable.reset, True
    detach = _public_detach if hasattr(runtime, "detach") else context_api.detach
    return context_api.get_current, context_api.attach, detach, False


SPAN_KEY: str = _span_key()
current_context, attach, detach, is_fast = _ways()

NO_CONTEXT: Context = contextvars.Context().run(current_context)
"""The current context where nobody has attached one, as at a root; asking a context whether it is
empty takes longer than a comparison with this one."""


class OnlySpan(Context):
    """A Context that holds the current span and nothing else, as most do.

    Made for every span that is current: filling a dictionary for it costs 0.09 µs more than
    keeping the span in a slot, and reading the dictionary 0.02 µs more than ``context.span``.
    Whoever looks a value up gets it from the slot. Whatever else a dictionary can do first
    fills this one and makes it a ``_FilledOnlySpan``, which is a Context like any other. The short
    cuts that CPython takes through dictionaries (``dict(context)``, ``{**context}``) are for those
    whose ``__iter__`` is their own; only C code that takes one uninvited finds it empty, such as
    the encoder of ``json``, which could not write a span either.

    ``log_fields`` is what log records say of the span, from the first one on: made once, and kept
    no longer than the span is current somewhere.

    Concurrency: filling it a second time changes nothing.
    """

    __slots__ = ("log_fields", "span")

    span: Any
    log_fields: tuple[str, str, bool, str]

    if not TYPE_CHECKING:
        # There is nothing to fill it with, which dict's own would look for.
        __init__ = object.__init__

    def get(self, key: str, default: Any = None) -> Any:
        return self.span if key == SPAN_KEY else default

    def __contains__(self, key: object) -> bool:
        return key == SPAN_KEY

    def __len__(self) -> int:
        return 1

    def copy(self) -> dict[str, object]:
        return {SPAN_KEY: self.span}

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        return Context, (self.copy(),)

    def _fill(self) -> None:
        dict.__setitem__(self, SPAN_KEY, self.span)
        self.__class__: type[Any] = _FilledOnlySpan


class _FilledOnlySpan(Context):
    """What becomes of an ``OnlySpan`` that was asked for more: a plain dictionary."""

    __slots__ = ("log_fields", "span")

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        return Context, (dict(self),)


def _once_filled(name: str) -> Callable[..., Any]:
    """Return a dictionary's method that fills what it is called on first."""

    def method(self: Any, *args: Any, **named: Any) -> Any:
        self._fill()
        return getattr(self, name)(*args, **named)

    return method


_NEEDS_NO_FILLING = frozenset(
    ("__new__", "__init__", "__getattribute__", "__hash__", "__class_getitem__", "fromkeys")
)


def fills_itself(cls: C) -> C:
    """Let a Context that keeps its values in slots answer for a dictionary, as ``OnlySpan`` does.

    Its ``_fill`` puts them in, and makes it a class that has the same slots and is no more than
    a Context.
    """
    for name in vars(dict).keys() - vars(cls).keys() - _NEEDS_NO_FILLING:
        setattr(cls, name, _once_filled(name))
    return cls


fills_itself(OnlySpan)


def with_span(context: Context, span: object) -> Context:
    """Return a copy of ``context`` in which ``span`` is current."""
    if type(context) is not OnlySpan and context:
        return Context({**context, SPAN_KEY: span})
    only = OnlySpan()
    only.span = span
    return only


FLAGS = tuple(TraceFlags(bits) for bits in range(256))
"""What a SpanContext says for a byte of flags."""

PLAIN_SPANS: set[type] = set()
"""The classes of our recording spans. Their ``end()`` takes last attributes as well. A propagator
reads their ``_trace_id``, ``_span_id`` and ``_anchor`` (flags, trace state, ...) by itself: 0.3 µs
less than a SpanContext made for it. Not where ``_binding.marks_parents``: such a span wants to know
that its id goes elsewhere, and learns it from ``get_span_context()``."""


def _by_constructor(cls: type[SpanContext], fields: tuple[Any, ...]) -> SpanContext:
    return cls(*fields[:5])


def _span_context_maker() -> Callable[[type[SpanContext], tuple[Any, ...]], SpanContext]:
    fields = (1 << 127, 1 << 63, False, FLAGS[3], TraceState([("a", "b")]), True)
    public = _by_constructor(SpanContext, fields)
    try:
        fast = tuple.__new__(SpanContext, fields)
        same = tuple(fast) == tuple(public) and fast.is_valid and fast.trace_flags.sampled
    except Exception:
        return _by_constructor
    return tuple.__new__ if same else _by_constructor


new_span_context = _span_context_maker()
"""Makes a SpanContext from the class and its six fields: trace id, span id, is_remote, flags out of
``FLAGS``, trace state, and True, for ids that are valid. One call of C: the constructor checks
ranges and builds a TraceFlags, 0.8 µs, and our ids are in range."""


def span_context(
    trace_id: int, span_id: int, is_remote: bool, flags: int, trace_state: TraceState | None
) -> SpanContext:
    """Make a SpanContext from ids that are in range."""
    state = trace_state if trace_state is not None else DEFAULT_TRACE_STATE
    return new_span_context(
        SpanContext, (trace_id, span_id, is_remote, FLAGS[flags & 0xFF], state, True)
    )
