"""Spans: what is recorded, from the first nanosecond to the reader.

Theory of operation
-------------------
A ``Span`` is one slotted object that is written by the program, ends, and is then handed on
as it is: it is also the record that exporters read. While it is open it holds only what
cannot be known later; everything that can be derived (``SpanContext``, ``Status``, checked
attributes, wall-clock times) is derived when somebody reads it.

All spans that share a local root share one tuple: trace id, flags, trace state, and the
anchor that turns monotonic readings into wall-clock times. A child copies one reference.
The parent is kept as its id, never as an object: a chain of spans would otherwise keep all
its ancestors in memory.

State that most spans never have (events, links, status, options of the scope) is not in a
slot: it lives in the instance dictionary, above a default on the class, and costs nothing
until it is written.

Concurrency: each method is made of single dictionary, list and attribute operations, which
no other thread can interrupt under the GIL; none takes a lock. A write that races with
``end()`` lands either before or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NamedTuple, TypeVar

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceState

from tracekit.core.ambient import inherited_attributes
from tracekit.core.attributes import EMPTY, clean, snapshot
from tracekit.core.binding import Binding
from tracekit.core.exception_event import describe, exception_attributes
from tracekit.core.otel_context import (
    SPAN_KEY,
    attach,
    current_context,
    detach,
    span_context,
    with_span,
)
from tracekit.core.scope import leave_elsewhere
from tracekit.core.wrap import wrap
from tracekit.model import (
    Attributes,
    Event,
    InstrumentationScope,
    Resource,
    span_to_json,
)

__all__ = ["DroppedSpan", "ScopedSpan", "Span", "SpanOptions"]

_F = TypeVar("_F", bound=Callable[..., Any])

EMPTY_TRACE_STATE = TraceState()
SAMPLED, RANDOM = 1, 2
INTERNAL = SpanKind.INTERNAL
UNSET, OK, ERROR = StatusCode.UNSET, StatusCode.OK, StatusCode.ERROR

LocalTrace = tuple[int, int, TraceState, int]
"""Trace id, trace flags, trace state, and wall-clock minus monotonic time in nanoseconds."""


class SpanOptions(NamedTuple):
    """What is seldom said when a span is started."""

    context: Context | None = None
    links: Sequence[Link] = ()
    start_time: int | None = None
    record_exception: bool = True
    set_status_on_exception: bool = True
    end_on_exit: bool = True


_DEFAULT_OPTIONS = SpanOptions()


class _RawEvent(NamedTuple):
    name: str
    attributes: Mapping[str, Any] | None
    timestamp: int


class Span(trace_api.Span):
    """One operation of a trace; made by a tracer, written to until it ends, then read.

    Reads like opentelemetry-sdk's ``ReadableSpan``.
    Source: https://opentelemetry.io/docs/specs/otel/trace/api/#span
    """

    __slots__ = (
        "_attributes",
        "_binding",
        "_end",
        "_kind",
        "_name",
        "_parent",
        "_span_id",
        "_start",
        "_token",
        "_trace",
    )

    _binding: Binding
    _name: str
    _kind: SpanKind
    _attributes: dict[str, Any] | None
    _trace: LocalTrace
    _span_id: int
    _parent: int | SpanContext | None
    _start: int
    _end: int | None
    _token: Any

    _options: SpanOptions = _DEFAULT_OPTIONS
    _events: deque[_RawEvent] | None = None
    _links: list[Link] | None = None
    _status: tuple[StatusCode, str | None] = (UNSET, None)
    _dropped_attributes: int = 0
    _dropped_events: int = 0
    _dropped_links: int = 0
    _context: SpanContext | None = None
    _clean: tuple[Attributes, int] | None = None

    def __init__(
        self, binding: Binding, name: str, kind: SpanKind, attributes: dict[str, Any] | None
    ) -> None:
        self._binding = binding
        self._name = name
        self._kind = kind
        self._attributes = attributes
        self._end = None

    # Starting ----------------------------------------------------------------------------

    def begin(self, context: Context) -> Span | DroppedSpan:
        """Start under the span in ``context``; return self, or a stand-in if it is dropped.

        The two usual cases come first: a child of a recording local span, and a root where
        the sampler's answer is known beforehand.
        """
        binding = self._binding
        parent: Any = context.get(SPAN_KEY)
        kind = parent.__class__
        if (
            (kind is ScopedSpan or kind is Span)
            and parent._trace[1] & SAMPLED
            and binding.follows_local_parent
        ):
            self._trace = parent._trace
            self._parent = parent._span_id
            self._start = binding.monotonic_ns()
        elif parent is None and binding.root_flags is not None:
            self._start = start = binding.monotonic_ns()
            self._trace = (
                binding.new_trace_id() or binding.new_trace_id(),
                binding.root_flags,
                EMPTY_TRACE_STATE,
                binding.wall_ns() - start,
            )
            self._parent = None
        else:
            dropped = self._begin_sampled(context, parent)
            if dropped is not None:
                return dropped
        self._span_id = binding.new_span_id() or binding.new_span_id()
        if self._attributes is not None:
            self._check_attributes(self._attributes)
        if context and (parent is None or len(context) > 1):
            self._inherit(context)
        if self._options is not _DEFAULT_OPTIONS:
            self._apply_options()
        binding.count_started()
        if binding.on_start is not None:
            binding.on_start(self, context)
        return self

    def _begin_sampled(self, context: Context, parent: Any) -> DroppedSpan | None:
        """Ask the sampler; fill in trace and parent, or return what stands for the span."""
        binding = self._binding
        if parent.__class__ is DroppedSpan and binding.follows_local_parent:
            binding.count_sampled_out()
            return DroppedSpan(parent._trace, binding.new_span_id(), self._name)
        outcome = binding.sample(self, context, parent)
        if not outcome.recorded:
            binding.count_sampled_out()
            return DroppedSpan(outcome.trace, binding.new_span_id(), self._name)
        self._trace, self._parent = outcome.trace, outcome.parent
        self._start = binding.monotonic_ns()
        if outcome.attributes:
            self._attributes = {**(self._attributes or {}), **outcome.attributes}
        return None

    def _check_attributes(self, attributes: dict[str, Any]) -> None:
        for value in attributes.values():
            if value.__class__ in _MUTABLE:
                self._attributes = {key: snapshot(item) for key, item in attributes.items()}
                break
        limit = self._binding.max_attributes
        if limit is not None and len(attributes) > limit:
            self._dropped_attributes = len(attributes) - limit
            self._attributes = dict(list((self._attributes or attributes).items())[:limit])

    def _inherit(self, context: Context) -> None:
        """Add what ``tracekit.attributes(...)`` put into the context; own values win."""
        inherited = inherited_attributes(context)
        if inherited:
            self._attributes = {**inherited, **(self._attributes or EMPTY)}

    def _apply_options(self) -> None:
        options = self._options
        if options.start_time is not None:
            self._start = options.start_time - self._trace[3]
        for link in options.links:
            self._append_link(link)

    # Writing -----------------------------------------------------------------------------

    def set_attribute(self, key: str, value: Any) -> None:
        if self._end is not None:
            self._binding.count_late_write()
            return
        attributes = self._attributes
        if attributes is None:
            self._attributes = attributes = {}
        if value.__class__ in _MUTABLE:
            value = value.copy()
        limit = self._binding.max_attributes
        if limit is None or len(attributes) < limit:
            try:
                attributes[key] = value
            except TypeError:  # a key that cannot be hashed
                self._dropped_attributes += 1
        elif key in attributes:
            attributes[key] = value
        else:
            self._dropped_attributes += 1

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        try:
            items = list(attributes.items())
        except Exception:  # not a mapping, or one that raises: the program goes on
            self._dropped_attributes += 1
            return
        for key, value in items:
            self.set_attribute(key, value)

    def add_event(
        self,
        name: str,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
    ) -> None:
        if self._end is not None:
            self._binding.count_late_write()
            return
        if timestamp is None:
            timestamp = self._binding.monotonic_ns() + self._trace[3]
        if attributes:
            attributes = {key: snapshot(value) for key, value in attributes.items()}
        events = self._events
        if events is None:
            self._events = events = deque(maxlen=self._binding.limits.max_events)
        if len(events) == events.maxlen:
            self._dropped_events += 1
        events.append(_RawEvent(name, attributes, timestamp))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        if self._end is not None:
            self._binding.count_late_write()
            return
        self._append_link(Link(context, attributes))

    def _append_link(self, link: Link) -> None:
        """Keep a link, unless it says nothing: no valid context, attributes or trace state."""
        context: Any = link.context
        if context is None or not (context.is_valid or link.attributes or context.trace_state):
            return
        if self._links is None:
            self._links = []
        limit = self._binding.limits.max_links
        if limit is not None and len(self._links) >= limit:
            self._dropped_links += 1
            return
        attributes = {key: snapshot(value) for key, value in (link.attributes or {}).items()}
        self._links.append(Link(context, attributes))

    def update_name(self, name: str) -> None:
        if self._end is None:
            self._name = name
        else:
            self._binding.count_late_write()

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; Ok is final, Error replaces Unset, Unset is ignored.

        Source: https://opentelemetry.io/docs/specs/otel/trace/api/#set-status
        """
        code: Any = status
        if isinstance(status, Status):
            code, description = status.status_code, status.description
        if self._end is not None:
            self._binding.count_late_write()
        elif (code is OK or code is ERROR) and self._status[0] is not OK:
            self._status = (code, description if code is ERROR else None)

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        if self._end is not None:
            self._binding.count_late_write()
            return
        recorded = exception_attributes(exception, escaped)
        self.add_event("exception", {**recorded, **(attributes or EMPTY)}, timestamp)

    def is_recording(self) -> bool:
        return self._end is None

    def end(self, end_time: int | None = None) -> None:
        """End the span and hand it on; later calls change nothing.

        Args:
            end_time: Unix nanoseconds; None stands for now.
        """
        binding = self._binding
        # The clock is read before the test: between the test and the assignment no other
        # thread can run, so of two threads that end a span one wins.
        end = binding.monotonic_ns() if end_time is None else end_time - self._trace[3]
        if self._end is None:
            if binding.on_ending is not None:
                binding.on_ending(self)
            self._end = end
            binding.on_end(self)
        else:
            binding.count_late_write()

    def __enter__(self) -> Span:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        if exc_val is not None:
            self._record_escaping(exc_val, escaped=True)
        if self._end is None:
            self.end()

    def _record_escaping(self, exception: BaseException, escaped: bool = False) -> None:
        """Note an exception that leaves the span's body; it goes on to the caller.

        GeneratorExit, CancelledError, KeyboardInterrupt and SystemExit are not failures of
        the operation. https://github.com/open-telemetry/opentelemetry-python/issues/4484
        """
        if self._end is not None or not isinstance(exception, Exception):
            return
        if self._options.record_exception:
            self.record_exception(exception, escaped=escaped)
        if self._options.set_status_on_exception:
            self.set_status(ERROR, describe(exception))

    # Reading -----------------------------------------------------------------------------

    def get_span_context(self) -> SpanContext:
        context = self._context
        if context is None:
            trace = self._trace
            context = span_context(trace[0], self._span_id, False, trace[1], trace[2])
            self._context = context
        return context

    @property
    def context(self) -> SpanContext:
        return self.get_span_context()

    @property
    def name(self) -> str:
        return self._name

    @property
    def kind(self) -> SpanKind:
        return self._kind

    @property
    def parent(self) -> SpanContext | None:
        parent = self._parent
        if isinstance(parent, int):
            trace = self._trace
            return span_context(trace[0], parent, False, trace[1], trace[2])
        return parent

    @property
    def start_time(self) -> int:
        return self._start + self._trace[3]

    @property
    def end_time(self) -> int | None:
        end = self._end
        return None if end is None else end + self._trace[3]

    @property
    def status(self) -> Status:
        return Status(*self._status)

    @property
    def attributes(self) -> Attributes:
        return self._cleaned()[0]

    def _cleaned(self) -> tuple[Attributes, int]:
        if self._clean is not None:
            return self._clean
        limits = self._binding.limits
        cleaned = clean(self._attributes, limits.max_span_attribute_length)
        if self._end is not None:
            self._clean = cleaned
        return cleaned

    @property
    def events(self) -> Sequence[Event]:
        return tuple(self._event(raw) for raw in tuple(self._events or ()))

    def _event(self, raw: _RawEvent) -> Event:
        limits = self._binding.limits
        kept, dropped = clean(
            raw.attributes, limits.max_attribute_length, limits.max_event_attributes
        )
        return Event(raw.name, kept, raw.timestamp, dropped)

    @property
    def links(self) -> Sequence[Link]:
        return tuple(self._link(link) for link in tuple(self._links or ()))

    def _link(self, link: Link) -> Link:
        limits = self._binding.limits
        kept, dropped = clean(
            link.attributes, limits.max_attribute_length, limits.max_link_attributes
        )
        return _ReadLink(link.context, kept, dropped)

    @property
    def resource(self) -> Resource:
        return self._binding.resource

    @property
    def instrumentation_scope(self) -> InstrumentationScope:
        return self._binding.scope

    @property
    def dropped_attributes(self) -> int:
        return self._dropped_attributes + self._cleaned()[1]

    @property
    def dropped_events(self) -> int:
        return self._dropped_events

    @property
    def dropped_links(self) -> int:
        return self._dropped_links

    def to_json(self, indent: int | None = 4) -> str:
        return span_to_json(self, indent)

    def __repr__(self) -> str:
        return f"<Span {self._name!r} {trace_api.format_span_id(self._span_id)}>"

    # What encoders read instead of building a SpanContext for each span.

    @property
    def trace_id(self) -> int:
        return self._trace[0]

    @property
    def span_id(self) -> int:
        return self._span_id

    @property
    def parent_span_id(self) -> int:
        parent = self._parent
        if parent is None:
            return 0
        return parent if isinstance(parent, int) else parent.span_id

    @property
    def parent_is_remote(self) -> bool:
        parent = self._parent
        return isinstance(parent, SpanContext) and parent.is_remote

    @property
    def size_hint(self) -> int:
        """Roughly how many bytes of memory the span holds, for bounds on queues."""
        size = 600
        if self._attributes:
            for value in self._attributes.values():
                size += 64 + (len(value) if value.__class__ in _SIZED else 0)
        if self._events:
            size += sum([500 + len(str(event.attributes)) for event in self._events])
        return size

    @property
    def trace_flags(self) -> int:
        return self._trace[1]

    @property
    def trace_state_header(self) -> str:
        state = self._trace[2]
        return state.to_header() if state else ""

    @property
    def status_code(self) -> int:
        return self._status[0].value

    @property
    def status_description(self) -> str | None:
        return self._status[1]


