"""So many traces a second are kept, rare operations among them, and what is kept can be counted."""

from __future__ import annotations

import math
import os
import random
import threading
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

import tracekit
from tracekit._ot_state import MAX_THRESHOLD, RANDOM_MASK, OtState
from tracekit.errors import InvalidValueError
from tracekit.sdk import (
    AdaptiveSampler,
    ComposableParentThreshold,
    CompositeSampler,
    ParentBased,
    RuleSampler,
)

ROOT = Context()


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


class Traffic:
    """Requests of operations of Zipf popularity, each decided by one sampler on a manual clock."""

    def __init__(self, sampler, clock, operations, seed=0):
        self._sampler, self._clock = sampler, clock
        self._random = random.Random(seed)
        self._names = [f"op{number}" for number in range(operations)]
        self._weights = [1 / (number + 1) for number in range(operations)]
        self.came, self.kept, self.weight = Counter(), Counter(), Counter()

    def run(self, seconds, per_second):
        """Return how many were kept."""
        before = self.kept.total()
        count = int(seconds * per_second)
        for name in self._random.choices(self._names, self._weights, k=count):
            self._clock.now += seconds / count
            self.came[name] += 1
            result = self._sampler.should_sample(ROOT, self._random.getrandbits(128), name)
            if result.decision.is_sampled():
                self.kept[name] += 1
                threshold = OtState.of(result.trace_state).threshold
                self.weight[name] += MAX_THRESHOLD / (MAX_THRESHOLD - threshold)
        return self.kept.total() - before


def traffic(per_second, operations, seed=0, **more):
    clock = Clock()
    return Traffic(AdaptiveSampler(per_second, clock=clock, **more), clock, operations, seed)


def is_kept(sampler, trace_id=1, name="n", context=ROOT, **attributes):
    given_ = {key.replace("__", "."): value for key, value in attributes.items()}
    result = sampler.should_sample(context, trace_id, name, None, given_)
    return result.decision.is_sampled()


@settings(max_examples=15, deadline=None)
@given(
    target=st.floats(1, 50),
    load=st.floats(1.5, 40),
    operations=st.integers(1, 100),
    seed=st.integers(0, 2**32),
)
def test_the_total_stays_within_the_target(target, load, operations, seed):
    subject = traffic(target, operations, seed)
    subject.run(3, target * load)
    seconds = min(60, max(10, 4000 / (target * load)))
    kept = subject.run(seconds, target * load)
    expected = target * seconds
    assert kept <= 1.15 * expected + 4 * math.sqrt(expected)


@settings(max_examples=15, deadline=None)
@given(target=st.floats(1, 50), operations=st.integers(1, 100), seed=st.integers(0, 2**32))
def test_every_operation_is_seen_however_rare(target, operations, seed):
    subject = traffic(target, operations, seed)
    subject.run(3, 200)
    subject.came.clear()
    subject.kept.clear()
    subject.run(4 * max(1.0, 2 * (operations + 1) / target) + 2, 200)
    # Who came a few times only may have come when it had just been kept.
    assert set(subject.kept) >= {name for name, came in subject.came.items() if came >= 8}


def test_with_less_traffic_than_the_target_everything_is_kept():
    subject = traffic(20, 10)
    assert subject.run(30, 15) == 15 * 30
    assert subject.weight == subject.came


def test_the_target_is_used():
    subject = traffic(20, 50)
    subject.run(5, 1000)
    assert 0.85 * 200 <= subject.run(10, 1000) <= 1.15 * 200


def test_popular_operations_are_kept_more_often_but_by_far_not_in_proportion():
    subject = traffic(40, 100)
    subject.run(10, 1000)
    popular, rare = ["op0", "op1"], [f"op{number}" for number in range(60, 100)]
    per_operation = {name: subject.kept[name] for name in (*popular, *rare)}
    assert min(per_operation[name] for name in popular) > 2 * max(
        per_operation[name] for name in rare
    )
    share_came = sum(subject.came[name] for name in rare) / subject.came.total()
    share_kept = sum(subject.kept[name] for name in rare) / subject.kept.total()
    assert share_kept > 2 * share_came


