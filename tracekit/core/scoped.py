"""Scopes: spans that start, are current, and end with a ``with`` block."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, TypeVar

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from tracekit._otel_context import SPAN_KEY, attach, current_context, detach, with_span
from tracekit.core.binding import DEFAULT_OPTIONS, RANDOM_MASK, Binding, LocalTrace, SpanOptions
from tracekit.core.dropped import DroppedSpan
from tracekit.core.scope import leave_elsewhere
from tracekit.core.span import RECORDING, SAMPLED, Span
from tracekit.core.wrap import wrap

__all__ = ["DroppedScope", "ScopedSpan", "scoped"]

_F = TypeVar("_F", bound=Callable[..., Any])


class ScopedSpan(Span):
    """A span that is current in its ``with`` block: the span is its own context manager.

    Nothing has started before ``__enter__``, so an unused one costs nothing and it also
    serves as a decorator. Leaving the block restores the context only if this scope's span
    is still the current one.
    """

    # Set only when the sampler dropped the span, and when the trace id was drawn beforehand.
    __slots__ = ("_drawn_trace_id", "_stand_in")

    _stand_in: Span | DroppedSpan
    _drawn_trace_id: int

    def __enter__(self) -> Span:
        binding = self._binding
        context = current_context()
        if self._options is not DEFAULT_OPTIONS or not binding.is_plain:
            return self._enter(context)
        # The two usual cases of begin(), written out because they are on every path: a call
        # fewer, and no test twice. What they leave out is sent to begin().
        if not context:
            if not binding.root_threshold:
                trace_id = binding.random_bits(128) or binding.random_bits(128)
            else:
                trace_id = getattr(self, "_drawn_trace_id", 0)
                if not trace_id:
                    return self._enter(context)
            self._start = start = binding.monotonic_ns()
            offset = binding.wall_ns() - start
            self._trace = (trace_id, binding.root_flags, binding.root_trace_state, offset)
            self._parent = None
        else:
            parent: Any = context.get(SPAN_KEY)
            if type(parent) is not ScopedSpan or len(context) > 1 or not parent._trace[1] & SAMPLED:
                return self._enter(context)
            self._trace = parent._trace
            self._parent = parent._span_id
            self._start = binding.monotonic_ns()
        self._span_id = binding.random_bits(64) or binding.random_bits(64)
        if self._attributes is not None:
            self._check_attributes(self._attributes)
        binding.count_started()
        self._token = attach(Context({SPAN_KEY: self}))
        return self

    def _enter(self, context: Context) -> Span:
        """Start as begin() does and become current."""
        options = self._options
        if options.context is not None:
            context = options.context
        span = self.begin(context)
        if span is not self:
            stand_in: Any = span
            return self._enter_dropped(stand_in)  # type: ignore[no-any-return]
        if options.context is not None or len(context) > (self._parent is not None):
            self._token = attach(with_span(current_context(), self))
        else:
            self._token = attach(Context({SPAN_KEY: self}))
        return self

    def _enter_dropped(self, stand_in: Span | DroppedSpan) -> Any:
        self._stand_in = stand_in
        self._end = 0
        self._token = attach(with_span(current_context(), stand_in))
        return stand_in

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if self._end is not None:
            self._leave(getattr(self, "_stand_in", self))
            return
        if exc_val is not None:
            self._record_escaping(exc_val)
        binding = self._binding
        if binding.on_ending is not None or self._options is not DEFAULT_OPTIONS:
            self._leave(self)
            if self._options.end_on_exit:
                self.end()
            return
        # The usual case, written out: _leave() and end() would each cost a call.
        end = binding.monotonic_ns()
        try:
            if current_context().get(SPAN_KEY) is self:
                detach(self._token)
            else:
                leave_elsewhere(self, self, self._token)
        except (ValueError, RuntimeError, TypeError):
            leave_elsewhere(self, self, self._token)
        self._token = None
        if self._end is None:
            self._end = end
            binding.on_end(self)

    def _leave(self, current: Span | DroppedSpan) -> None:
        """Stop being current: the span itself, or what stands for it."""
        token, self._token = self._token, None
        try:
            if current_context().get(SPAN_KEY) is current:
                detach(token)
                return
        except (ValueError, RuntimeError, TypeError):
            pass
        leave_elsewhere(self, current, token)

    def begin_detached(self) -> Span | DroppedSpan:
        """Start without becoming current, for a body whose context is put on and off."""
        options = self._options
        span = self.begin(current_context() if options.context is None else options.context)
        if span is not self:
            self._stand_in, self._end = span, 0
        return span

    def end_detached(self, exception: BaseException | None) -> None:
        if exception is not None:
            self._record_escaping(exception)
        if self._end is None:
            self.end()

    def __call__(self, function: _F) -> _F:
        """Decorate a function: each call runs in a new span like this one."""
        return wrap(function, self._again)

    def _again(self) -> ScopedSpan | DroppedScope:
        attributes = dict(self._attributes) if self._attributes else None
        return scoped(self._binding.current(), self._name, self._kind, attributes, self._options)


RECORDING.add(ScopedSpan)


class DroppedScope(DroppedSpan):
    """A root span whose trace was dropped before it was entered, current in its block.

    The sampler's answer depends on the trace id alone, so the id is drawn and the answer is
    known when the scope is made; a dropped root costs one object. Entered under a parent
    after all (as a decorator, or in another context), it stands back for a span that is
    decided as usual.
    """

    __slots__ = ("_attributes", "_instead", "_kind", "_token", "_trace_id")

    _instead: ScopedSpan
    _token: Any

    def __init__(
        self,
        binding: Binding,
        trace_id: int,
        name: str,
        kind: SpanKind,
        attributes: dict[str, Any] | None,
    ) -> None:
        # What enters later is set later: this runs for every dropped root.
        self._binding = binding
        self._trace_id = trace_id
        self._name = name
        self._span_id = 0
        self._kind = kind
        self._attributes = attributes

    @property
    def _trace(self) -> LocalTrace:  # type: ignore[override]
        binding = self._binding
        if not self._trace_id:
            # Where every root is dropped the id decided nothing, and mostly nobody reads it.
            self._trace_id = binding.random_bits(128) or binding.random_bits(128)
        return (self._trace_id, binding.random_flag, None, 0)

    def __enter__(self) -> Any:
        if current_context():
            return self._enter_instead()
        self._binding.count_sampled_out()
        self._token = attach(Context({SPAN_KEY: self}))
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        token, self._token = self._token, None
        if token is None:
            self._instead.__exit__(exc_type, exc_val, exc_tb)
            return
        try:
            if current_context().get(SPAN_KEY) is self:
                detach(token)
                return
        except (ValueError, RuntimeError, TypeError):
            pass
        leave_elsewhere(self, self, token)

    def _enter_instead(self) -> Any:
        self._token = None
        self._instead = self._decided_later()
        return self._instead.__enter__()

    def _decided_later(self) -> ScopedSpan:
        attributes = dict(self._attributes) if self._attributes else None
        return ScopedSpan(self._binding.current(), self._name, self._kind, attributes)

    def begin_detached(self) -> Span | DroppedSpan:
        self._instead = self._decided_later()
        return self._instead.begin_detached()

    def end_detached(self, exception: BaseException | None) -> None:
        self._instead.end_detached(exception)

    def __call__(self, function: _F) -> _F:
        """Decorate a function, as ScopedSpan does."""
        return self._decided_later()(function)


def scoped(
    binding: Binding,
    name: str,
    kind: SpanKind,
    attributes: dict[str, Any] | None,
    options: SpanOptions = DEFAULT_OPTIONS,
) -> ScopedSpan | DroppedScope:
    """Return a span that starts and is current in a ``with`` block, or its dropped stand-in."""
    if not binding.decides_early or options is not DEFAULT_OPTIONS or current_context():
        span = ScopedSpan(binding, name, kind, attributes)
        span._options = options
        return span
    if binding.drops_roots:
        return DroppedScope(binding, 0, name, kind, attributes)
    trace_id = binding.random_bits(128) or binding.random_bits(128)
    if (trace_id & RANDOM_MASK) < binding.root_threshold:
        return DroppedScope(binding, trace_id, name, kind, attributes)
    span = ScopedSpan(binding, name, kind, attributes)
    span._drawn_trace_id = trace_id
    return span
