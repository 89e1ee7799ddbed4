"""Where a trace's time went."""

from __future__ import annotations

import io
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind

from tracekit.findings._critical_path import by_service, by_step, critical_path
from tracekit.formats._reading import TraceFile
from tracekit.testing import build_span
from tracekit.trace import Trace, traces_of


def trace_of(*spans: tuple[str, int, int | None, int, int]) -> Trace:
    """Build a trace of (service, id, parent, start, end)."""
    (made,) = traces_of(
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
    trace = trace_of(("a", 1, None, 0, 100), ("b", 2, 1, 10, 40), ("c", 3, 1, 60, 80))
    assert spent(by_service(trace)) == {"a": 50, "b": 30, "c": 20}


def test_of_children_at_once_the_last_to_end_is_what_was_waited_for() -> None:
    trace = trace_of(("a", 1, None, 0, 100), ("b", 2, 1, 0, 60), ("c", 3, 1, 10, 100))
    assert spent(by_service(trace)) == {"a": 10, "c": 90}


def test_nobody_waits_for_the_consumer_of_a_message() -> None:
    spans = [
        build_span("send", span_id=1, start_time=0, end_time=100, service_name="a"),
        build_span(
            "process",
            span_id=2,
            parent_id=1,
            start_time=10,
            end_time=90,
            service_name="b",
            kind=SpanKind.CONSUMER,
        ),
    ]
    (trace,) = traces_of(spans)
    assert [(part.node.name, part.end - part.start) for part in critical_path(trace)] == [
        ("send", 100)
    ]
    assert spent(by_service(trace)) == {"a": 100, "b": 80}


# Those of its own tests, by hand: test1 to test9 below
# https://github.com/jaegertracing/jaeger-ui/tree/main/packages/jaeger-ui/src/components/TracePage/CriticalPath
JAEGER_CASES = {
    "one child after the other": (
        {"C": (None, 1, 101), "D": ("C", 20, 40), "E": ("C", 50, 60)},
        [("C", 60, 101), ("E", 50, 60), ("C", 40, 50), ("D", 20, 40), ("C", 1, 20)],
    ),
    "two children that overlap": (
        {"X": (None, 1, 101), "A": ("X", 10, 50), "C": ("X", 20, 60)},
        [("X", 60, 101), ("C", 20, 60), ("X", 1, 20)],
    ),
    "a child that begins after its parent": (
        {"A": (None, 100, 140), "B": ("A", 150, 250)},
        [("A", 100, 140)],
    ),
    "a child and grandchild after their parent": (
        {"A": (None, 1, 31), "B": ("A", 40, 80), "C": ("B", 50, 60)},
        [("A", 1, 31)],
    ),
    "a child that overflows, whose child begins before it": (
        {"A": (None, 1, 30), "B": ("A", 15, 35), "C": ("B", 10, 25)},
        [("B", 25, 30), ("C", 15, 25), ("A", 1, 15)],
    ),
    "a child and grandchild that overflow": (
        {"A": (None, 1, 30), "B": ("A", 15, 35), "C": ("B", 20, 40)},
        [("C", 20, 30), ("B", 15, 20), ("A", 1, 15)],
    ),
    "a child that overflows on both sides": (
        {"A": (None, 10, 30), "B": ("A", 5, 35)},
        [("B", 10, 30)],
    ),
    "a child that ends before its parent begins": (
        {"A": (None, 10, 30), "B": ("A", 1, 5)},
        [("A", 10, 30)],
    ),
}


@pytest.mark.parametrize("case", JAEGER_CASES)
def test_the_path_is_the_one_that_jaeger_draws(case: str) -> None:
    spans, expected = JAEGER_CASES[case]
    (trace,) = traces_of(
        build_span(
            name,
            span_id=ord(name),
            parent_id=ord(parent) if parent else None,
            start_time=start,
            end_time=end,
        )
        for name, (parent, start, end) in spans.items()
    )
    found = [(part.node.name, part.start, part.end) for part in critical_path(trace)]
    assert found == expected


def test_what_only_follows_is_not_waited_for_as_jaeger_has_it() -> None:
    """test5: in Jaeger's file a reference FOLLOWS_FROM, within the time of its parent."""
    span = {"traceID": "abc", "processID": "p1"}
    reference = {"refType": "FOLLOWS_FROM", "traceID": "abc", "spanID": "a"}
    document = {
        "spans": [
            span | {"spanID": "a", "operationName": "A", "startTime": 1, "duration": 30},
            span
            | {"spanID": "b", "operationName": "B", "startTime": 10, "duration": 10}
            | {"references": [reference]},
        ],
        "processes": {"p1": {"serviceName": "service-one"}},
    }
    content = io.BytesIO(json.dumps({"data": [document]}).encode())
    (trace,) = traces_of(TraceFile(content))
    found = [(part.node.name, part.start, part.end) for part in critical_path(trace)]
    assert found == [("A", 1000, 31_000)]
    assert trace.nodes[1].parent is trace.nodes[0]


def test_a_child_that_outlives_its_parent_has_only_what_was_waited_for() -> None:
    trace = trace_of(("a", 1, None, 0, 100), ("b", 2, 1, 20, 500))
    assert spent(by_service(trace)) == {"a": 20, "b": 80}


def test_a_child_that_begins_after_its_parent_has_its_own_time() -> None:
    trace = trace_of(("a", 1, None, 0, 100), ("b", 2, 1, 120, 500), ("c", 3, 2, 200, 300))
    assert spent(by_service(trace)) == {"a": 100, "b": 280, "c": 100}


def test_equal_steps_are_one_line_with_their_number() -> None:
    spans = [("a", 1, None, 0, 100), ("b", 2, 1, 0, 40), ("b", 3, 1, 50, 90)]
    trace = trace_of(*spans)
    (part,) = [part for part in by_service(trace) if part.service == "b"]
    assert (part.duration_ns, part.spans) == (80, 2)


@pytest.mark.parametrize("depth", [5_000])
def test_a_deep_trace_is_no_recursion(depth: int) -> None:
    spans = [("a", n + 1, n or None, n, 20_000 - n) for n in range(depth)]
    assert spent(by_service(trace_of(*spans)))["a"] == 20_000


@given(st.integers(0, 10_000), st.integers(1, 40))
def test_the_parts_add_up_to_the_duration_of_the_root(seed: int, count: int) -> None:
    made = random.Random(seed)
    spans: list[tuple[str, int, int | None, int, int]] = [("s0", 1, None, 0, 1000)]
    for number in range(2, count + 1):
        parent = made.choice(spans)
        start = made.randrange(parent[3], parent[4])
        end = start + made.randrange(1, 900)
        spans.append((f"s{made.randrange(4)}", number, parent[1], start, end))
    parts = by_step(trace_of(*spans))
    assert sum(part.duration_ns for part in parts) == 1000
    assert all(part.duration_ns >= 0 for part in parts)