def test_a_thousandfold_surge_keeps_less_than_twice_the_target_and_is_noticed():
    subject = traffic(20, 10)
    subject.run(10, 10)
    assert subject.run(1, 10_000) < 2 * 20 + 4 * math.sqrt(40)
    assert subject.run(2, 10_000) < 1.3 * 40 + 4 * math.sqrt(40)


def test_when_a_surge_is_over_everything_is_kept_again_a_second_later():
    subject = traffic(20, 10)
    subject.run(5, 2000)
    subject.run(2, 10)
    assert subject.run(5, 10) == 50


@pytest.mark.parametrize("surge", [1, 50])
def test_weighted_counts_are_unbiased_in_a_surge_too(surge):
    estimates = []
    for seed in range(40):
        subject = traffic(10, 20, seed)
        subject.run(3, 50)
        subject.run(1, 50 * surge)
        subject.run(1, 50)
        estimates.append(subject.weight.total() / subject.came.total())
    mean = sum(estimates) / len(estimates)
    spread = math.sqrt(sum((one - mean) ** 2 for one in estimates) / len(estimates))
    assert abs(mean - 1) < 4 * spread / math.sqrt(len(estimates))
    assert abs(mean - 1) < 0.25


def test_a_target_below_one_a_second_is_one():
    subject = traffic(0.5, 3)
    subject.run(20, 50)
    assert 60 <= subject.run(200, 50) <= 140


def test_operations_are_bounded_and_what_else_comes_is_one_together():
    clock = Clock()
    sampler = AdaptiveSampler(10, max_operations=50, clock=clock)
    kept = 0
    for number in range(20_000):
        clock.now += 0.001
        kept += is_kept(sampler, random.Random(number).getrandbits(64), f"op{number}")
    assert len(sampler._shares) == 50
    assert kept <= 1.5 * 10 * 20


def test_an_operation_that_does_not_come_any_more_makes_room():
    clock = Clock()
    sampler = AdaptiveSampler(10, max_operations=2, clock=clock)
    for name in ("a", "b", "c"):
        is_kept(sampler, name=name)
    clock.now += 1
    is_kept(sampler, name="a")
    clock.now += 700
    is_kept(sampler, name="a")
    assert len(sampler._shares) == 1
    is_kept(sampler, name="c")
    assert len(sampler._shares) == 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"url__path": "/users/17"}, {"url__path": "/users/4f2a"}, True),
        ({"url__path": "/users/17/cart"}, {"url__path": "/users/17/orders"}, False),
        ({"http__route": "/a/{id}", "url__path": "/a/1"}, {"http__route": "/a/{id}"}, True),
        ({"http__route": "/a"}, {"http__route": "/b"}, False),
        ({"http__route": 7, "url__path": None}, {"unrelated": 1}, True),
        ({}, {"unrelated": 1}, True),
    ],
)
def test_an_operation_is_a_name_and_a_route_or_a_path_without_what_varies(one, other, same):
    sampler = AdaptiveSampler(10, clock=Clock())
    for attributes in (one, other):
        assert is_kept(sampler, name="GET", **attributes)
    assert len(sampler._shares) == (1 if same else 2)


def under(*pairs):
    parent = SpanContext(7, 8, True, TraceFlags(1), TraceState(list(pairs)))
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def busy():
    """Return a sampler that keeps few of `op0`, and none for sure just now."""
    subject = traffic(10, 1)
    subject.run(5, 1000)
    return subject._sampler


BUSY = busy()
SETTLED = OtState.of(BUSY.should_sample(ROOT, RANDOM_MASK, "op0").trace_state).threshold


