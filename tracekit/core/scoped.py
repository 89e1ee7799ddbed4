"""Scopes: spans that start, are current, and end with a ``with`` block."""

from __future__ import annotations

from collections.abc import Callable
from gc import is_tracked
from types import TracebackType
from typing import Any, TypeVar

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from tracekit._otel_context import (
    NO_CONTEXT,
    PLAIN_SPANS,
    SPAN_KEY,
    OnlySpan,
    attach,
    current_context,
    detach,
    with_span,
)
from tracekit.core.binding import (
    DEFAULT_OPTIONS,
    RANDOM_MASK,
    Anchor,
    Binding,
    NewScope,
    SpanOptions,
)
from tracekit.core.dropped import DROPPED, DroppedSpan
from tracekit.core.scope import leave_elsewhere
from tracekit.core.span import IS_SAMPLED, RECORDING, Span
from tracekit.core.wrap import wrap

__all__ = ["DroppedScope", "ScopedSpan", "choose_new_scope", "scope_with_options"]

_F = TypeVar("_F", bound=Callable[..., Any])


class ScopedSpan(Span):
    """A span that is current in its ``with`` block: the span is its own context manager.

    Nothing has started before ``__enter__``, so an unused one costs nothing and it also
    serves as a decorator. Leaving the block restores the context only if this scope's span
    is still the current one.
    """

    __slots__ = ()

    # Set only when the sampler dropped the span.
    _stand_in: Span | DroppedSpan | None = None

    # Set only while a scope whose span has ended is entered once more.
    _entered_again: Any = None

    def __enter__(self) -> Any:
        if self._end is not None:
            return self._enter_again()
        binding = self._binding
        context: Any = current_context()
        # The two usual cases of begin(), written out because they are on every path: a call
        # fewer, and no test twice. What they leave out is sent to begin().
        if type(context) is OnlySpan:
            parent: Any = context.span
            if (
                (type(parent) is not ScopedSpan and type(parent) not in RECORDING)
                or not IS_SAMPLED[parent._anchor[0]]
                or not binding.is_plain
            ):
                return self._enter(context)
            self._trace_id = parent._trace_id
            self._anchor = parent._anchor
            self._parent = parent._span_id
            self._start = binding.monotonic_ns()
        elif (
            context is not NO_CONTEXT or not binding.keeps_roots or self._kind is binding.asked_kind
        ):
            return self._enter(context)
        else:
            self._trace_id = binding.random_bits(128)
            self._start = start = binding.monotonic_ns()
            self._anchor = (
                binding.renew_anchor(start) if start >= binding.anchored_until else binding.anchor
            )
            self._parent = None
        self._span_id = binding.random_bits(64)
        attributes = self._attributes
        if attributes is not None and (
            is_tracked(attributes) or len(attributes) > binding.max_start_attributes
        ):
            self._check_attributes(attributes)
        binding.count_started()
        # with_span(), written out.
        only = OnlySpan()
        only.span = self
        self._token = attach(only)
        return self

    def _enter_again(self) -> Any:
        """Start another span like this one, which has ended and may wait to be exported."""
        self._entered_again = again = self._again()
        return again.__enter__()

    def _leave_again(self, *raised: Any) -> None:
        again, self._entered_again = self._entered_again, None
        again.__exit__(*raised)

    def _enter(self, context: Context) -> Any:
        """Start as begin() does and become current."""
        span = self.begin(context)
        if span is not self:
            self._stand_in, self._end = span, 0
        self._token = attach(with_span(current_context(), span))
        return span

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_val is not None:
            self._record_escaping(exc_val)
        binding = self._binding
        end = binding.monotonic_ns()
        # The usual case, written out: _leave() and end() would each cost a call.
        context: Any = current_context()
        if type(context) is OnlySpan and context.span is self:
            try:
                detach(self._token)
            except (ValueError, RuntimeError, TypeError):
                leave_elsewhere(self, self, self._token)
            self._token = None
        elif self._entered_again is not None:
            self._leave_again(exc_type, exc_val, exc_tb)
        else:
            self._leave()
        if self._end is None:
            self._end = end
            binding.on_end(self)

    def _leave(self) -> None:
        """Stop being current: the span itself, or what stands for it."""
        token, self._token = self._token, None
        current = self._stand_in or self
        try:
            if current_context().get(SPAN_KEY) is current:
                detach(token)
                return
        except (ValueError, RuntimeError, TypeError):
            pass
        leave_elsewhere(self, current, token)

    def begin_detached(self) -> Span | DroppedSpan:
        """Start without becoming current, for a body whose context is put on and off."""
        span = self.begin(current_context())
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

    def _again(self) -> Any:
        attributes = dict(self._attributes) if self._attributes else None
        binding = self._binding.current()
        return binding.new_scope(binding, self._name, self._kind, attributes)


