"""What every file of ``findings/`` promises, new ones included."""

from __future__ import annotations

import dataclasses

import pytest

from findings.made import FAULTS, NOISES, faulty, healthy
from tracekit import discovery
from tracekit.findings import find_all, kinds
from tracekit.model import Severity
from tracekit.trace import traces_of

every_kind = pytest.mark.parametrize("kind", kinds())


def found_by(kind: str, spans):
    (trace,) = traces_of(spans)
    return list(discovery.find("finding", kind)(trace, {}))


@every_kind
def test_a_finding_has_a_fault_that_it_is_tried_on(kind: str) -> None:
    assert [name for name, (_, expected) in FAULTS.items() if kind in expected]


@every_kind
def test_a_finding_says_all_that_a_person_needs(kind: str) -> None:
    name = next(name for name, (_, expected) in FAULTS.items() if kind in expected)
    spans = faulty(name, 2, NOISES["none"], 3)
    ids = {span.context.span_id for span in spans}
    for found in found_by(kind, spans):
        assert found.kind == kind
        assert isinstance(found.severity, Severity)
        assert found.message[0].isalnum()
        assert not found.message.endswith(".")
        assert found.advice.endswith(".")
        assert found.spans
        assert set(found.spans) <= ids
        assert found.service == "orders" or found.service
        assert found.trace_id == spans[0].context.trace_id
        assert dataclasses.is_dataclass(found)


@every_kind
def test_a_finding_changes_nothing_of_the_trace(kind: str) -> None:
    (trace,) = traces_of(faulty("retried_in_two_layers", 2, NOISES["interleaved"], 3))
    before = [(node.start, node.end, len(node.children), node.note) for node in trace.nodes]
    first = list(discovery.find("finding", kind)(trace, {}))
    again = list(discovery.find("finding", kind)(trace, {}))
    assert first == again
    assert before == [(node.start, node.end, len(node.children), node.note) for node in trace.nodes]


def test_an_order_of_spans_makes_no_difference() -> None:
    spans = faulty("same_row_by_three", 3, NOISES["interleaved"], 9)
    (one,), (other,) = traces_of(spans), traces_of(reversed(spans))
    assert [item.message for item in find_all(one)] == [item.message for item in find_all(other)]


def test_a_healthy_trace_has_none() -> None:
    (trace,) = traces_of(healthy(5))
    assert find_all(trace) == []