@given(st.integers(1, RANDOM_MASK))
def test_the_randomness_of_a_trace_is_compared_and_decides_nothing_else(trace_id):
    result = BUSY.should_sample(ROOT, trace_id, "op0")
    assert result.decision.is_sampled() is (trace_id >= SETTLED)
    if result.decision.is_sampled():
        assert OtState.of(result.trace_state).threshold == SETTLED


def test_explicit_randomness_comes_before_the_trace_id():
    sampler = busy()
    high, low = under(("ot", "rv:ffffffffffffff")), under(("ot", "rv:00000000000000"))
    assert is_kept(sampler, 1, "op0", high)
    assert not is_kept(sampler, RANDOM_MASK, "op0", low)


def test_other_members_of_the_trace_state_stay():
    context = under(("ot", "th:8;rv:ffffffffffffff"), ("vendor", "value"))
    state = busy().should_sample(context, 1, "op0").trace_state
    assert state.get("vendor") == "value"
    assert "rv:ffffffffffffff" in state["ot"]
    assert OtState.of(state).threshold == SETTLED


def test_it_is_a_part_of_composite_samplers():
    sampler = CompositeSampler(ComposableParentThreshold(AdaptiveSampler(10, clock=Clock())))
    result = sampler.should_sample(ROOT, 1, "n")
    assert result.decision.is_sampled()
    assert result.trace_state["ot"] == "th:0"
    assert "AdaptiveSampler{10/s}" in sampler.get_description()


def test_rules_that_do_not_match_leave_it_to_it():
    sampler = RuleSampler("drop name=health", AdaptiveSampler(10, clock=Clock()))
    assert not is_kept(sampler, name="health")
    assert sampler.should_sample(ROOT, 1, "n").trace_state["ot"] == "th:0"


def test_behind_parentbased_only_roots_are_counted():
    inner = AdaptiveSampler(10, clock=Clock())
    sampler = ParentBased(inner)
    assert is_kept(sampler, 7, context=under())
    assert len(inner._shares) == 0


def test_threads_keep_no_more_than_one():
    clock = Clock()
    sampler = AdaptiveSampler(50, clock=clock)
    counts = []

    def ask(seed):
        ids = random.Random(seed)
        counts.append(sum(is_kept(sampler, ids.getrandbits(64)) for _ in range(2000)))

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 0 < sum(counts) < 2 * 50


def test_a_decision_may_interrupt_another_at_any_place():
    """As a signal handler that makes a span does."""
    clock = Clock()
    depth = []

    def interrupting():
        if len(depth) < 3:
            depth.append(1)
            is_kept(sampler, name="handler")
            depth.pop()
        return clock.now

    depth.extend([1, 1, 1])
    sampler = AdaptiveSampler(10, clock=interrupting)
    depth.clear()
    for _ in range(5):
        clock.now += 0.9
        assert is_kept(sampler)


def test_a_forked_child_begins_anew():
    subject = traffic(5, 1)
    subject.run(5, 1000)
    child = os.fork()
    if child == 0:
        os._exit(20 if is_kept(subject._sampler, 1, "op0") else 21)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 20
    assert not is_kept(subject._sampler, 1, "op0")


@pytest.mark.parametrize("argument", ["many", "0", "-1", "nan", "inf", []])
def test_an_argument_that_is_no_target_is_refused(argument):
    with pytest.raises(InvalidValueError, match="traces per second"):
        AdaptiveSampler.from_argument(argument)


def test_no_operations_are_refused():
    with pytest.raises(InvalidValueError, match="max_operations"):
        AdaptiveSampler(10, max_operations=0)


def test_it_is_chosen_from_outside(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_adaptive")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "5")
    provider = tracekit.configure(exporters="none")
    assert "root:AdaptiveSampler{5/s}" in provider.sampler.get_description()
    with tracekit.span("root") as span:
        assert span.get_span_context().trace_state["ot"] == "th:0"
