"""Context and baggage, which our spans live in: https://opentelemetry.io/docs/specs/otel/context/."""

from __future__ import annotations

import threading

import pytest
from opentelemetry import baggage, context
from opentelemetry.context import Context
from opentelemetry.trace import Tracer

from tracekit.propagators.baggage import BaggagePropagator


def test_a_context_does_not_change(tracer: Tracer) -> None:
    """A Context is immutable: writing makes a new one with the old values and the new.

    https://opentelemetry.io/docs/specs/otel/context/#overview
    """
    before = context.set_value("key", 1, Context())
    after = context.set_value("other", 2, before)
    assert (dict(before), dict(after)) == ({"key": 1}, {"key": 1, "other": 2})
    with pytest.raises(ValueError):  # noqa: PT011 -- the API's own, without a text
        before["key"] = 2
    token = context.attach(before)
    with tracer.start_as_current_span("a"):
        assert context.get_current() is not before
    context.detach(token)
    assert before == {"key": 1}


def test_keys_of_one_name_are_two_keys() -> None:
    """The name of a key is for debugging; two keys of the same name are different.

    https://opentelemetry.io/docs/specs/otel/context/#create-a-key
    """
    assert context.create_key("name") != context.create_key("name")


def test_values_are_read_with_their_key() -> None:
    """The value for the specified key is returned.

    https://opentelemetry.io/docs/specs/otel/context/#get-value
    """
    key = context.create_key("name")
    assert context.get_value(key, context.set_value(key, 1, Context())) == 1


def test_our_spans_keep_the_values_of_the_current_context(tracer: Tracer) -> None:
    """Making a span active adds it to the current values.

    https://opentelemetry.io/docs/specs/otel/trace/api/#context-interaction
    """
    key = context.create_key("name")
    token = context.attach(context.set_value(key, 1))
    try:
        with tracer.start_as_current_span("a"):
            assert context.get_value(key) == 1
    finally:
        context.detach(token)


def test_attach_returns_what_restores_the_context_before(tracer: Tracer) -> None:
    """Attach returns a token, with which Detach restores the previous context.

    https://opentelemetry.io/docs/specs/otel/context/#detach-context
    """
    before = context.get_current()
    with tracer.start_as_current_span("a"):
        inside = context.get_current()
        token = context.attach(Context({"key": 1}))
        assert context.get_current() == {"key": 1}
        context.detach(token)
        assert context.get_current() == inside
    assert context.get_current() == before


def test_the_current_context_is_that_of_the_callers_execution_unit(tracer: Tracer) -> None:
    """The current context belongs to the caller's thread.

    https://opentelemetry.io/docs/specs/otel/context/#get-current-context
    """
    seen: list[Context] = []
    with tracer.start_as_current_span("a"):
        plain = threading.Thread(target=lambda: seen.append(context.get_current()))
        plain.start()
        plain.join()
    assert seen == [{}]


def test_detaching_out_of_order_does_no_harm(tracer: Tracer) -> None:
    """A wrong order of detaching may be told of; it is no error of the program.

    https://opentelemetry.io/docs/specs/otel/context/#detach-context
    """
    outer = tracer.start_as_current_span("outer")
    inner = tracer.start_as_current_span("inner")
    outer.__enter__()
    inner.__enter__()
    outer.__exit__(None, None, None)
    inner.__exit__(None, None, None)


# Baggage: https://opentelemetry.io/docs/specs/otel/baggage/api/ ----------------------------


def sent_with(held: Context) -> dict[str, str]:
    carrier: dict[str, str] = {}
    BaggagePropagator().inject(carrier, held)
    return carrier


def received_from(carrier: dict[str, str]) -> Context:
    return BaggagePropagator().extract(carrier, Context())


def test_each_name_has_one_value_and_the_last_wins() -> None:
    """A name has exactly one value; a new pair takes precedence over the old one.

    https://opentelemetry.io/docs/specs/otel/baggage/api/#conflict-resolution
    """
    held = baggage.set_baggage("a", "2", baggage.set_baggage("a", "1", Context()))
    assert baggage.get_all(held) == {"a": "2"}
    received = BaggagePropagator().extract({"baggage": "a=3,a=4"}, held)
    assert baggage.get_all(received) == {"a": "4"}


@pytest.mark.parametrize("value", ["B% 💼", "", ' ",;\\', "ä" * 100])
def test_any_text_is_a_value_and_survives_the_wire(value: str) -> None:
    """Any valid UTF-8 string is accepted as a value, and is the same when it is read.

    https://opentelemetry.io/docs/specs/otel/baggage/api/#overview
    """
    held = baggage.set_baggage("a", value, Context())
    assert baggage.get_baggage("a", held) == value
    assert baggage.get_baggage("a", received_from(sent_with(held))) == value


def test_names_and_values_are_case_sensitive() -> None:
    """Names and values are case sensitive.

    https://opentelemetry.io/docs/specs/otel/baggage/api/#overview
    """
    held = baggage.set_baggage("A", "c", baggage.set_baggage("a", "B", Context()))
    received = received_from(sent_with(held))
    assert baggage.get_all(received) == {"a": "B", "A": "c"}


def test_entries_can_be_read_removed_and_cleared() -> None:
    """Get returns null for a name that is not there; entries can be removed, and all of them.

    https://opentelemetry.io/docs/specs/otel/baggage/api/#operations
    """
    held = baggage.set_baggage("b", "2", baggage.set_baggage("a", "1", Context()))
    assert baggage.get_baggage("c", held) is None
    assert baggage.get_all(baggage.remove_baggage("a", held)) == {"b": "2"}
    assert sent_with(baggage.clear(held)) == {}


def test_baggage_works_without_an_sdk() -> None:
    """The baggage API is fully functional in the absence of an installed SDK.

    https://opentelemetry.io/docs/specs/otel/baggage/api/#overview
    """
    headers = sent_with(baggage.set_baggage("a", "1", Context()))
    assert baggage.get_all(received_from(headers)) == {"a": "1"}


def test_a_baggage_container_does_not_change() -> None:
    """The baggage container is immutable.

    https://opentelemetry.io/docs/specs/otel/baggage/api/#overview
    """
    received = received_from({"baggage": "a=1"})
    baggage.set_baggage("a", "2", received)
    with pytest.raises(TypeError):
        baggage.get_all(received)["a"] = "3"  # type: ignore[index]
    assert baggage.get_all(received) == {"a": "1"}