class _ScopeWithOptions(ScopedSpan):
    """A scope of which something is said that seldom is; so the others need not look."""

    __slots__ = ()

    def __init__(
        self,
        binding: Binding,
        name: str,
        kind: SpanKind,
        attributes: dict[str, Any] | None,
        options: SpanOptions,
    ) -> None:
        self._binding = binding
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._end = None
        self._options = options

    def __enter__(self) -> Any:
        return self._enter(self._context_given()) if self._end is None else self._enter_again()

    def _context_given(self) -> Context:
        given = self._options.context
        return current_context() if given is None else given

    def begin(self, context: Context, options: SpanOptions = DEFAULT_OPTIONS) -> Span | DroppedSpan:
        return super().begin(self._context_given(), self._options)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if self._entered_again is not None:
            self._leave_again(exc_type, exc_val, exc_tb)
            return
        if exc_val is not None:
            self._record_escaping(exc_val)
        self._leave()
        if self._options.end_on_exit and self._end is None:
            self.end()

    def _again(self) -> Any:
        attributes = dict(self._attributes) if self._attributes else None
        binding = self._binding.current()
        return scope_with_options(binding, self._name, self._kind, attributes, self._options)


RECORDING.update({ScopedSpan, _ScopeWithOptions})
PLAIN_SPANS.update({ScopedSpan, _ScopeWithOptions})


class DroppedScope(DroppedSpan):
    """A root span whose trace was dropped before it was entered, current in its block.

    The sampler's answer depends on the trace id alone, so the id is drawn and the answer is
    known when the scope is made; a dropped root costs one object. Entered under a parent
    after all (as a decorator, or in another context), it stands back for a span that is
    decided as usual.
    """

    __slots__ = ("_attributes", "_instead", "_kind", "_token")

    # Its slots are filled by whoever makes it: an __init__ would cost a frame.
    __init__: Any = object.__init__

    # Set only where some roots are kept.
    _drawn_early: int = 0

    _attributes: dict[str, Any] | None
    _instead: ScopedSpan
    _kind: SpanKind
    _token: Any

    @property
    def _trace_id(self) -> int:  # type: ignore[override]
        if self._drawn_early:
            return self._drawn_early
        # Where every root is dropped the id decided nothing, and mostly nobody reads it.
        # One call, so that two threads which ask at the same time get the same id.
        drawn: int = vars(self).setdefault("_drawn_late", self._binding.random_bits(128) or 1)
        return drawn

    @property
    def _anchor(self) -> Anchor:  # type: ignore[override]
        return self._binding.dropped_anchor

    def __enter__(self) -> Any:
        if current_context() is not NO_CONTEXT:
            return self._enter_instead()
        self._binding.count_sampled_out()
        only = OnlySpan()
        only.span = self
        self._token = attach(only)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        context: Any = current_context()
        token = self._token
        if type(context) is OnlySpan and context.span is self:
            try:
                detach(token)
            except (ValueError, RuntimeError, TypeError):
                leave_elsewhere(self, self, token)
        elif token is None:
            self._instead.__exit__(exc_type, exc_val, exc_tb)
        else:
            self._leave()

    def _leave(self) -> None:
        try:
            if current_context().get(SPAN_KEY) is self:
                detach(self._token)
                return
        except (ValueError, RuntimeError, TypeError):
            pass
        leave_elsewhere(self, self, self._token)

    def _enter_instead(self) -> Any:
        self._token = None
        self._instead = self._decided_later()
        return self._instead.__enter__()

    def _decided_later(self) -> ScopedSpan:
        attributes = dict(self._attributes) if self._attributes else None
        return _scope(self._binding.current(), self._name, self._kind, attributes)

    def begin_detached(self) -> Span | DroppedSpan:
        self._instead = self._decided_later()
        return self._instead.begin_detached()

    def end_detached(self, exception: BaseException | None) -> None:
        self._instead.end_detached(exception)

    def __call__(self, function: _F) -> _F:
        """Decorate a function, as ScopedSpan does."""
        return self._decided_later()(function)


DROPPED.add(DroppedScope)


def choose_new_scope(binding: Binding) -> NewScope:
    """Return what makes the scopes of a tracer: chosen once, for it is on the path of each span."""
    return _scope_decided_early if binding.decides_early else _scope


def _scope(
    binding: Binding, name: str, kind: SpanKind, attributes: dict[str, Any] | None
) -> ScopedSpan:
    """Return a span that starts and is current in a ``with`` block."""
    # With an __init__ that takes these, 0.07 µs more for its frame.
    span = ScopedSpan()
    span._binding = binding
    span._name = name
    span._kind = kind
    span._attributes = attributes
    span._end = None
    return span


def _scope_decided_early(
    binding: Binding, name: str, kind: SpanKind, attributes: dict[str, Any] | None
) -> ScopedSpan | DroppedScope:
    """Return such a span, or what stands for it where the trace id says that it is dropped."""
    if current_context() is not NO_CONTEXT:
        return _scope(binding, name, kind, attributes)
    if not binding.drops_roots:
        trace_id = binding.random_bits(128) or 1
        if (trace_id & RANDOM_MASK) >= binding.root_threshold:
            span = _scope(binding, name, kind, attributes)
            span._trace_id = trace_id
            return span
        scope: DroppedScope = DroppedScope()
        scope._drawn_early = trace_id
    else:
        scope = DroppedScope()
    scope._binding = binding
    scope._name = name
    scope._kind = kind
    scope._attributes = attributes
    return scope


def scope_with_options(
    binding: Binding,
    name: str,
    kind: SpanKind,
    attributes: dict[str, Any] | None,
    options: SpanOptions,
) -> ScopedSpan:
    """Return such a span where more is said about it; decided when it starts."""
    return _ScopeWithOptions(binding, name, kind, attributes, options)
