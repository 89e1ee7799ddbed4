"""What OpenTelemetry says of `th` and `rv`, its own examples, and services with different rates.

https://opentelemetry.io/docs/specs/otel/trace/tracestate-probability-sampling/
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from tracekit._ot_state import (
    MAX_THRESHOLD,
    RANDOM_MASK,
    OtState,
    threshold_of,
    with_threshold,
)
from tracekit.exporters._sample_rate import sample_rate
from tracekit.sdk import (
    ALWAYS_OFF,
    ALWAYS_ON,
    AdaptiveSampler,
    ComposableParentThreshold,
    ComposableProbability,
    CompositeSampler,
    ParentBased,
    RuleSampler,
    TraceIdRatioBased,
)

RANDOM = st.integers(1, RANDOM_MASK)
SHARES = st.floats(2**-20, 1.0)
ROOT = Context()


def written(ratio):
    return with_threshold(None, threshold_of(ratio))["ot"].removeprefix("th:")


# The examples of the specification ---------------------------------------------------------

ONE_IN_N = [
    (1, "0", 1),
    (2, "8", 2),
    (3, "aaab", 3.00004577706569),
    (4, "c", 4),
    (5, "cccd", 5.0000762951094835),
    (8, "e", 8),
    (10, "e666", 9.99938968568813),
    (16, "f", 16),
    (100, "fd70a", 99.99771123402633),
    (1000, "ffbe77", 1000.012874769029),
    (10_000, "fff9724", 9999.830725674266),
    (100_000, "ffff583a", 99999.238556461),
    (1_000_000, "ffffef39", 999992.38556461),
]
"""Threshold of four digits and exact adjusted count, of the table of 1-in-N probabilities."""


@pytest.mark.parametrize(("n", "threshold", "adjusted_count"), ONE_IN_N)
def test_one_in_n_is_the_threshold_of_the_table(n, threshold, adjusted_count):
    assert written(1 / n) == threshold
    exact = MAX_THRESHOLD / (MAX_THRESHOLD - threshold_of(1 / n))
    assert exact == pytest.approx(adjusted_count, rel=1e-12)
    assert sample_rate(f"ot=th:{threshold}") == round(adjusted_count)


def specified(probability: float, precision: int = 4) -> int:
    """Return the threshold in the way of the specification, through a float's own hexadecimals."""
    _, exponent = math.frexp(probability)
    digits = max(1, min(12, precision + exponent // -4))
    rejected = 2 - probability + math.ldexp(0.5, -4 * digits)
    text = "f" * 13 if rejected >= 2.0 else rejected.hex().removeprefix("0x1.")[:13]
    return int(text[:digits].ljust(14, "0"), 16)


@given(st.floats(2**-30, 0.99))
def test_any_probability_has_the_threshold_that_the_specification_computes(probability):
    ours, theirs = threshold_of(probability), specified(probability)
    # Halfway between two thresholds a float may round to either.
    assert abs(ours - theirs) <= max(1, (MAX_THRESHOLD - theirs) / 2**12)


@pytest.mark.parametrize(
    ("state", "threshold", "randomness"),
    [
        ("th:0", 0, None),
        ("th:c", 0xC0000000000000, None),
        ("th:fd70a4", 0xFD70A400000000, None),
        ("rv:6e6d1a75832a2f", None, 0x6E6D1A75832A2F),
        ("th:fd70a4;rv:6e6d1a75832a2f", 0xFD70A400000000, 0x6E6D1A75832A2F),
    ],
)
def test_the_examples_of_trace_states_are_read(state, threshold, randomness):
    """https://opentelemetry.io/docs/specs/otel/trace/tracestate-handling/"""
    found = OtState.of(TraceState([("ot", state)]))
    assert (found.threshold, found.randomness) == (threshold, randomness)


def test_a_hundredth_as_the_text_computes_it():
    """(1 - 0.01) * 2^56 is about 71337018784743424, which is fd70a4 in five digits' precision."""
    assert int("fd70a4".ljust(14, "0"), 16) == 71_337_018_784_743_424
    assert abs(threshold_of(0.01) - 71_337_018_784_743_424) < MAX_THRESHOLD * 0.01 * 2**-12


# Services with different rates -------------------------------------------------------------


def remote(trace_id, result, *, vendor=()):
    """Return the context of a service that was called by a span with that result."""
    flags = TraceFlags(1 if result.decision.is_sampled() else 0)
    state = result.trace_state or TraceState(list(vendor))
    return set_span_in_context(
        NonRecordingSpan(SpanContext(trace_id, 2, True, flags, state)), Context()
    )


def kinds(share):
    return [
        TraceIdRatioBased(share),
        CompositeSampler(ComposableProbability(share)),
        RuleSampler([{"keep": share}]),
    ]


def decided(sampler, trace_id, context=ROOT):
    result = sampler.should_sample(context, trace_id, "n")
    return result, OtState.of(result.trace_state)


@given(RANDOM, st.lists(SHARES, min_size=2, max_size=5))
def test_a_service_keeps_what_every_service_with_a_smaller_rate_keeps(trace_id, shares):
    """However the services are chained, and whichever sampler takes the share."""
    for place in range(3):
        context, kept = ROOT, {}
        for share in shares:
            result, _ = decided(kinds(share)[place], trace_id, context)
            context = remote(trace_id, result)
            kept[share] = result.decision.is_sampled()
        by_share = [kept[share] for share in sorted(kept)]
        assert by_share == sorted(by_share)


@given(RANDOM, SHARES)
def test_every_sampler_of_a_share_keeps_the_same_traces_and_says_the_same(trace_id, share):
    results = [decided(sampler, trace_id) for sampler in kinds(share)]
    assert len({result.decision for result, _ in results}) == 1
    said = {state.threshold for _, state in results}
    # Of what is kept whole, a plain share says nothing.
    assert said == {results[1][1].threshold} or share == 1.0


@given(RANDOM, SHARES, st.integers(0, RANDOM_MASK))
def test_explicit_randomness_decides_in_every_service_and_is_never_changed(trace_id, share, value):
    parent = TraceState([("ot", f"rv:{value:014x}")])
    for sampler in (*kinds(share), ParentBased(ALWAYS_OFF), ALWAYS_ON, AdaptiveSampler(5)):
        flags = TraceFlags(1)
        span = NonRecordingSpan(SpanContext(trace_id, 2, True, flags, parent))
        result, state = decided(sampler, trace_id, set_span_in_context(span, Context()))
        assert state.randomness == value
        if state.threshold is not None and result.decision.is_sampled():
            assert value >= state.threshold


@given(RANDOM, SHARES, SHARES)
def test_what_is_kept_always_says_the_rate_of_the_service_that_decided(trace_id, first, second):
    """Above all not that of a caller with another rate, or counts would be wrong."""
    for place in range(3):
        asked, _ = decided(kinds(first)[place], trace_id)
        context = remote(trace_id, asked)
        result, state = decided(kinds(second)[place], trace_id, context)
        if result.decision.is_sampled():
            assert state.threshold in (threshold_of(second), None if second == 1 else 0)
        else:
            assert state.threshold is None


@pytest.mark.parametrize("sampled", [True, False])
def test_who_keeps_everything_says_so_over_a_callers_threshold(sampled):
    state = TraceState([("ot", "th:c;rv:ffffffffffffff"), ("vendor", "value")])
    span = NonRecordingSpan(SpanContext(7, 8, True, TraceFlags(sampled), state))
    context = set_span_in_context(span, Context())
    for sampler in (ALWAYS_ON, TraceIdRatioBased(1.0)):
        result, _ = decided(sampler, 7, context)
        assert result.trace_state.to_header() == "ot=th:0;rv:ffffffffffffff,vendor=value"
    result, _ = decided(ALWAYS_OFF, 7, context)
    assert result.trace_state.to_header() == "ot=rv:ffffffffffffff,vendor=value"


FOLLOWING = [
    ParentBased(ALWAYS_OFF),
    CompositeSampler(ComposableParentThreshold(ComposableProbability(0.5))),
]


@pytest.mark.parametrize("sampler", FOLLOWING, ids=["parentbased", "composable"])
@pytest.mark.parametrize(
    ("sampled", "state", "passed_on"),
    [
        (True, "th:8;rv:80000000000000", "th:8;rv:80000000000000"),
        (True, "rv:80000000000000", "rv:80000000000000"),
        # The flag and the threshold contradict each other: the flag decided.
        (True, "th:8;rv:7fffffffffffff", "rv:7fffffffffffff"),
        (False, "th:8;rv:80000000000000", "rv:80000000000000"),
    ],
)
def test_who_follows_passes_a_threshold_on_unless_the_flag_contradicts_it(
    sampler, sampled, state, passed_on
):
    flags = TraceFlags(sampled)
    span = NonRecordingSpan(SpanContext(7, 8, True, flags, TraceState([("ot", state)])))
    result, _ = decided(sampler, 7, set_span_in_context(span, Context()))
    assert result.decision.is_sampled() is sampled
    assert result.trace_state["ot"] == passed_on


@given(RANDOM, SHARES)
def test_a_trace_through_services_that_follow_carries_one_threshold(trace_id, share):
    first, said = decided(TraceIdRatioBased(share), trace_id)
    context = remote(trace_id, first)
    for sampler in (FOLLOWING[0], FOLLOWING[1], FOLLOWING[0]):
        result, state = decided(sampler, trace_id, context)
        assert result.decision is first.decision
        assert state.threshold == said.threshold
        context = remote(trace_id, result)
