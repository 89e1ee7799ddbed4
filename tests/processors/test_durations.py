"""A running percentile is close to the true one, follows a change, and stays small."""

from __future__ import annotations

import random
import statistics

import pytest

from tracekit.processors._durations import MAX_OPERATIONS, WINDOW, Durations, Percentile


@pytest.mark.parametrize("percentile", [50, 90, 99])
def test_it_is_at_most_a_sixteenth_above_the_true_one(percentile):
    draw = random.Random(percentile)
    durations = [round(1e6 * draw.lognormvariate(1, 1)) for _ in range(WINDOW - 1)]
    estimate = Percentile((100 - percentile) / 100)
    for duration in durations:
        estimate.add(duration)
    true = statistics.quantiles(durations, n=100)[percentile - 1]
    assert 0.93 * true <= estimate.value <= 1.13 * true


@pytest.mark.parametrize(
    "duration", [0, 1, 15, 31, 32, 33, 47, 48, 63, 64, 1_000, 123_456, 10**9, 10**13]
)
def test_each_duration_is_within_its_bucket(duration):
    estimate = Percentile(0.5)
    for _ in range(10):
        estimate.add(duration)
    assert duration <= estimate.value <= duration * 17 / 16 + 1


def test_what_was_usual_fades():
    estimate = Percentile(0.1)
    for _ in range(10 * WINDOW):
        estimate.add(1_000_000)
    for _ in range(3 * WINDOW):
        estimate.add(1_000)
    assert 1_000 <= (estimate.value or 0) < 1_100


def test_nobody_is_slow_while_nothing_is_known():
    durations = Durations(99)
    assert not any(durations.is_slow("a", 10**12) for _ in range(100))


def test_an_operation_that_is_hardly_known_is_compared_with_all():
    durations = Durations(90)
    for _ in range(100):
        durations.is_slow("usual", 1000)
    assert durations.is_slow("new", 100_000)
    assert not durations.is_slow("newer", 900)
    assert durations.limit_ns("unknown") == durations.limit_ns("newer")


def test_a_share_of_about_the_rest_is_slow():
    draw = random.Random(1)
    durations = Durations(95)
    slow = sum(
        durations.is_slow("a", round(1e6 * draw.lognormvariate(1, 1))) for _ in range(20_000)
    )
    assert 700 < slow < 1_050


def test_operations_without_end_push_out_those_seen_longest_ago():
    durations = Durations(90)
    for _ in range(50):
        durations.is_slow("often", 1000)
    for number in range(3 * MAX_OPERATIONS):
        durations.is_slow(f"GET /users/{number}", 50_000_000)
        if number % 100 == 0:
            durations.is_slow("often", 1000)
    assert len(durations._operations) == MAX_OPERATIONS
    assert durations.is_slow("often", 2000)
