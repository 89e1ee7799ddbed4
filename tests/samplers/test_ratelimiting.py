"""So many traces a second are kept, and some at once."""

from __future__ import annotations

import os
import threading

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, TraceState

from tracekit.errors import InvalidValueError
from tracekit.sdk import ParentBased, RateLimitingSampler


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


def kept(sampler, asked):
    results = [sampler.should_sample(Context(), 1, "n") for _ in range(asked)]
    return sum(result.decision.is_sampled() for result in results)


def test_a_burst_is_kept_and_then_the_rate():
    clock = Clock()
    sampler = RateLimitingSampler(2, burst=5, clock=clock)
    assert kept(sampler, 20) == 5
    clock.now += 1.0
    assert kept(sampler, 20) == 2
    clock.now += 0.25
    assert kept(sampler, 20) == 0
    clock.now += 0.25
    assert kept(sampler, 20) == 1


def test_a_quiet_time_saves_no_more_than_the_burst():
    clock = Clock()
    sampler = RateLimitingSampler(2, burst=5, clock=clock)
    clock.now += 3600
    assert kept(sampler, 20) == 5


@pytest.mark.parametrize(("per_second", "burst"), [(10, 10), (0.1, 1)])
def test_without_a_burst_a_seconds_worth_is_one_and_never_nothing(per_second, burst):
    assert kept(RateLimitingSampler(per_second, clock=Clock()), 20) == burst


def test_a_clock_that_goes_back_gives_nothing_away():
    clock = Clock()
    sampler = RateLimitingSampler(1, clock=clock)
    assert kept(sampler, 2) == 1
    clock.now -= 50
    assert kept(sampler, 2) == 0


def test_a_take_may_interrupt_another():
    """As a signal handler that makes a span does."""
    clock = Clock()
    samplers, nested = [], []

    def interrupting():
        if samplers:
            nested.append(kept(samplers.pop(), 1))
        return clock.now

    sampler = RateLimitingSampler(1, burst=2, clock=interrupting)
    samplers.append(sampler)
    assert kept(sampler, 3) + sum(nested) == 2
    assert len(nested) == 1


def test_threads_share_one_bucket():
    sampler = RateLimitingSampler(100, burst=50, clock=Clock())
    counts = []
    threads = [threading.Thread(target=lambda: counts.append(kept(sampler, 500))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(counts) == 50


def test_a_forked_child_has_a_full_bucket_of_its_own():
    sampler = RateLimitingSampler(1, burst=5, clock=Clock())
    assert kept(sampler, 9) == 5
    child = os.fork()
    if child == 0:
        os._exit(kept(sampler, 9))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


def test_a_threshold_of_the_parents_is_not_passed_on():
    state = TraceState([("ot", "th:8;rv:ffffffffffffff"), ("vendor", "value")])
    parent = SpanContext(7, 8, True, TraceFlags(1), state)
    context = trace.set_span_in_context(NonRecordingSpan(parent), Context())
    result = RateLimitingSampler(1).should_sample(context, 7, "n")
    assert result.trace_state.to_header() == "ot=rv:ffffffffffffff,vendor=value"


def test_behind_parentbased_only_roots_are_counted():
    sampler = ParentBased(RateLimitingSampler(1, clock=Clock()))
    parent = SpanContext(7, 8, True, TraceFlags(1))
    context = trace.set_span_in_context(NonRecordingSpan(parent), Context())
    for _ in range(5):
        assert sampler.should_sample(context, 7, "n").decision.is_sampled()
    assert kept(sampler, 5) == 1


@pytest.mark.parametrize(("per_second", "burst"), [(0, None), (-1, 5), (1, 0.5), (float("inf"), 1)])
def test_rates_that_limit_nothing_are_refused(per_second, burst):
    with pytest.raises(InvalidValueError):
        RateLimitingSampler(per_second, burst)


@pytest.mark.parametrize("argument", ["many", "0", "nan", []])
def test_an_argument_that_is_no_rate_is_refused(argument):
    with pytest.raises(InvalidValueError, match="traces per second"):
        RateLimitingSampler.from_argument(argument)
    assert repr(RateLimitingSampler.from_argument("5")) == "RateLimitingSampler{5/s,5}"
