"""A context that holds an operation says what any other would, and is asked less."""

from __future__ import annotations

from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import INVALID_SPAN, NonRecordingSpan, SpanContext

from tracekit._otel_context import NO_CONTEXT, SPAN_KEY, attach, current_context, detach
from tracekit.instrumentation._operation import (
    OnlyOperation,
    Operation,
    is_spoken_for,
    under_way,
)


def _operation(parent: Context | None = None) -> Operation:
    return Operation(NonRecordingSpan(SpanContext(1, 2, False)), "redis", parent or NO_CONTEXT)


def test_its_span_is_the_current_one_for_everybody() -> None:
    operation = _operation()
    assert trace.get_current_span() is operation.span
    operation.succeed()
    assert trace.get_current_span() is INVALID_SPAN


def test_it_reads_like_a_dictionary_of_both() -> None:
    operation = _operation()
    context: Any = current_context()
    assert type(context) is OnlyOperation
    assert len(context) == 2
    assert SPAN_KEY in context
    assert "another" not in context
    assert context.get("another", 7) == 7
    assert context.copy() == {**context} == dict(context.items())
    assert set(context.copy().values()) == {operation.span, operation}
    operation.succeed()


def test_what_the_context_held_before_stays_in_it() -> None:
    operation = _operation(Context({"tenant": "acme"}))
    assert current_context().get("tenant") == "acme"
    operation.succeed()


def test_what_runs_inside_of_it_is_part_of_it_until_it_has_ended() -> None:
    operation = _operation()
    inside = current_context()
    assert is_spoken_for(inside, "redis")
    assert not is_spoken_for(inside, "postgresql")
    assert under_way("redis") is operation
    operation.succeed()
    # A thread or task may have copied the context meanwhile.
    token = attach(inside)
    try:
        assert not is_spoken_for(inside, "redis")
        assert under_way("redis") is None
    finally:
        detach(token)
