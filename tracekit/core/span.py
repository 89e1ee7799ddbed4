"""Spans: what is recorded, from the first nanosecond to the reader.

Theory of operation
-------------------
A ``Span`` is one slotted object that is written by the program, ends, and is then handed on
as it is: it is also the record that exporters read. While it is open it holds only what
cannot be known later; everything that can be derived (``SpanContext``, ``Status``, checked
attributes, wall-clock times) is derived when somebody reads it.

All spans that share a local root share its trace id and its anchor: flags, trace state, and
what turns monotonic readings into wall-clock times. A child copies two references.
The parent is kept as its id, never as an object: a chain of spans would otherwise keep all
its ancestors in memory.

State that most spans never have (events, links, status, dropped counts) is not in a
slot: it lives in the instance dictionary, above a default on the class, and costs nothing
until it is written.

Concurrency: each method is made of single dictionary, list and attribute operations, which
no other thread can interrupt under the GIL; none takes a lock. A write that races with
``end()`` lands either before or not at all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from gc import is_tracked
from threading import get_ident
from types import TracebackType
from typing import Any

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TraceState

from tracekit._otel_context import NO_CONTEXT, PLAIN_SPANS, SPAN_KEY, OnlySpan
from tracekit.core.ambient import inherited_attributes
from tracekit.core.attributes import EMPTY, MUTABLE, nanoseconds, plain, snapshots, text
from tracekit.core.binding import DEFAULT_OPTIONS, RANDOM_MASK, Anchor, SpanOptions
from tracekit.core.dropped import DROPPED, RECORDING, DroppedSpan
from tracekit.core.exception_event import describe, exception_attributes
from tracekit.core.filtered import FilteredSpan, look_first
from tracekit.core.lookalike import looks_like
from tracekit.core.reading import RawEvent, Reading

__all__ = ["RECORDING", "Span"]

SAMPLED = 1
IS_SAMPLED = tuple(flags & SAMPLED != 0 for flags in range(256))
"""By trace flags: a look into a tuple takes a third of the time of a bitwise operation."""
OK, ERROR = StatusCode.OK, StatusCode.ERROR
_NONE: tuple[None, ...] = (None, None, None, None)


class Span(Reading, trace_api.Span):
    """One operation of a trace; made by a tracer, written to until it ends, then read.

    Reads like opentelemetry-sdk's ``ReadableSpan``.
    Source: https://opentelemetry.io/docs/specs/otel/trace/api/#span
    """

    __slots__ = (
        "_anchor",
        "_attributes",
        "_binding",
        "_end",
        "_kind",
        "_name",
        "_parent",
        "_span_id",
        "_start",
        "_token",
        "_trace_id",
    )

    # No __init__: whoever makes a span fills its slots, so that making one is a single C call.

    __class__ = looks_like("Span")  # pyright: ignore[reportIncompatibleMethodOverride]

    # Starting ----------------------------------------------------------------------------

    def begin(self, context: Context, options: SpanOptions = DEFAULT_OPTIONS) -> Span | DroppedSpan:
        """Start under the span in ``context``; return self, or a stand-in if it is dropped.

        The two usual cases come first: a child of a recording local span, and a root where
        the sampler's answer is known beforehand.
        """
        binding = self._binding
        if options is not DEFAULT_OPTIONS:
            self._options = options
        # A context of a span only has nothing to inherit; whatever it is asked for fills it.
        is_only = type(context) is OnlySpan
        holds_more = not is_only and context is not NO_CONTEXT
        parent: Any = context.span if is_only else context.get(SPAN_KEY) if holds_more else None  # type: ignore[attr-defined]
        if self._kind is binding.asked_kind or binding.asks_all:
            stand_in = look_first(binding, self, parent)
            if stand_in is not None:
                return stand_in
        if (
            type(parent) in RECORDING
            and IS_SAMPLED[parent._anchor[0]]
            and binding.follows_local_parent
        ):
            self._trace_id = parent._trace_id
            self._anchor = parent._anchor
            self._parent = parent._span_id
            self._start = binding.monotonic_ns()
        elif parent is None and binding.root_threshold is not None:
            if binding.root_threshold:
                # It may have been drawn when the scope was made.
                trace_id = getattr(self, "_trace_id", 0) or binding.random_bits(128)
                if (trace_id & RANDOM_MASK) < binding.root_threshold:
                    return self._dropped(trace_id, binding.dropped_anchor)
            else:
                trace_id = binding.random_bits(128)
            self._trace_id = trace_id
            self._start = start = binding.monotonic_ns()
            self._anchor = (
                binding.renew_anchor(start) if start >= binding.anchored_until else binding.anchor
            )
            self._parent = None
        else:
            dropped = self._begin_sampled(context, parent)
            if dropped is not None:
                return dropped
        self._span_id = binding.random_bits(64)
        attributes = self._attributes
        if attributes is not None and (
            is_tracked(attributes) or len(attributes) > binding.max_start_attributes
        ):
            self._check_attributes(attributes)
        if holds_more:
            self._inherit(context)
        if options is not DEFAULT_OPTIONS:
            self._apply_options(options)
        binding.count_started()
        if binding.on_start is not None:
            binding.on_start(self, context)
        return self

    def _begin_sampled(self, context: Context, parent: Any) -> DroppedSpan | None:
        """Ask the sampler; fill in trace and parent, or return what stands for the span."""
        binding = self._binding
        if type(parent) is FilteredSpan:
            return parent.below(binding, self._name)
        if type(parent) in DROPPED and binding.follows_local_parent:
            return self._dropped(parent._trace_id, parent._anchor)
        sampled = binding.followed(parent) or binding.sample(self, context, parent)
        recorded, trace_id, anchor, above, attributes = sampled
        if not recorded:
            return self._dropped(trace_id, anchor)
        self._trace_id, self._anchor, self._parent = trace_id, anchor, above
        flags, _, _, local_trace = anchor
        if local_trace is not None and local_trace is getattr(parent, "_anchor", _NONE)[3]:
            self._is_below_local_root = True
        self._start = binding.monotonic_ns()
        if not flags & SAMPLED:
            self._binding = binding.unsampled()
        if attributes:
            self._attributes = {**(self._attributes or {}), **attributes}
        return None

    def _dropped(self, trace_id: int, anchor: Anchor) -> DroppedSpan:
        self._binding.count_sampled_out()
        return DroppedSpan(self._binding, trace_id, anchor, self._name)

    def _check_attributes(self, attributes: dict[str, Any]) -> None:
        """Copy lists, dicts and sets, and keep to the limit.

        Asked for dictionaries that the garbage collector tracks, and for long ones. It tracks
        none that holds only texts and numbers (Python 3.14 tracks all), and asking it costs
        0.02 µs, where a look at each of five values takes 0.25.
        """
        try:
            for value in attributes.values():
                if type(value) in MUTABLE:
                    self._attributes = snapshots(attributes)
                    break
        except TypeError:  # an object whose class cannot be hashed
            self._attributes = snapshots(attributes)
        limit = self._binding.max_start_attributes
        if len(attributes) > limit:
            self._dropped_attributes = len(attributes) - limit
            self._attributes = dict(list((self._attributes or attributes).items())[:limit])

    def _inherit(self, context: Context) -> None:
        """Add what ``tracekit.attributes(...)`` put into the context; own values win."""
        inherited = inherited_attributes(context)
        if not inherited:
            return
        own = self._attributes or EMPTY
        merged = {**inherited, **own}
        limit = self._binding.max_attributes
        if limit is not None and len(merged) > limit:
            self._dropped_attributes += len(merged) - limit
            merged = dict(list({**own, **merged, **own}.items())[:limit])
        self._attributes = merged

    def _apply_options(self, options: SpanOptions) -> None:
        start_time = nanoseconds(options.start_time)
        if start_time is not None:
            self._start = start_time - self._anchor[2]
        try:
            for link in options.links:
                self._append_link(link)
        except TypeError:  # not a sequence: the program goes on
            self._dropped_links += 1

    # Writing -----------------------------------------------------------------------------

    def set_attribute(self, key: str, value: Any) -> None:
        if self._end is not None and self._refuses():
            return
        attributes = self._attributes
        if attributes is None:
            self._attributes = attributes = {}
        limit = self._binding.max_attributes
        try:
            if type(value) in MUTABLE:
                value = value.copy()
            if limit is None or len(attributes) < limit or key in attributes:
                attributes[key] = value
            else:
                self._dropped_attributes += 1
        except Exception:  # a key, or an object's class, that cannot be hashed
            self._dropped_attributes += 1

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        # In one step where there is nothing to copy and nothing to count: see _check_attributes().
        if type(attributes) is dict and self._end is None and not is_tracked(attributes):
            own = self._attributes
            if own is None:
                self._attributes = own = {}
            if len(own) + len(attributes) <= self._binding.max_start_attributes:
                own.update(attributes)
                return
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
        if self._end is not None and self._refuses():
            return
        if timestamp is not None:
            timestamp = nanoseconds(timestamp)
        if timestamp is None:
            timestamp = self._binding.monotonic_ns() + self._anchor[2]
        if attributes:
            attributes = snapshots(attributes)
        events = self._events
        if events is None:
            # One call, so that of two threads which add the first event neither loses it.
            made: deque[RawEvent] = deque(maxlen=self._binding.limits.max_events)
            events = vars(self).setdefault("_events", made)
        if len(events) == events.maxlen:
            self._dropped_events += 1
        events.append(RawEvent(name, attributes, timestamp))

    def add_link(self, context: SpanContext, attributes: Mapping[str, Any] | None = None) -> None:
        if self._end is not None and self._refuses():
            return
        self._append_link(Link(context, attributes))

    def _append_link(self, link: Link) -> None:
        """Keep a link, unless it says nothing: no valid context, attributes or trace state."""
        context: Any = getattr(link, "context", None)
        if not isinstance(context, SpanContext):
            return
        if not (context.is_valid or link.attributes or context.trace_state):
            return
        if self._links is None:
            self._links = []
        limit = self._binding.limits.max_links
        if limit is not None and len(self._links) >= limit:
            self._dropped_links += 1
            return
        self._links.append(Link(context, snapshots(link.attributes or EMPTY)))

    def update_name(self, name: str) -> None:
        if self._end is None or not self._refuses():
            self._name = name

    def set_status(self, status: Status | StatusCode, description: str | None = None) -> None:
        """Set the status; Ok is final, Error replaces Unset, Unset is ignored.

        Source: https://opentelemetry.io/docs/specs/otel/trace/api/#set-status
        """
        code: Any = status
        if isinstance(status, Status):
            code, description = status.status_code, status.description
        if description is not None:
            description = text(description)
        if self._end is not None and self._refuses():
            return
        if (code is OK or code is ERROR) and self._status[0] is not OK:
            self._status = (code, description if code is ERROR else None)
            if code is ERROR:
                self._tell_failure()

    def _tell_failure(self) -> None:
        """Let a tail sampler look for errors in this trace, so that it need not in the others."""
        local_trace = self.local_trace
        if local_trace is not None:
            local_trace.may_have_failed = True

    def record_exception(
        self,
        exception: BaseException,
        attributes: Mapping[str, Any] | None = None,
        timestamp: int | None = None,
        escaped: bool = False,
    ) -> None:
        if self._end is not None and self._refuses():
            return
        recorded = exception_attributes(exception, escaped)
        if attributes:
            recorded.update(snapshots(attributes) or EMPTY)
        self.add_event("exception", recorded, timestamp)

    def keep(self, reason: str = "asked") -> None:
        """Ask the tail sampler to keep the local trace of this span, whatever else it finds.

        Without a tail sampler, or after it has decided, nothing happens.

        Args:
            reason: Under which the kept trace is counted; a word, low in variety.
        """
        local_trace = self.local_trace
        if local_trace is not None:
            local_trace.keep(reason)

    @property
    def kept(self) -> bool | None:
        """Whether it is settled by now that the tail sampler keeps this local trace.

        None where there is no tail sampler. True once there is a reason in the spans that have
        ended, in the status of this one, or in a call of ``keep()``. A trace that is kept by
        chance is no reason: whoever has the trace id knows that as well.

        Cost: 0.2 µs; where rules are set, about 1 µs for each span that has ended.
        """
        # As self.local_trace, without its frame: clients ask for each call of theirs.
        local_trace = getattr(self, "_anchor", _NONE)[3]
        return None if local_trace is None else local_trace.is_kept(self)

    def rewrite(
        self,
        attributes: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        sentence: Callable[[str, str], str],
    ) -> None:
        """Replace what was recorded by what two functions make of it; for ``on_ending()``.

        Args:
            attributes: Called with those of the span, of each event and of each link, all of
                exportable values; returns others, or the same object to change nothing.
            sentence: Called with ``name``, ``status.description`` or ``event.name``, and the
                text.

        Raises:
            Whatever the functions raise; what was not reached by then is as it was.
        """
        if self._end is not None and self._refuses():
            return
        self._name = sentence("name", self.name)
        code, description = self._status
        if description:
            self._status = (code, sentence("status.description", description))
        if self._attributes:
            self._attributes = _rewritten(self._attributes, attributes)
        if self._events:
            events = [
                RawEvent(
                    sentence("event.name", text(event.name)),
                    _rewritten(event.attributes, attributes),
                    event.timestamp,
                )
                for event in tuple(self._events)
            ]
            self._events = deque(events, self._events.maxlen)
        if self._links:
            self._links = [
                Link(link.context, _rewritten(link.attributes, attributes)) for link in self._links
            ]

    def restate(self, trace_state: TraceState | None) -> None:
        """Replace the trace state of an ended span, which says how many traces it stands for."""
        flags, _, offset, local_trace = self._anchor
        self._anchor = (flags, trace_state, offset, local_trace)

    def _refuses(self) -> bool:
        """Count a write after the end; it is refused unless it comes out of on_ending()."""
        if self._ending == get_ident():
            return False
        self._binding.count_late_write()
        return True

    def is_recording(self) -> bool:
        return self._end is None or self._ending == get_ident()

    def end(self, end_time: int | None = None, attributes: dict[str, Any] | None = None) -> None:
        """End the span and hand it on; later calls change nothing.

        Args:
            end_time: Unix nanoseconds; None stands for now.
            attributes: Added before; for whoever ends a span for each call of a library, and
                knows then what came of it. In one step where ``set_attributes`` does it in one.
        """
        binding = self._binding
        if attributes is not None:
            own = self._attributes
            if (
                own is None
                or self._end is not None
                or is_tracked(attributes)
                or len(own) + len(attributes) > binding.max_start_attributes
            ):
                self.set_attributes(attributes)
            else:
                own.update(attributes)
        # The clock is read before the test: between the test and the assignment no other
        # thread can run, so of two threads that end a span one wins.
        end = binding.monotonic_ns()
        if end_time is not None:
            given = nanoseconds(end_time)
            end = end if given is None else given - self._anchor[2]
        if self._end is None:
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
        try:
            if self._options.record_exception:
                self.record_exception(exception, escaped=escaped)
            if self._options.set_status_on_exception:
                self.set_status(ERROR, describe(exception))
        except Exception:  # no stack is left where a recursion failed; the span must still end
            self._status = (ERROR, None)
            local_trace = self._anchor[3]
            if local_trace is not None:
                local_trace.may_have_failed = True


def _rewritten(
    raw: Mapping[str, Any] | None, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> dict[str, Any] | None:
    if not raw:
        return None
    shown = plain(raw)
    changed = change(shown)
    return dict(raw if changed is shown else changed)


RECORDING.add(Span)
PLAIN_SPANS.add(Span)
