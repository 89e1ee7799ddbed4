"""Where a trace's time went."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit.cli._time_spent import by_service, by_step
from tracekit.exporters._forest import Forest, build_forests
from tracekit.testing import build_span


def forest(*spans: tuple[str, int, int | None, int, int]) -> Forest:
    """Build a trace of (service, id, parent, start, end)."""
    (made,) = build_forests(
        build_span(
            f"step {span_id}",
            span_id=span_id,
            parent_id=parent,
            start_time=1000 + start,
            end_time=1000 + end,
            service_name=service,
        )
        for service, span_id, parent, start, end in spans
    )
    return made


def spent(found: list[Any]) -> dict[str, int]:
    return {part.name or part.service: part.duration_ns for part in found}


def test_a_parent_has_the_time_in_which_no_child_ran() -> None:
    trace = forest(("a", 1, None, 0, 100), ("b", 2, 1, 10, 40), ("c", 3, 1, 60, 80))
    assert spent(by_service(trace)) == {"a": 50, "b": 30, "c": 20}


def test_of_children_at_once_the_last_to_end_is_what_was_waited_for() -> None:
    trace = forest(("a", 1, None, 0, 100), ("b", 2, 1, 0, 60), ("c", 3, 1, 10, 100))
    assert spent(by_service(trace)) == {"a": 0, "b": 10, "c": 90}


def test_a_child_that_outlives_its_parent_has_only_what_was_waited_for() -> None:
    trace = forest(("a", 1, None, 0, 100), ("b", 2, 1, 20, 500))
    assert spent(by_service(trace)) == {"a": 20, "b": 80}


def test_a_child_that_begins_after_its_parent_has_its_own_time() -> None:
    trace = forest(("a", 1, None, 0, 100), ("b", 2, 1, 120, 500), ("c", 3, 2, 200, 300))
    assert spent(by_service(trace)) == {"a": 100, "b": 280, "c": 100}


def test_equal_steps_are_one_line_with_their_number() -> None:
    spans = [("a", 1, None, 0, 100), ("b", 2, 1, 0, 40), ("b", 3, 1, 50, 90)]
    trace = forest(*spans)
    (part,) = [part for part in by_service(trace) if part.service == "b"]
    assert (part.duration_ns, part.spans) == (80, 2)


@pytest.mark.parametrize("depth", [5_000])
def test_a_deep_trace_is_no_recursion(depth: int) -> None:
    spans = [("a", n + 1, n or None, n, 20_000 - n) for n in range(depth)]
    assert spent(by_service(forest(*spans)))["a"] == 20_000


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_the_parts_add_up_to_the_duration_of_the_root(seed: int, count: int) -> None:
    made = random.Random(seed)
    spans: list[tuple[str, int, int | None, int, int]] = [("s0", 1, None, 0, 1000)]
    for number in range(2, count + 1):
        parent = made.choice(spans)
        start = made.randrange(parent[3], parent[4])
        end = start + made.randrange(1, 900)
        spans.append((f"s{made.randrange(4)}", number, parent[1], start, end))
    parts = by_step(forest(*spans))
    assert sum(part.duration_ns for part in parts) == 1000
    assert all(part.duration_ns >= 0 for part in parts)
