"""Scopes restore only what they set, wherever and in whatever order they are left."""

from __future__ import annotations

import asyncio
import contextvars
import logging

import pytest
from opentelemetry import baggage, trace
from opentelemetry import context as context_api

import tracekit
from tracekit.testing import capture_spans


@pytest.fixture
def exporter():
    with capture_spans() as exporter:
        yield exporter


def current():
    return tracekit.current_span()


def by_name(exporter):
    return {span.name: span for span in exporter.get_finished_spans()}


def test_nothing_is_current_after_the_block(exporter):
    with tracekit.span("a"), tracekit.span("b") as inner:
        assert current() is inner
    assert current() is trace.INVALID_SPAN


def test_scopes_left_in_the_wrong_order_leave_nothing_behind(exporter):
    outer, inner = tracekit.span("outer"), tracekit.span("inner")
    outer.__enter__()
    inner_span = inner.__enter__()
    outer.__exit__(None, None, None)
    assert current() is inner_span
    inner.__exit__(None, None, None)
    assert current() is trace.INVALID_SPAN
    spans = by_name(exporter)
    assert spans["inner"].parent.span_id == spans["outer"].context.span_id


def test_three_scopes_left_in_any_order_leave_nothing_behind(exporter):
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
        scopes = [tracekit.span(str(number)) for number in range(3)]
        for scope in scopes:
            scope.__enter__()
        for number in order:
            scopes[number].__exit__(None, None, None)
        assert current() is trace.INVALID_SPAN, order


def test_scope_left_in_another_context_is_quiet_and_counted(exporter, caplog):
    scope = tracekit.span("a")
    contextvars.copy_context().run(scope.__enter__)
    with caplog.at_level(logging.DEBUG):
        scope.__exit__(None, None, None)
    assert caplog.records == []
    assert [span.name for span in exporter.get_finished_spans()] == ["a"]
    assert tracekit.stats()["foreign_scope_exits"] == 1


def test_scope_entered_here_and_left_in_a_copy_of_the_context_ends_the_span(exporter):
    scope = tracekit.span("a")
    scope.__enter__()
    copy = contextvars.copy_context()
    copy.run(scope.__exit__, None, None, None)
    assert copy.run(current) is trace.INVALID_SPAN
    assert [span.name for span in exporter.get_finished_spans()] == ["a"]
    context_api.attach(context_api.Context())


def test_baggage_attached_inside_is_gone_with_the_scope(exporter):
    with tracekit.span("a"):
        context_api.attach(baggage.set_baggage("k", "v"))
        assert baggage.get_baggage("k") == "v"
    assert baggage.get_baggage("k") is None


def test_baggage_attached_outside_stays_visible_inside(exporter):
    token = context_api.attach(baggage.set_baggage("k", "v"))
    with tracekit.span("a"), tracekit.span("b"):
        assert baggage.get_baggage("k") == "v"
    context_api.detach(token)
    assert by_name(exporter)["b"].parent is not None


def test_attributes_are_inherited_by_spans_below_and_by_no_others(exporter):
    with (
        tracekit.attributes(tenant="acme", tier=1),
        tracekit.span("a", tier=2),
        tracekit.attributes(user=7),
        tracekit.span("b"),
    ):
        pass
    with tracekit.span("c"):
        pass
    attributes = {name: dict(span.attributes) for name, span in by_name(exporter).items()}
    assert attributes == {
        "a": {"tenant": "acme", "tier": 2},
        "b": {"tenant": "acme", "tier": 1, "user": 7},
        "c": {},
    }


def test_tasks_under_gather_are_siblings(exporter):
    async def work(name):
        with tracekit.span(name):
            await asyncio.sleep(0)

    async def main():
        with tracekit.span("root"):
            await asyncio.gather(*(work(str(number)) for number in range(20)))

    asyncio.run(main())
    spans = by_name(exporter)
    root = spans.pop("root")
    assert {span.parent.span_id for span in spans.values()} == {root.context.span_id}


def test_continue_trace_makes_children_of_the_remote_span(exporter):
    with tracekit.span("here"):
        headers = tracekit.inject({})
    with tracekit.continue_trace(headers), tracekit.span("there"):
        pass
    spans = by_name(exporter)
    assert spans["there"].context.trace_id == spans["here"].context.trace_id
    assert spans["there"].parent.span_id == spans["here"].context.span_id
    assert spans["there"].parent.is_remote
    assert current() is trace.INVALID_SPAN


def test_extract_reads_a_context_that_a_span_can_be_given(exporter):
    with tracekit.span("here"):
        headers = tracekit.inject({})
    with tracekit.span("there", context=tracekit.extract(headers)):
        pass
    spans = by_name(exporter)
    assert spans["there"].parent.span_id == spans["here"].context.span_id


def test_a_million_generations_do_not_keep_their_ancestors(exporter):
    import gc
    import weakref

    first = tracekit.span("0")
    first.__enter__()
    reference = weakref.ref(first)
    scopes = [first]
    for number in range(50):
        scope = tracekit.span(str(number))
        scope.__enter__()
        scopes.append(scope)
    for scope in reversed(scopes):
        scope.__exit__(None, None, None)
    last = scopes[-1]
    exporter.clear()
    scopes.clear()
    del first, scope
    gc.collect()
    assert reference() is None
    assert last.parent_span_id != 0
