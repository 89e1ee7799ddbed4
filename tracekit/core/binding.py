"""What the spans of one tracer share: where they come from and where they go."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Callable, Sequence
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from opentelemetry.context import Context
from opentelemetry.trace import DEFAULT_TRACE_STATE, Link, SpanContext, SpanKind, TraceState
from opentelemetry.trace import Span as ApiSpan

from tracekit._local_trace import LocalTrace
from tracekit.core.attributes import EMPTY
from tracekit.core.clock import SYSTEM_CLOCK, Clock
from tracekit.core.limits import SpanLimits
from tracekit.interfaces import IdGenerator, ReadableSpan, Sampler
from tracekit.model import Attributes, Resource

if TYPE_CHECKING:
    from tracekit.core.counts import Counts
    from tracekit.core.span import Span
    from tracekit.core.tracer import Tracer

__all__ = [
    "DEFAULT_OPTIONS",
    "RANDOM_MASK",
    "Anchor",
    "Binding",
    "DropsAtStart",
    "Listeners",
    "NewScope",
    "Parts",
    "Sampled",
    "SpanOptions",
    "valid_context",
]

_logger = logging.getLogger("tracekit")
_SAMPLED, _RANDOM = 1, 2
_FOLLOWED = _SAMPLED | _RANDOM
# Without the frame that the constructor of a NamedTuple is.
_new_tuple = tuple.__new__
_NO_KIND = object()

RANDOM_MASK = (1 << 56) - 1
"""The bits of a trace id that level 2 of W3C Trace Context asks to be random."""


Anchor = tuple[int, "TraceState | None", int, "LocalTrace | None"]
"""What a local root hands down beside its trace id: trace flags, trace state (None when it is
empty), wall-clock minus monotonic time in nanoseconds, and where a tail sampler holds what is
below that root (None where there is no tail sampler)."""

ANCHOR_NS = 1_000_000
"""How long roots share an anchor. A millisecond apart, they read the wall clock anew; within one,
the two clocks run apart by less than a nanosecond, and a root is spared 0.14 µs of its 1.7: the
reading, and a tuple of its own."""


class SpanOptions(NamedTuple):
    """What is seldom said when a span is started."""

    context: Context | None = None
    links: Sequence[Link] = ()
    start_time: int | None = None
    record_exception: bool = True
    set_status_on_exception: bool = True
    end_on_exit: bool = True


DEFAULT_OPTIONS = SpanOptions()


class Parts(NamedTuple):
    """The parts that a provider was put together from; replaced as a whole."""

    sampler: Sampler
    id_generator: IdGenerator
    limits: SpanLimits
    resource: Resource
    clock: Clock


class DropsAtStart(Protocol):
    """What decides at the start of a span that it is not recorded, whatever the sampler thinks.

    Attributes:
        only_incoming: Nothing else need be asked about than SERVER spans without a local parent.
        may_drop: Says by the attributes of such a span, in one call, whether to ask at all.
    """

    @property
    def only_incoming(self) -> bool: ...
    @property
    def may_drop(self) -> Callable[[Attributes], bool]: ...

    def at_start(
        self, name: str, kind: SpanKind, attributes: Attributes, has_local_parent: bool
    ) -> str | None:
        """Return the name of the rule that drops the span, if one does."""
        ...


class Listeners(Protocol):
    """Who is told of a span; None where nobody listens."""

    @property
    def drops(self) -> DropsAtStart | None: ...
    @property
    def marks_parents(self) -> bool: ...
    @property
    def new_local_trace(self) -> Callable[[], LocalTrace] | None: ...

    on_start: Callable[[ApiSpan, Context | None], None] | None
    on_ending: Callable[[ApiSpan], None] | None
    on_end: Callable[[ReadableSpan], None]
    on_end_sampled: Callable[[ReadableSpan], None]


class Sampled(NamedTuple):
    """A sampler's answer, in the form in which a span keeps it."""

    recorded: bool
    trace_id: int
    anchor: Anchor
    parent: int | SpanContext | None
    attributes: Attributes


NewScope = Callable[["Binding", str, SpanKind, "dict[str, Any] | None"], Any]
"""Makes a scope from a binding, a name, a kind and attributes that are the span's own."""


