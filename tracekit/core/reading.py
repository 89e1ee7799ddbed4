"""What can be read of a span: derived from its few fields when somebody asks."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.trace import (
    DEFAULT_TRACE_STATE,
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceState,
    format_span_id,
)

from tracekit._local_trace import LocalTrace
from tracekit._otel_context import FLAGS, new_span_context, span_context
from tracekit.core.attributes import EMPTY, all_plain, clean, text
from tracekit.core.binding import DEFAULT_OPTIONS, Anchor, Binding, SpanOptions
from tracekit.model import Attributes, Event, InstrumentationScope, Resource, span_to_json

__all__ = ["RawEvent", "Reading"]

UNSET = StatusCode.UNSET
SIZED: frozenset[Any] = frozenset({str, bytes, list, tuple, dict})


class RawEvent(NamedTuple):
    name: str
    attributes: Mapping[str, Any] | None
    timestamp: int


def _bytes_of(attributes: Mapping[str, Any] | None) -> int:
    """Estimate without calling any code of the values: their own would run in the worker."""
    size = 0
    for value in tuple(attributes.values()) if attributes else ():
        try:
            size += 64 + (len(value) if type(value) in SIZED else 0)
        except TypeError:  # an object whose class cannot be hashed
            size += 64
    return size


class _ReadLink(Link):
    """A link with checked attributes, which knows how many did not fit."""

    def __init__(self, context: SpanContext, attributes: Attributes, dropped: int) -> None:
        super().__init__(context, attributes)
        self._dropped = dropped

    @property
    def dropped_attributes(self) -> int:
        return self._dropped


class Reading:
    """The readable side of a span; reads like opentelemetry-sdk's ``ReadableSpan``."""

    __slots__ = ()

    _binding: Binding
    _name: str
    _kind: SpanKind
    _attributes: dict[str, Any] | None
    _trace_id: int
    _anchor: Anchor
    _span_id: int
    _parent: int | SpanContext | None
    _start: int
    _end: int | None
    _token: Any

    _options: SpanOptions = DEFAULT_OPTIONS
    _events: deque[RawEvent] | None = None
    _links: list[Link] | None = None
    _status: tuple[StatusCode, str | None] = (UNSET, None)
    _ending: int = 0
    _is_below_local_root: bool = False
    _is_parent: bool = False
    _is_named: bool = False
    _dropped_attributes: int = 0
    _dropped_events: int = 0
    _dropped_links: int = 0
    _clean: tuple[Attributes, int] | None = None

    def get_span_context(self) -> SpanContext:
        # Written only where somebody asks: above a default on the class, that is slow.
        if self._binding.marks_parents and self._end is None:
            self._is_named = True  # type: ignore[misc]
        flags, state, _, _ = self._anchor
        # Not kept: making it takes no longer than keeping it above a default on the class.
        return new_span_context(
            SpanContext,
            (
                self._trace_id,
                self._span_id,
                False,
                FLAGS[flags],
                DEFAULT_TRACE_STATE if state is None else state,
                True,
            ),
        )

    @property
    def context(self) -> SpanContext:
        return self.get_span_context()

    @property
    def name(self) -> str:
        return text(self._name)

    @property
    def kind(self) -> SpanKind:
        kind: object = self._kind
        return kind if isinstance(kind, SpanKind) else SpanKind.INTERNAL

    @property
    def parent(self) -> SpanContext | None:
        parent = self._parent
        if isinstance(parent, int):
            flags, state, _, _ = self._anchor
            return span_context(self._trace_id, parent, False, flags, state)
        return parent

    @property
    def start_time(self) -> int:
        return self._start + self._anchor[2]

    @property
    def end_time(self) -> int | None:
        end = self._end
        return None if end is None else end + self._anchor[2]

    # Private in opentelemetry-sdk, and read all the same: its own test-utils sort by it.
    _start_time, _end_time = start_time, end_time

    @property
    def status(self) -> Status:
        return Status(*self._status)

    @property
    def attributes(self) -> Attributes:
        return self._cleaned()[0]

    def _cleaned(self) -> tuple[Attributes, int]:
        if self._clean is not None:
            return self._clean
        # Asked before reading: what is written between reading and the end would be missing.
        is_final = self._end is not None and not self._ending
        limits = self._binding.limits
        cleaned = clean(self._attributes, limits.max_span_attribute_length)
        if is_final:
            self._clean = cleaned  # type: ignore[misc]
        return cleaned

    @property
    def events(self) -> Sequence[Event]:
        return tuple(self._event(raw) for raw in tuple(self._events or ()))

    def _event(self, raw: RawEvent) -> Event:
        limits = self._binding.limits
        kept, dropped = clean(
            raw.attributes, limits.max_attribute_length, limits.max_event_attributes
        )
        return Event(text(raw.name), kept, raw.timestamp, dropped)

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
    def instrumentation_info(self) -> InstrumentationScope:
        """Return the scope under the name that older exporters ask for."""
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
        # A scope that was not entered has no id yet.
        return f"<Span {self._name!r} {format_span_id(getattr(self, '_span_id', 0))}>"

    # What encoders read instead of building a SpanContext for each span.

    def wire_fields(self, checked: bool = True) -> tuple[Any, ...]:
        """Return at once what an encoder writes; twenty property calls would cost 2 µs.

        Trace id, span id, parent's span id (0: none), whether the parent is remote, flags,
        tracestate header, status code, description, name, kind, start, end, attributes,
        events, links, the three dropped counts, resource, scope.

        Args:
            checked: False for a reader that finds out by itself whether an ended span's
                attributes can be exported as they were written, and reads again if not.
        """
        flags, state, offset, _ = self._anchor
        binding, end, parent = self._binding, self._end, self._parent
        code, description = self._status
        is_remote = False
        if isinstance(parent, SpanContext):
            is_remote = parent.is_remote
            parent = parent.span_id
        attributes: Attributes | None = self._attributes
        dropped = self._dropped_attributes
        if attributes and (checked or end is None or binding.limits_length):
            attributes, dropped = self._wire_attributes()
        return (
            self._trace_id,
            self._span_id,
            parent or 0,
            is_remote,
            flags,
            state.to_header() if state else "",
            code._value_,
            description,
            self._name if type(self._name) is str else self.name,
            self._kind if type(self._kind) is SpanKind else self.kind,
            self._start + offset,
            None if end is None else end + offset,
            attributes or EMPTY,
            self.events if self._events else (),
            self.links if self._links else (),
            dropped,
            self._dropped_events,
            self._dropped_links,
            binding.resource,
            binding.scope,
        )

    def _wire_attributes(self) -> tuple[Attributes, int]:
        """Return the attributes without a copy where they can be exported as they are."""
        raw = self._attributes or EMPTY
        if self._end is not None and not self._binding.limits_length and all_plain(raw.items()):
            return raw, self._dropped_attributes
        kept, dropped = self._cleaned()
        return kept, dropped + self._dropped_attributes

    @property
    def trace_id(self) -> int:
        return self._trace_id

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
    def is_referred_to(self) -> bool:
        """Whether a child, another process or a log record may name this span's id.

        Both are known where a processor says ``marks_parents``; elsewhere it may be. Whoever
        reads the ids of an ended span has the span itself.
        """
        return self._is_parent or self._is_named or not self._binding.marks_parents

    def alike_fields(self) -> tuple[Any, ...]:
        """Return at once what compression compares; as many property calls would cost 1 µs.

        Name, local parent's span id (0: none), start and end in wall-clock nanoseconds, status
        code, kind, scope, attributes as they were written, and 1 for events, 2 for links, or
        both together.
        """
        offset, parent = self._anchor[2], self._parent
        extras = (1 if self._events else 0) + (2 if self._links else 0)
        return (
            self._name if type(self._name) is str else self.name,
            parent if type(parent) is int else 0,
            self._start + offset,
            (self._end or 0) + offset,
            self._status[0]._value_,
            self._kind,
            self._binding.scope,
            self._attributes or EMPTY,
            extras,
        )

    @property
    def size_hint(self) -> int:
        """Roughly how many bytes of memory the span holds, for bounds on queues."""
        size = 600
        if self._attributes:
            size += _bytes_of(self._attributes)
        if self._events:
            size += sum([500 + _bytes_of(event.attributes) for event in tuple(self._events)])
        return size

    # What a tail sampler reads.

    @property
    def local_trace(self) -> LocalTrace | None:
        """Where a tail sampler holds the spans of this one's local root, if there is one."""
        anchor: Anchor | None = getattr(self, "_anchor", None)  # not before it was begun
        return None if anchor is None else anchor[3]

    @property
    def is_local_root(self) -> bool:
        """Whether nothing above it was started by this provider."""
        return type(self._parent) is not int and not self._is_below_local_root

    @property
    def age_ns(self) -> int:
        """How long ago it started."""
        return self._binding.monotonic_ns() - self._start

    @property
    def taken_ns(self) -> int:
        """How long it took, or has been open by now."""
        end = self._end
        return self.age_ns if end is None else end - self._start

    @property
    def trace_state(self) -> TraceState | None:
        """The trace state without a SpanContext made for it; None when it is empty."""
        return self._anchor[1]

    @property
    def trace_flags(self) -> int:
        return self._anchor[0]

    @property
    def trace_state_header(self) -> str:
        state = self._anchor[1]
        return state.to_header() if state else ""

    @property
    def status_code(self) -> int:
        return self._status[0].value

    @property
    def status_description(self) -> str | None:
        return self._status[1]
