"""What other settings of sampling would have kept of traces that are there already.

Traces are replayed in the order in which they began, with a clock that says when that was. Each
is asked about as it would have been: drop rules at the start of each span, the sampler at the
root, the tail sampler of each process when its local root had ended. A span knows less when it
starts than when it is stored: a server's has its method for a name, and neither route nor status.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from tracekit import semconv
from tracekit._head import sampler_of
from tracekit._stages import drop_rules, tail_settings
from tracekit.exporters._otlp_encoder import encode_span
from tracekit.processors._held_trace import HeldTrace
from tracekit.processors._reasons import Reasons
from tracekit.processors._tail_ledger import TailLedger
from tracekit.samplers._clock import using_clock
from tracekit.settings import Settings
from tracekit.trace import Node, Trace

__all__ = ["DryRun", "Volume"]

KNOWN_LATER = (
    semconv.HTTP_ROUTE,
    semconv.HTTP_RESPONSE_STATUS_CODE,
    semconv.ERROR_TYPE,
)
"""What our servers add after the start."""
_INCOMING = (SpanKind.SERVER, SpanKind.CONSUMER)


@dataclass
class Volume:
    """How much there is, and how much of it would have been kept."""

    traces: int = 0
    spans: int = 0
    bytes: int = 0
    kept_traces: int = 0
    kept_spans: int = 0
    kept_bytes: int = 0

    def add(self, sizes: Mapping[Node, int], kept: set[Node]) -> None:
        self.traces += 1
        self.spans += len(sizes)
        self.bytes += sum(sizes.values())
        self.kept_traces += bool(kept)
        self.kept_spans += len(kept)
        self.kept_bytes += sum(sizes[node] for node in kept)


@dataclass
class DryRun:
    """Replay traces under settings of sampling, and add up what they would have kept.

    Attributes:
        fates: Spans by what became of them: ``kept``, ``drop: RULE``, ``sampler``, ``tail``.
        reasons: Kept local traces by the tail sampler's reason.

    Raises:
        ConfigurationError: The settings cannot work.
    """

    settings: Settings
    total: Volume = field(default_factory=Volume)
    operations: dict[tuple[str, str], Volume] = field(default_factory=dict)
    fates: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    began_ns: int = 0
    ended_ns: int = 0

    def __post_init__(self) -> None:
        self._now_s = 0.0
        with using_clock(lambda: self._now_s):
            self.sampler = sampler_of(self.settings)
        self._drop = drop_rules(self.settings)
        self._tail = tail_settings(self.settings)
        # Each service learns by itself what is usual there.
        self._judges: dict[str, Reasons] = {}

    @property
    def window_s(self) -> float:
        """From when until when traces began, at least a second."""
        return max(1.0, (self.ended_ns - self.began_ns) / 1e9)

    def replay(self, traces: Iterable[Trace]) -> None:
        ordered = sorted(traces, key=lambda trace: trace.start)
        if ordered:
            self.began_ns, self.ended_ns = ordered[0].start, ordered[-1].start
        for trace in ordered:
            self._now_s = trace.start / 1e9
            self._replay(trace)

    def _replay(self, trace: Trace) -> None:
        sizes = {node: _size(node.span) for node in trace.nodes if node.span is not None}
        left = self._not_dropped(trace)
        if left and not self._is_sampled(trace):
            self.fates["sampler"] += len(left)
            left = set()
        kept = self._kept_at_the_end(trace, left)
        self.fates["tail"] += len(left) - len(kept)
        self.fates["kept"] += len(kept)
        asked = trace.asked
        operation = self.operations.setdefault((asked.service, asked.name), Volume())
        for volume in (self.total, operation):
            volume.add(sizes, kept)

    # At the start -----------------------------------------------------------------------

    def _not_dropped(self, trace: Trace) -> set[Node]:
        left: set[Node] = set()
        dropped: dict[Node, str] = {}
        for node in _from_the_roots(trace):
            above = dropped.get(node.parent) if node.parent is not None else None
            rule = above or self._rule_for(node)
            if node.span is None:
                continue
            if rule is None:
                left.add(node)
                continue
            self.fates[f"drop: {rule}"] += 1
            # What came into a process goes with all below it, any other span alone.
            if above or node.kind in _INCOMING or _is_local_root(node):
                dropped[node] = rule
        return left

    def _rule_for(self, node: Node) -> str | None:
        if node.span is None:
            return None
        name, attributes = _at_start(node)
        found = self._drop.at_start(name, node.kind, attributes, not _is_local_root(node))
        return found or (self._drop.at_end(node.span) if self._drop.asks_at_end else None)

    def _is_sampled(self, trace: Trace) -> bool:
        root = trace.asked
        name, attributes = _at_start(root)
        links = tuple(root.span.links) if root.span is not None else ()
        result = self.sampler.should_sample(
            Context(), trace.trace_id, name, root.kind, attributes, links
        )
        return result.decision.is_sampled()

    # At the end -------------------------------------------------------------------------

    def _kept_at_the_end(self, trace: Trace, left: set[Node]) -> set[Node]:
        if self._tail is None:
            return left
        locals_ = _local_traces(trace, left)
        kept: set[Node] = set()
        wanted: set[Node] = set()
        # Those that were called first: their reasons reach who called, by traceresponse.
        for root, nodes in reversed(locals_.items()):
            verdict_is_kept, reason = self._verdict(root, nodes, is_asked=root in wanted)
            if verdict_is_kept:
                kept.update(nodes)
                self.reasons[reason] += 1
            caller = root.parent and _local_root(root.parent)
            if verdict_is_kept and reason != "share" and caller is not None:
                wanted.add(caller)
        return kept

    def _verdict(self, root: Node, nodes: Sequence[Node], is_asked: bool) -> tuple[bool, str]:
        assert self._tail is not None
        judge = self._judges.get(root.service)
        if judge is None:
            judge = self._judges[root.service] = Reasons(self._tail, TailLedger().verdict)
        held = _Held()
        held.extend(_Ended(node) for node in nodes)
        held.may_have_failed = True
        if nodes[0] is root:
            held.root = held[0]
        if is_asked:
            held.asked = "a service that was called"
        reason = judge.reason(held)
        verdict = judge.verdict(held, reason, "" if reason else _answer(self._tail, nodes))
        return verdict.is_kept, verdict.label if verdict.has_reason else "share"


class _Held(HeldTrace):
    """A local trace that no stage holds."""

    begun = staticmethod(lambda _trace: None)


class _Ended:
    """A stored span as a tail sampler's questions read it."""

    def __init__(self, node: Node) -> None:
        self._span = node.span
        self.status_code = node.span.status.status_code.value
        self.taken_ns = self.age_ns = node.duration_ns
        self.trace_state = node.span.context.trace_state
        self.trace_id = node.span.context.trace_id

    def __getattr__(self, name: str) -> Any:
        return getattr(self._span, name)