class Binding:
    """A tracer's scope joined to its provider's pipeline, flattened for the path of a span.

    A tracer has one at a time; spans keep the one that they were started with, so a provider
    that is reconfigured does not change what is under way.
    """

    __slots__ = (
        "anchor",
        "anchor_ns",
        "anchored_until",
        "asked_kind",
        "asks_all",
        "count_filtered",
        "count_foreign_exit",
        "count_late_write",
        "count_recorded_only",
        "count_sampled_out",
        "count_started",
        "decides_early",
        "dropped_anchor",
        "drops",
        "drops_roots",
        "follows_local_parent",
        "follows_remote_parent",
        "is_plain",
        "keeps_roots",
        "limits",
        "limits_length",
        "marks_parents",
        "max_attributes",
        "max_start_attributes",
        "may_drop",
        "monotonic_ns",
        "new_local_trace",
        "new_scope",
        "on_end",
        "on_end_unsampled",
        "on_start",
        "random_bits",
        "random_flag",
        "resource",
        "root_flags",
        "root_sampler",
        "root_threshold",
        "root_trace_state",
        "sampler",
        "scope",
        "tracer",
        "wall_ns",
        "wall_offset",
        "wall_read_until",
    )

    new_scope: NewScope
    """Set by the tracer: what makes scopes uses bindings."""

    def __init__(self, tracer: Tracer, parts: Parts, told: Listeners, counts: Counts) -> None:
        self.tracer = tracer
        self.scope = tracer.instrumentation_scope
        self.resource = parts.resource
        self.limits = parts.limits
        self.limits_length = parts.limits.max_span_attribute_length is not None
        self.max_attributes = parts.limits.max_span_attributes
        # A number to compare with, where None says that there is no limit.
        self.max_start_attributes = (
            sys.maxsize if self.max_attributes is None else self.max_attributes
        )
        self.sampler = parts.sampler
        self.follows_local_parent = bool(getattr(parts.sampler, "follows_local_parent", False))
        self.follows_remote_parent = bool(getattr(parts.sampler, "follows_remote_parent", False))
        self.random_flag = _random_flag(parts.id_generator)
        self.root_flags = _SAMPLED | self.random_flag
        self.root_sampler = getattr(parts.sampler, "root_sampler", parts.sampler)
        # Typed as a number for the path of a span; None where the sampler must be asked.
        self.root_threshold: Any = getattr(self.root_sampler, "threshold", None)
        self.root_trace_state = getattr(self.root_sampler, "root_trace_state", None) or None
        self.random_bits = _random_bits(parts.id_generator)
        self.wall_ns, self.monotonic_ns = parts.clock
        self.anchor_ns = ANCHOR_NS if parts.clock is SYSTEM_CLOCK else 0
        self.new_local_trace = told.new_local_trace
        self.anchored_until = self.wall_read_until = self.wall_offset = 0
        self.anchor: Anchor = (self.root_flags, self.root_trace_state, 0, None)
        self.dropped_anchor: Anchor = (self.random_flag, None, 0, None)
        self.on_start = told.on_start
        # Most spans are sampled; what ends one that is not is in unsampled().
        self.on_end = _in_steps(told.on_ending, told.on_end_sampled)
        self.on_end_unsampled = _in_steps(told.on_ending, told.on_end)
        self.drops, self.marks_parents = told.drops, told.marks_parents
        only_incoming = self.drops is not None and self.drops.only_incoming
        self.asks_all = self.marks_parents or (self.drops is not None and not only_incoming)
        # A kind to compare with, of which no span is where nothing is asked.
        self.asked_kind: Any = SpanKind.SERVER if only_incoming else _NO_KIND
        self.may_drop: Any = None if self.drops is None else self.drops.may_drop
        # Under a local parent nothing else decides, and nobody watches the span start.
        self.is_plain = self.follows_local_parent and self.on_start is None and not self.asks_all
        self.keeps_roots = self.is_plain and self.root_threshold == 0
        self.drops_roots = (self.root_threshold or 0) > RANDOM_MASK
        # The trace id alone decides about a root, and some are dropped: those need not be made.
        self.decides_early = self.drops_roots or (self.is_plain and bool(self.root_threshold))
        self.count_started = counts.started.add
        self.count_sampled_out = counts.sampled_out.add
        self.count_filtered = counts.filtered.add
        self.count_recorded_only = counts.recorded_only.add
        self.count_late_write = counts.late_writes.add
        self.count_foreign_exit = counts.foreign_scope_exits.add

    def current(self) -> Binding:
        """Return the binding that the same tracer has now."""
        return self.tracer.binding

    def renew_anchor(self, now: int) -> Anchor:
        """Return the anchor of the root that starts ``now``, and of those that soon follow.

        Where a tail sampler tells local roots apart, no two share one.
        """
        if self.new_local_trace is None:
            self.anchor = (self.root_flags, self.root_trace_state, self.wall_ns() - now, None)
            self.anchored_until = now + self.anchor_ns
            return self.anchor
        if now >= self.wall_read_until:
            # In this order: another thread may take the offset as soon as it seems to be new.
            self.wall_offset = self.wall_ns() - now
            self.wall_read_until = now + self.anchor_ns
        return (
            self.root_flags,
            self.root_trace_state,
            self.wall_offset,
            self.new_local_trace(),
        )

    def unsampled(self) -> Binding:
        """Return this binding as it is for a span that is recorded but not sampled."""
        self.count_recorded_only()
        other = copy.copy(self)
        other.on_end = self.on_end_unsampled
        return other

    def sample(self, span: Span, context: Context, parent: Any) -> Sampled:
        """Ask the sampler about a span that starts under ``parent`` (a span, or nothing)."""
        parent_context = valid_context(parent)
        trace_id = parent_context.trace_id if parent_context else self.random_bits(128)
        flags = self._random(parent_context)
        offset, local_trace = self._handed_down(parent, parent_context)
        sampler = self.root_sampler if parent_context is None else self.sampler
        result = _should_sample(sampler, span, context, trace_id)
        dropped = Sampled(False, trace_id, (flags, None, offset, None), parent_context, {})
        if result is None:
            return dropped
        try:
            if result.decision.is_sampled():
                flags |= _SAMPLED
                if local_trace is None and self.new_local_trace is not None:
                    local_trace = self.new_local_trace()
            anchor = (flags, result.trace_state or None, offset, local_trace)
            attributes = dict(result.attributes or {})
            recorded = result.decision.is_recording()
            return Sampled(recorded, trace_id, anchor, parent_context, attributes)
        except Exception:
            _warn_once("the sampler's answer cannot be read; its spans are dropped", sampler)
            return dropped

    def followed(self, parent: Any) -> Sampled | None:
        """Return what the sampler would answer below a remote parent; None where it must be asked.

        Of a trace state it may make something else.
        """
        if not self.follows_remote_parent:
            return None
        try:
            context = parent.get_span_context()
            # A SpanContext is a tuple, and its properties are calls.
            trace_id, _, is_remote, flags, state, is_valid = context
        except (AttributeError, TypeError, ValueError):  # no span, or a foreign one
            return None
        if (
            not is_remote
            or state is not DEFAULT_TRACE_STATE
            or not is_valid
            or type(context) is not SpanContext
        ):
            return None
        is_sampled = flags & _SAMPLED != 0
        local_trace = None
        if is_sampled and self.new_local_trace is not None:
            local_trace = self.new_local_trace()
        offset = self.wall_ns() - self.monotonic_ns()
        anchor = (flags & _FOLLOWED, None, offset, local_trace)
        return _new_tuple(Sampled, (is_sampled, trace_id, anchor, context, EMPTY))

    def _handed_down(
        self, parent: Any, parent_context: SpanContext | None
    ) -> tuple[int, LocalTrace | None]:
        """Return a local parent's offset and local trace, so that the child nests in it."""
        if parent_context is not None and not parent_context.is_remote:
            anchor: Anchor | None = getattr(parent, "_anchor", None)
            if anchor is not None and anchor[2]:
                return anchor[2], anchor[3]
        return self.wall_ns() - self.monotonic_ns(), None

    def _random(self, parent_context: SpanContext | None) -> int:
        # The level-2 flag says something about the trace id, so it goes with the trace id.
        return self.random_flag if parent_context is None else parent_context.trace_flags & _RANDOM


