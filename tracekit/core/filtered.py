"""What stands for a span that a drop rule takes out of its trace.

Theory of operation
-------------------
Rules are asked when a span starts, before the sampler is. A span that came into the process
(a local root, or one of kind SERVER or CONSUMER) goes with all that is below it: it becomes a
``FilteredSpan``, and the rest follows as below a span that was sampled out. Any other becomes a
``PassedOver``, which shows the ids of the span above it. Whoever starts below that, injects
headers or writes a log record there takes them for its parent's, so that nothing ever refers to
the span that is missing, in this process or in another, and nothing has to be moved afterwards.
"""

from __future__ import annotations

import logging
from typing import Any

from opentelemetry.trace import SpanContext, SpanKind

from tracekit.core.attributes import EMPTY
from tracekit.core.binding import Anchor, Binding, valid_context
from tracekit.core.dropped import DROPPED, RECORDING, DroppedSpan

__all__ = ["FilteredSpan", "PassedOver", "look_first"]

_logger = logging.getLogger("tracekit")
_RANDOM = 2
SERVER, CONSUMER = SpanKind.SERVER, SpanKind.CONSUMER


class FilteredSpan(DroppedSpan):
    """Stands for a span that a rule drops together with whatever starts below it."""

    __slots__ = ("_rule",)

    def __init__(
        self, binding: Binding, trace_id: int, anchor: Anchor, name: str, rule: str
    ) -> None:
        self._binding = binding
        self._trace_id = trace_id
        self._anchor = anchor
        self._name = name
        self._rule = rule
        binding.count_filtered(rule)

    def below(self, binding: Binding, name: str) -> FilteredSpan:
        """Return what stands for a span that starts below; it counts for the same rule."""
        return FilteredSpan(binding, self._trace_id, self._anchor, name, self._rule)


class PassedOver(DroppedSpan):
    """Stands for a span that a rule drops alone: to all below it, it is the span above it."""

    __slots__ = ("_above", "_span_id")

    # What is asked of recording spans: whether it is open.
    _end = 0

    def __init__(self, above: Any, name: str) -> None:
        super().__init__(above._binding, above._trace_id, above._anchor, name)
        self._above = _kept(above)
        self._span_id = above._span_id

    def keep(self, reason: str = "asked") -> None:
        self._above.keep(reason)

    @property
    def kept(self) -> bool | None:
        kept: bool | None = self._above.kept
        return kept

    @property
    def _context(self) -> SpanContext:  # type: ignore[override]
        context: SpanContext = self._above.get_span_context()
        return context


def _kept(span: Any) -> Any:
    return span._above if type(span) is PassedOver else span


RECORDING.add(PassedOver)


def look_first(binding: Binding, span: Any, parent: Any) -> DroppedSpan | None:
    """Return what stands for a span that is about to start, if a rule drops it.

    Where somebody asks at the end which spans had children, the parent is told of this one.
    """
    above, drops = type(parent), binding.drops
    if above in DROPPED:
        return None
    is_below = above in RECORDING
    rule = None
    if drops is not None:
        attributes = span._attributes
        if attributes is None:
            attributes = EMPTY
        try:
            rule = drops.at_start(span._name, span._kind, attributes, is_below)
        except Exception:
            _logger.debug("a drop rule could not be asked about %r", span._name, exc_info=True)
    if rule is None:
        if is_below and binding.marks_parents:
            _kept(parent)._is_parent = True
        return None
    if is_below and span._kind is not SERVER and span._kind is not CONSUMER:
        binding.count_filtered(rule)
        return PassedOver(parent, span._name)
    return FilteredSpan(binding, *_place(binding, parent), span._name, rule)


def _place(binding: Binding, parent: Any) -> tuple[int, Anchor]:
    """Return the trace in which nothing is recorded: the caller's, told on as not sampled."""
    context = valid_context(parent)
    if context is None:
        return binding.random_bits(128) or 1, binding.dropped_anchor
    flags = context.trace_flags & _RANDOM
    return context.trace_id, (flags, context.trace_state or None, 0, None)


DROPPED.add(FilteredSpan)
