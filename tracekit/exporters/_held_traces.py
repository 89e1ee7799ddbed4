"""Ended spans that wait for their local root, so that a trace can be shown as a whole.

A local root is a span without a parent in this process. Children end before their parents, so
when it comes most of its tree is there. What is below it and still open comes late: such spans
are recognised by a parent that was handed out before.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

from tracekit.exporters._readable import UnreadableSpanError, readable
from tracekit.interfaces import ReadableSpan

__all__ = ["HeldTraces"]

MAX_SPANS = 10_000
MAX_AGE_S = 30.0
MAX_REMEMBERED = 20_000

LATE = "(ended after its local root)"
WAITING = "(its local root has not ended)"

Tree = tuple[str, Sequence[ReadableSpan]]
"""A note for the reader, "" for a whole tree, and its spans."""


class HeldTraces:
    """Spans by trace, handed out tree by tree. Not safe for threads: the caller holds a lock."""

    def __init__(self) -> None:
        self._traces: OrderedDict[int, _HeldTrace] = OrderedDict()
        self._handed_out: OrderedDict[tuple[int, int], None] = OrderedDict()
        self._count = 0

    def add(self, spans: Iterable[ReadableSpan], now_s: float) -> list[Tree]:
        """Take spans, and return the trees that they complete, late ones and too old ones."""
        touched: OrderedDict[int, None] = OrderedDict()
        for given in spans:
            try:
                span, identity = readable(given)
            except UnreadableSpanError:
                continue
            trace_id, span_id, parent_id, parent_is_remote, *_ = identity
            trace = self._traces.setdefault(trace_id, _HeldTrace(now_s))
            is_late = (trace_id, parent_id) in self._handed_out
            trace.add(span, span_id, 0 if parent_is_remote else parent_id, is_late=is_late)
            self._count += 1
            touched[trace_id] = None
        trees = [tree for trace_id in touched for tree in self._completed(trace_id)]
        return trees + self._given_up(now_s)

    def take_all(self) -> list[Tree]:
        """Return everything that is still waiting, a tree for each trace."""
        return [self._give_up(trace_id) for trace_id in list(self._traces)]

    def _completed(self, trace_id: int) -> list[Tree]:
        trace = self._traces[trace_id]
        trees: list[Tree] = [
            (note, self._hand_out(trace_id, taken))
            for note, top_id in trace.take_tops()
            if (taken := trace.take_below(top_id))
        ]
        if not trace.spans:
            del self._traces[trace_id]
        return trees

    def _given_up(self, now_s: float) -> list[Tree]:
        """Return the oldest traces, while there are too many spans or they waited too long."""
        trees: list[Tree] = []
        while self._traces:
            oldest = next(iter(self._traces))
            if self._count <= MAX_SPANS and now_s - self._traces[oldest].since_s <= MAX_AGE_S:
                break
            trees.append(self._give_up(oldest))
        return trees

    def _give_up(self, trace_id: int) -> Tree:
        trace = self._traces.pop(trace_id)
        return WAITING, self._hand_out(trace_id, trace.all_spans())

    def _hand_out(self, trace_id: int, taken: list[tuple[int, ReadableSpan]]) -> list[ReadableSpan]:
        self._count -= len(taken)
        for span_id, _ in taken:
            self._handed_out[trace_id, span_id] = None
        while len(self._handed_out) > MAX_REMEMBERED:
            self._handed_out.popitem(last=False)
        return [span for _, span in taken]


class _HeldTrace:
    """The waiting spans of one trace; several may have the same id."""

    __slots__ = ("_tops", "children", "parents", "since_s", "spans")

    def __init__(self, since_s: float) -> None:
        self.since_s = since_s
        self.spans: dict[int, list[ReadableSpan]] = {}
        self.parents: dict[int, int] = {}
        self.children: dict[int, dict[int, None]] = {}
        self._tops: list[tuple[str, int]] = []

    def add(self, span: ReadableSpan, span_id: int, parent_id: int, *, is_late: bool) -> None:
        """Keep a span; ``parent_id`` is 0 for a local root."""
        self.spans.setdefault(span_id, []).append(span)
        if span_id in self.parents:
            return
        self.parents[span_id] = parent_id
        self.children.setdefault(parent_id, {})[span_id] = None
        if not parent_id:
            self._tops.append(("", span_id))
        elif is_late:
            self._tops.append((LATE, span_id))

    def take_tops(self) -> list[tuple[str, int]]:
        """Return each span that has come since and need not wait, with a note about it."""
        tops, self._tops = self._tops, []
        return tops

    def take_below(self, top_id: int) -> list[tuple[int, ReadableSpan]]:
        """Remove a span with all that is below it, and return them with their ids."""
        taken: list[tuple[int, ReadableSpan]] = []
        pending = [top_id]
        while pending:
            span_id = pending.pop()
            if span_id not in self.parents:
                continue  # spans that are each other's parents come by twice
            self.children.get(self.parents.pop(span_id), {}).pop(span_id, None)
            taken += [(span_id, span) for span in self.spans.pop(span_id)]
            pending += self.children.pop(span_id, ())
        return taken

    def all_spans(self) -> list[tuple[int, ReadableSpan]]:
        return [(span_id, span) for span_id, spans in self.spans.items() for span in spans]