def _in_steps(
    on_ending: Callable[[ApiSpan], None] | None, on_end: Callable[[ReadableSpan], None]
) -> Callable[[Any], None]:
    """Return what is told of a span that has ended, after those who may write to it once more.

    Only this thread may, and only until they return.
    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#onending
    """
    if on_ending is None:
        return on_end

    def tell(span: Any) -> None:
        span._ending = get_ident()
        try:
            on_ending(span)
        finally:
            span._ending = 0
            # Somebody may have read the span between its end and the first line.
            span._clean = None
        on_end(span)

    return tell


def _should_sample(sampler: Sampler, span: Span, context: Context, trace_id: int) -> Any:
    try:
        return sampler.should_sample(
            context, trace_id, span._name, span._kind, span._attributes, span._options.links
        )
    except Exception:
        _warn_once("the sampler raised; its spans are dropped", sampler)
        return None


_MOST_WARNED = 64
_warned: dict[int, object] = {}
"""Held as well, for the id of one that is gone would soon be that of another."""


def _warn_once(message: str, part: object) -> None:
    if id(part) not in _warned:
        if len(_warned) >= _MOST_WARNED:
            _warned.clear()
        _warned[id(part)] = part
        _logger.warning("%s: %r", message, part, exc_info=True)


def valid_context(parent: Any) -> SpanContext | None:
    if not isinstance(parent, ApiSpan):
        return None
    context = parent.get_span_context()
    # A foreign span may return anything.
    known: object = context
    return context if isinstance(known, SpanContext) and context.is_valid else None


def _random_bits(id_generator: IdGenerator) -> Callable[[int], int]:
    """Return what draws an id of 128 or of 64 bits; for random ones a C function, 0.03 µs less.

    Of those that are random, one in 1.8e19 is 0 and invalid, and nobody looks for that.
    """
    own: Callable[[int], int] | None = getattr(id_generator, "random_bits", None)
    if own is not None:
        return own
    trace_id, span_id = id_generator.generate_trace_id, id_generator.generate_span_id
    # A generator that gives an invalid id is asked once more.
    return lambda bits: (span_id() or span_id()) if bits == 64 else (trace_id() or trace_id())


def _random_flag(id_generator: IdGenerator) -> int:
    is_random = getattr(id_generator, "is_trace_id_random", None)
    return _RANDOM if callable(is_random) and is_random() else 0