_SIZED: frozenset[Any] = frozenset({str, bytes, list, tuple, dict})
_MUTABLE: frozenset[Any] = frozenset({list, dict, set, bytearray})


class _ReadLink(Link):
    """A link with checked attributes, which knows how many did not fit."""

    def __init__(self, context: SpanContext, attributes: Attributes, dropped: int) -> None:
        super().__init__(context, attributes)
        self._dropped = dropped

    @property
    def dropped_attributes(self) -> int:
        return self._dropped


class ScopedSpan(Span):
    """A span that is current in its ``with`` block: the span is its own context manager.

    Nothing has started before ``__enter__``, so an unused one costs nothing and it also
    serves as a decorator. Leaving the block restores the context only if this scope's span
    is still the current one.
    """

    __slots__ = ()

    _stand_in: Span | DroppedSpan | None = None

    def __enter__(self) -> Span:
        options = self._options
        context = current_context() if options.context is None else options.context
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
        if current_context().get(SPAN_KEY) is self:
            try:
                detach(self._token)
            except (ValueError, RuntimeError, TypeError):
                leave_elsewhere(self, self, self._token)
        elif self._stand_in is None:
            leave_elsewhere(self, self, self._token)
        else:
            self._leave_dropped(self._stand_in)
        self._token = None
        if exc_val is not None:
            self._record_escaping(exc_val)
        if self._end is None and self._options.end_on_exit:
            self.end()

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

    def _leave_dropped(self, stand_in: Span | DroppedSpan) -> None:
        try:
            if current_context().get(SPAN_KEY) is stand_in:
                detach(self._token)
                return
        except (ValueError, RuntimeError, TypeError):
            pass
        leave_elsewhere(self, stand_in, self._token)

    def __call__(self, function: _F) -> _F:
        """Decorate a function: each call runs in a new span like this one."""
        return wrap(function, self._again)

    def _again(self) -> ScopedSpan:
        attributes = dict(self._attributes) if self._attributes else None
        again = ScopedSpan(self._binding.current(), self._name, self._kind, attributes)
        if self._options is not _DEFAULT_OPTIONS:
            again._options = self._options
        return again


class DroppedSpan(trace_api.NonRecordingSpan):
    """Stands for a span that the sampler dropped: carries the context, records nothing.

    It has the readable names of a recording span, because third parties read them without
    asking first. https://github.com/pydantic/logfire/issues/1541
    """

    __slots__ = ("_name", "_span_id", "_trace")

    kind = INTERNAL
    parent: SpanContext | None = None
    start_time: int | None = None
    end_time: int | None = None
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    attributes: Attributes = EMPTY
    dropped_attributes = dropped_events = dropped_links = 0
    status = Status()
    resource = Resource()
    instrumentation_scope = InstrumentationScope("")

    def __init__(self, trace: LocalTrace, span_id: int, name: str) -> None:
        self._trace = trace
        self._span_id = span_id
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]
        trace = self._trace
        return span_context(trace[0], self._span_id, False, trace[1], trace[2])

    @property
    def context(self) -> SpanContext:
        return self._context

    def get_span_context(self) -> SpanContext:
        return self._context

    def to_json(self, indent: int | None = 4) -> str:
        return span_to_json(self, indent)