def _answer(settings: Any, nodes: Sequence[Node]) -> str:
    """Ask the functions that settings name; one that raises keeps a trace, as it would have."""
    spans = [node.span for node in nodes]
    try:
        if settings.predicate is not None and settings.predicate(spans):
            return "predicate"
        return str(settings.find(spans)) if settings.find is not None else ""
    except Exception:
        return "a function that raised"


# Places ------------------------------------------------------------------------------------


def _from_the_roots(trace: Trace) -> Iterator[Node]:
    """Yield each span after the one above it."""
    waiting = list(reversed(trace.roots))
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.children))


def _is_local_root(node: Node) -> bool:
    above = node.parent
    if above is None or above.span is None or node.parent_is_remote:
        return True
    return (above.service, above.process) != (node.service, node.process)


def _local_root(node: Node) -> Node:
    while not _is_local_root(node):
        assert node.parent is not None
        node = node.parent
    return node


def _local_traces(trace: Trace, left: set[Node]) -> dict[Node, list[Node]]:
    """Return what each process has of a trace, callers before those whom they called."""
    found: defaultdict[Node, list[Node]] = defaultdict(list)
    for node in _from_the_roots(trace):
        if node in left:
            found[_local_root(node)].append(node)
    return dict(found)


def _at_start(node: Node) -> tuple[str, Mapping[str, Any]]:
    """Return a span's name and attributes as they were when it started."""
    attributes = node.attributes
    method = attributes.get(semconv.HTTP_REQUEST_METHOD)
    if node.kind is not SpanKind.SERVER or not isinstance(method, str):
        return node.name, attributes
    known = {key: value for key, value in attributes.items() if key not in KNOWN_LATER}
    return method, known


def _size(span: Any) -> int:
    """Return the bytes of a span as OTLP."""
    try:
        return len(encode_span(span))
    except Exception:  # read from a file that says something else than its ids
        return 0
