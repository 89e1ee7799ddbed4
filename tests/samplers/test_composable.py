"""Composable samplers: each says a threshold, one decision is made, and it can be counted."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from tracekit.sdk import (
    ComposableAlwaysOff,
    ComposableAlwaysOn,
    ComposableAnnotating,
    ComposableParentThreshold,
    ComposableProbability,
    ComposableRuleBased,
    CompositeSampler,
    InMemorySpanExporter,
    SimpleSpanProcessor,
    TracerProvider,
)

HALF = 1 << 55
JUST, ALMOST = HALF, HALF - 1
"""Trace ids whose randomness reaches the threshold of a half, and just does not."""


def parent(sampled: bool, *pairs: tuple[str, str]) -> Context:
    flags, state = TraceFlags(1 if sampled else 0), TraceState(list(pairs))
    span = NonRecordingSpan(SpanContext(JUST, 2, True, flags, state))
    return set_span_in_context(span, Context())


def asked(sampler: Any, context: Context | None = None, trace_id: int = JUST, **more: Any) -> Any:
    """Return whether a span is kept, and the `ot` member that it carries."""
    given = Context() if context is None else context
    result = CompositeSampler(sampler).should_sample(given, trace_id, "a", **more)
    state = result.trace_state or TraceState()
    return result.decision.is_sampled(), state.get("ot")


@pytest.mark.parametrize("trace_id", [0, 1, JUST, (1 << 128) - 1])
def test_always_on_keeps_all_and_says_so(trace_id: int) -> None:
    assert asked(ComposableAlwaysOn(), trace_id=trace_id) == (True, "th:0")


@pytest.mark.parametrize("trace_id", [0, JUST, (1 << 128) - 1])
def test_always_off_keeps_nothing_and_says_nothing(trace_id: int) -> None:
    assert asked(ComposableAlwaysOff(), trace_id=trace_id) == (False, None)


@pytest.mark.parametrize(
    ("trace_id", "expected"), [(JUST, (True, "th:8")), (ALMOST, (False, None))]
)
def test_a_probability_compares_the_threshold(trace_id: int, expected: Any) -> None:
    assert asked(ComposableProbability(0.5), trace_id=trace_id) == expected


def test_a_probability_of_nothing_is_always_off() -> None:
    assert asked(ComposableProbability(0.0), trace_id=(1 << 128) - 1) == (False, None)


@given(st.integers(0, (1 << 56) - 1), st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_what_a_lower_probability_keeps_a_higher_one_keeps(
    trace_id: int, one: float, other: float
) -> None:
    low, high = sorted((one, other))
    kept = [asked(ComposableProbability(p), trace_id=trace_id)[0] for p in (low, high)]
    assert kept != [True, False]


@pytest.mark.parametrize(
    ("sampled", "pairs", "expected"),
    [
        # With a threshold: it decides, and is passed on.
        (True, [("ot", "th:8")], (True, "th:8")),
        (True, [("ot", "th:0")], (True, "th:0")),
        (False, [("ot", "th:c")], (False, None)),
        # Without one: the flag decides, and nothing is claimed.
        (True, [], (True, None)),
        (False, [], (False, None)),
        (True, [("ot", "p:8")], (True, "p:8")),
        # Apparently inconsistent: the flag is believed, and the threshold erased.
        (True, [("ot", "th:c")], (True, None)),
        (False, [("ot", "th:8")], (False, None)),
    ],
)
def test_a_child_follows_its_parent(sampled: bool, pairs: Any, expected: Any) -> None:
    """https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/#parent-based-threshold"""
    sampler = ComposableParentThreshold(ComposableAlwaysOff())
    assert asked(sampler, parent(sampled, *pairs)) == expected


def test_a_root_is_the_root_samplers() -> None:
    sampler = ComposableParentThreshold(ComposableProbability(0.5))
    assert asked(sampler) == (True, "th:8")
    assert asked(sampler, trace_id=ALMOST) == (False, None)


RULES = ComposableRuleBased(
    [
        (lambda start: start.name == "health", ComposableAlwaysOff()),
        (lambda start: start.kind is SpanKind.SERVER, ComposableAlwaysOn()),
        (lambda start: "key" in start.attributes, ComposableProbability(0.5)),
    ]
)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"kind": SpanKind.SERVER}, (True, "th:0")),
        ({"attributes": {"key": 1}}, (True, "th:8")),
        ({"kind": SpanKind.SERVER, "attributes": {"key": 1}}, (True, "th:0")),
        ({}, (False, None)),
    ],
)
def test_the_first_rule_that_holds_decides(more: Any, expected: Any) -> None:
    assert asked(RULES, **more) == expected


def test_annotations_are_on_what_is_kept_only() -> None:
    inner = ComposableAnnotating(ComposableProbability(0.5), {"a": 1, "b": 1})
    sampler = CompositeSampler(ComposableAnnotating(inner, {"b": 2}))
    assert sampler.should_sample(Context(), JUST, "a").attributes == {"a": 1, "b": 2}
    assert sampler.should_sample(Context(), ALMOST, "a").attributes == {}


def test_explicit_randomness_comes_before_the_trace_id() -> None:
    high, low = ("ot", "rv:ffffffffffffff"), ("ot", "rv:00000000000000")
    sampler = ComposableProbability(0.5)
    assert asked(sampler, parent(True, high), ALMOST) == (True, "th:8;rv:ffffffffffffff")
    assert asked(sampler, parent(True, low), JUST) == (False, "rv:00000000000000")


def test_other_members_of_the_tracestate_are_untouched() -> None:
    sampler = CompositeSampler(ComposableAlwaysOn())
    context = parent(True, ("a", "1"), ("ot", "k:1"))
    state = sampler.should_sample(context, JUST, "a").trace_state
    assert state is not None
    assert state.to_header() == "ot=th:0;k:1,a=1"


def test_descriptions_name_the_parts() -> None:
    root = ComposableAnnotating(ComposableProbability(0.1), {"a": 1})
    sampler = CompositeSampler(ComposableParentThreshold(root))
    assert repr(sampler) == sampler.get_description()
    for part in ("ParentThreshold", "Annotating", "Probability{0.100000}"):
        assert part in sampler.get_description()


def test_a_whole_trace_is_kept_and_carries_its_threshold() -> None:
    exporter = InMemorySpanExporter()
    sampler = CompositeSampler(ComposableParentThreshold(ComposableProbability(0.5)))
    provider = TracerProvider(sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("library")
    for _ in range(100):
        with tracer.start_as_current_span("root"):
            tracer.start_span("child").end()
    spans = exporter.get_finished_spans()
    names = [span.name for span in spans]
    assert names.count("root") == names.count("child")
    assert 20 < names.count("root") < 80
    assert {span.context.trace_state["ot"] for span in spans} == {"th:8"}
