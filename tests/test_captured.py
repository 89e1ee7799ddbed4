"""Assertions about spans: what they find, and what they say when they do not."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace import SpanKind

import tracekit
from tracekit.captured import CapturedSpans, Recording
from tracekit.configure import configure
from tracekit.errors import UnknownNameError


@pytest.fixture
def recording() -> Recording:
    recording = Recording()
    configure("shop", exporters="none", processors=[recording])
    return recording


@pytest.fixture
def spans(recording: Recording) -> CapturedSpans:
    with tracekit.span("checkout"):
        with tracekit.span("pay", amount=5, tags=["a", "b"]):
            pass
        with tracekit.span("mail"):
            pass
        with pytest.raises(OSError, match="full"), tracekit.span("pay", amount=7):
            raise OSError("disk full")
    return CapturedSpans(recording)


def said(assertion: Any, *args: Any, **kwargs: Any) -> str:
    with pytest.raises(AssertionError) as caught:
        assertion(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("conditions", "count"),
    [
        ({"name": "pay"}, 2),
        ({"name": re.compile("^p")}, 2),
        ({"name": lambda name: len(name) == 4}, 1),
        ({"status": "error"}, 1),
        ({"kind": "internal"}, 4),
        ({"kind": "server"}, 0),
        ({"parent": None}, 1),
        ({"parent": "checkout"}, 3),
        ({"service": "shop"}, 4),
        ({"service": "other"}, 0),
        ({"amount": 5}, 1),
        ({"attributes": {"amount": 5}, "tags": ("a", "b")}, 1),
        ({"tags": ["a", "b"]}, 1),
        ({}, 4),
    ],
)
def test_all_returns_the_spans_that_meet_every_condition(
    spans: CapturedSpans, conditions: dict[str, Any], count: int
) -> None:
    assert len(spans.all(**conditions, count=count)) == count


def test_spans_are_in_the_order_of_their_starts(spans: CapturedSpans) -> None:
    assert [span.name for span in spans] == ["checkout", "pay", "mail", "pay"]
    assert spans[0].name == "checkout"
    assert len(spans) == 4


def test_one_returns_the_only_one(spans: CapturedSpans) -> None:
    assert spans.one("pay", status="error").attributes["amount"] == 7


def test_one_says_what_comes_closest(spans: CapturedSpans) -> None:
    text = said(spans.one, "pay", amount=6, parent="checkout")
    assert text.splitlines()[:3] == [
        "expected one span with name='pay', parent='checkout', amount=6, found none",
        "closest: 'pay' has amount=5",
        "closest: 'pay' has amount=7",
    ]
    assert "captured 4 spans:\n  checkout\n    pay  amount=5" in text


def test_one_of_several_marks_them(spans: CapturedSpans) -> None:
    text = said(spans.one, "pay")
    assert text.startswith("expected one span with name='pay', found 2\n")
    assert text.count("<--") == 2


def test_nothing_captured_is_said(recording: Recording) -> None:
    text = said(CapturedSpans(recording).one, "pay")
    assert text.endswith("found none\nno span was captured")


def test_a_span_that_has_not_ended_is_pointed_out(recording: Recording) -> None:
    with tracekit.span("slow"):
        assert said(CapturedSpans(recording).one, "slow").endswith("not ended yet: 'slow'")


def test_none_shows_what_there_should_not_be(spans: CapturedSpans) -> None:
    spans.none("refund")
    assert "pay  ERROR  amount=7  <--" in said(spans.none, status="error")


def test_a_count_that_differs_is_said(spans: CapturedSpans) -> None:
    assert said(spans.all, "pay", count=3).startswith("expected 3 spans with name='pay', found 2")


def test_an_unknown_kind_is_an_error_that_says_which_there_are(spans: CapturedSpans) -> None:
    with pytest.raises(ValueError, match="expected one of INTERNAL, SERVER"):
        spans.one(kind="srever")


def test_the_tree_is_compared_by_names_and_indentation(spans: CapturedSpans) -> None:
    spans.assert_tree(
        """
        checkout
            pay
            mail
            pay
        """
    )
    assert spans.tree() == "checkout\n  pay\n  mail\n  pay"


def test_a_tree_that_differs_is_shown_line_by_line(spans: CapturedSpans) -> None:
    text = said(spans.assert_tree, "checkout\n  pay\n  refund\n  pay\n")
    assert text.splitlines() == [
        "the spans are not those expected (-), but these (+):",
        "  checkout",
        "    pay",
        "-   refund",
        "+   mail",
        "    pay",
    ]


def test_siblings_may_come_in_any_order_when_that_is_said(spans: CapturedSpans) -> None:
    spans.assert_tree("checkout\n  mail\n  pay\n  pay", ordered=False)
    said(spans.assert_tree, "checkout\n  mail\n  pay\n  pay")
    said(spans.assert_tree, "checkout\n  mail\n    pay\n  pay", ordered=False)


def test_a_parent_is_checked_by_name_or_span(spans: CapturedSpans) -> None:
    spans.assert_parent("mail", "checkout")
    spans.assert_parent(spans[1], spans[0])
    text = said(spans.assert_parent, "checkout", "mail")
    assert text.startswith("'checkout' is not a child of 'mail': it has no parent here")
    text = said(spans.assert_parent, spans[1], "mail")
    assert text.startswith("'pay' is not a child of 'mail': its parent is 'checkout'")


def test_relations_can_be_asked_for(spans: CapturedSpans) -> None:
    (root,) = spans.roots()
    assert [span.name for span in spans.children("checkout")] == ["pay", "mail", "pay"]
    assert spans.parent_of(spans[2]) is root


def test_what_was_captured_can_be_forgotten(spans: CapturedSpans) -> None:
    spans.clear()
    assert len(spans) == 0


def test_a_span_with_a_parent_elsewhere_is_a_root_here(recording: Recording) -> None:
    headers = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with tracekit.continue_trace(headers), tracekit.span("served"):
        pass
    assert CapturedSpans(recording).one(parent=None).name == "served"


def test_many_spans_make_a_message_that_can_be_read(recording: Recording) -> None:
    for number in range(2000):
        with tracekit.span("step", number=number):
            pass
    text = said(CapturedSpans(recording).one, "other")
    assert text.splitlines()[-1] == "  and 1950 more"


def test_a_deep_trace_is_no_deep_recursion(recording: Recording) -> None:
    def deeper(levels: int) -> None:
        with tracekit.span("level"):
            if levels:
                deeper(levels - 1)

    deeper(300)
    spans = CapturedSpans(recording)
    assert spans.tree().splitlines()[-1] == "  " * 300 + "level"
    spans.assert_tree(spans.tree())


def asked(times: int = 8) -> None:
    query = {
        "db.system.name": "sqlite",
        "db.query.text": "SELECT name FROM users WHERE id = 7",
        "db.query.summary": "SELECT users",
    }
    with tracekit.span("page"):
        for _ in range(times):
            with tracekit.span("SELECT users", kind=SpanKind.CLIENT, **query):
                time.sleep(0.001)


def test_findings_are_those_of_the_spans(recording: Recording) -> None:
    asked()
    spans = CapturedSpans(recording)
    (found,) = spans.findings("redundant_calls")
    assert found.kind == "redundant_calls"
    assert len(found.spans) == 8
    assert found in spans.findings()
    assert spans.findings("timeouts", "retries") == []


def test_a_finding_fails_with_what_it_says_and_marks_its_spans(recording: Recording) -> None:
    asked()
    text = said(CapturedSpans(recording).assert_no_findings, "redundant_calls", "retries")
    lines = text.splitlines()
    assert lines[0] == "expected no findings of redundant_calls, retries, found 1"
    assert lines[1].startswith("redundant_calls: ")
    assert "SELECT users was asked 8 times by shop" in lines[1]
    assert lines[2].startswith("  do: ")
    assert "captured 9 spans:" in lines
    assert text.count("<--") == 8


def test_where_nothing_is_wrong_nothing_is_said(recording: Recording) -> None:
    asked(times=1)
    spans = CapturedSpans(recording)
    spans.assert_no_findings("redundant_calls", "n_plus_one", "broken_propagation")


def test_findings_see_what_has_not_ended(recording: Recording) -> None:
    with tracekit.span("request"):
        asked()
        spans = CapturedSpans(recording)
        spans.assert_no_findings("broken_propagation")
        assert spans.findings("redundant_calls")


def test_the_span_of_the_test_itself_is_not_missed(recording: Recording) -> None:
    own = trace.get_tracer("tests of mine")
    with own.start_as_current_span("test"):
        asked()
        asked()
        spans = CapturedSpans(recording, "tests of mine")
        spans.assert_no_findings("broken_propagation")
    spans.assert_no_findings("broken_propagation")
    assert spans.findings("redundant_calls")


def test_a_kind_that_does_not_exist_is_refused(spans: CapturedSpans) -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'retries'"):
        spans.assert_no_findings("retry")
