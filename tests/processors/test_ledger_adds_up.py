"""Whatever is dropped or compressed: each span has one place in the ledger, none is an orphan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import context as context_api
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.processors.compress import CompressionProcessor
from tracekit.processors.drop import DropProcessor
from tracekit.processors.tail import TailSampler, TailSettings
from tracekit.samplers.parentbased import ParentBased
from tracekit.samplers.rules import RuleSampler
from tracekit.sdk import SimpleSpanProcessor, TracerProvider
from tracekit.semconv import COMPRESSED_COUNT

RULES = [
    True,
    False,
    "drop name=a",
    "keep name=a kind=client; drop name=a; drop late=1",
    "drop name=b early=1; drop name=/[cd]/ late=1; pings",
    "drop kind=client; keep",
]


@dataclass
class Plan:
    """A span to be: what it is, and what is below it."""

    name: str
    kind: SpanKind
    early: int
    late: int
    fails: bool
    is_scope: bool
    ends: bool
    children: list[Plan] = field(default_factory=list)


NAMES = st.sampled_from("aaabcd")
KINDS = st.sampled_from([SpanKind.INTERNAL, SpanKind.CLIENT, SpanKind.SERVER])
LEAVES = st.builds(
    Plan,
    NAMES,
    KINDS,
    st.integers(0, 1),
    st.integers(0, 1),
    st.booleans(),
    st.booleans(),
    st.sampled_from([True, True, True, False]),
)


def _with_children(plans: Any) -> Any:
    return st.builds(
        lambda plan, below: Plan(**{**vars(plan), "children": below}),
        LEAVES,
        st.lists(plans, max_size=6),
    )


TREES = st.recursive(LEAVES, _with_children, max_leaves=25)


def make(tracer: Any, plan: Plan, started: Counter[str]) -> None:
    started["all"] += 1
    attributes = {"early": plan.early, "url.path": "/healthz" if plan.early else "/"}
    if plan.is_scope:
        with tracer.start_as_current_span(plan.name, kind=plan.kind, attributes=attributes) as span:
            write(tracer, span, plan, started)
        return
    span = tracer.start_span(plan.name, kind=plan.kind, attributes=attributes)
    token = context_api.attach(set_span_in_context(span))
    write(tracer, span, plan, started)
    context_api.detach(token)
    if plan.ends:
        span.end()
    else:
        started["open"] += span.is_recording()


def write(tracer: Any, span: Any, plan: Plan, started: Counter[str]) -> None:
    for child in plan.children:
        make(tracer, child, started)
    if plan.fails:
        span.set_status(StatusCode.ERROR)
    span.set_attribute("late", plan.late)


def places_of(provider: TracerProvider) -> Counter[str]:
    """Return how many spans the ledger has in each place."""
    stats = provider.stats()
    (processor,) = stats["processors"]
    (lane,) = processor["exporters"]
    places = Counter(
        exported=lane["exported"],
        sampled_out=stats["sampled_out"],
        filtered=sum(stats["filtered"].values()) + sum(processor["filtered"].values()),
        held=processor["tail"]["held"] if "tail" in processor else 0,
        tail=sum(processor["tail"]["sampled_out"].values()) if "tail" in processor else 0,
        compressed=processor["compressed"],
        compressing=processor["compressing"],
        live=stats["live"],
    )
    assert stats["started"] == processor["received"] + stats["live"]
    return places


@given(
    trees=st.lists(TREES, min_size=1, max_size=4),
    rules=st.sampled_from(RULES),
    sampled_out=st.sampled_from(["name=d", "name=none"]),
    above=st.sampled_from([1, 2, 100]),
    share=st.sampled_from([None, 0.0, 0.5]),
)
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_every_span_is_in_one_place_and_none_is_an_orphan(trees, rules, sampled_out, above, share):
    exporter = InMemorySpanExporter()
    sampler = ParentBased(RuleSampler(f"drop {sampled_out}"))
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    following: Any = CompressionProcessor(SimpleSpanProcessor(exporter), above)
    if share is not None:
        following = TailSampler(following, TailSettings(share=share))
    provider.add_span_processor(DropProcessor(following, rules))
    tracer = provider.get_tracer("t")
    started: Counter[str] = Counter()
    for tree in trees:
        token = context_api.attach(Context())
        make(tracer, tree, started)
        context_api.detach(token)
    places = places_of(provider)
    assert places.total() == started["all"]
    assert places["live"] == started["open"]
    provider.force_flush()
    places, spans = places_of(provider), exporter.get_finished_spans()
    assert places.total() == started["all"]
    assert (places["exported"], places["held"], places["compressing"]) == (len(spans), 0, 0)
    stand_for = sum(span.attributes.get(COMPRESSED_COUNT, 1) for span in spans)
    assert stand_for == places["exported"] + places["compressed"]
    if not started["open"]:
        known = {span.context.span_id for span in spans}
        assert all(span.parent is None or span.parent.span_id in known for span in spans)
    provider.shutdown()
