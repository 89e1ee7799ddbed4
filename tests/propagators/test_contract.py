"""What every propagator in the folder does, new ones included."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.context import Context, attach, detach, set_value
from opentelemetry.propagators.textmap import Getter, Setter, TextMapPropagator

from tracekit.propagators.baggage import BaggagePropagator

# Formats whose trace ids have 64 bits; they get one that fits.
ID_BITS = {"ottrace": 64}
GARBAGE = [
    "",
    " ",
    "garbage",
    "00-",
    "-",
    ":::",
    "::::",
    ";;;=;=",
    "Root=(;Parent=(;Sampled=(;[=",
    "0" * 16,
    "0" * 32,
    "0-0-0-0",
    "\u0661" * 20,
    "\ud800",
    "\x00",
    "99999999999999999999",
    "x" * 1_000_000,
    b"00-12345678901234567890123456789012-1234567890123456-01",
    7,
    3.5,
    [],
    [None],
    [b"1"],
    ["(", "1"],
    {"z": 1},
    object(),
]


class TupleGetter(Getter[list[tuple[str, Any]]]):
    """Reads a list of pairs without regard to case, as a header list of a server is read."""

    def get(self, carrier: list[tuple[str, Any]], key: str) -> list[Any] | None:
        return [v for k, v in carrier if k.lower() == key.lower()] or None

    def keys(self, carrier: list[tuple[str, Any]]) -> list[str]:
        return [key for key, _ in carrier]


class TupleSetter(Setter[list[tuple[str, str]]]):
    def set(self, carrier: list[tuple[str, str]], key: str, value: str) -> None:
        carrier.append((key, value))


class BrokenGetter(Getter[Any]):
    def get(self, carrier: Any, key: str) -> list[str] | None:
        raise RuntimeError("no headers today")

    def keys(self, carrier: Any) -> list[str]:
        raise RuntimeError("no headers today")


def trace_id_for(name: str, context_of: Any) -> tuple[int, Any]:
    trace_id = 0xA2345678901234567890123456789012 & (2 ** ID_BITS.get(name, 128) - 1)
    return trace_id, lambda flags: context_of(trace_id, 0xF234567890123456, flags)


def test_module_ends_with_a_plugin(format_name: str, propagator: Any) -> None:
    assert isinstance(propagator, TextMapPropagator)
    assert type(propagator).__name__.endswith("Propagator")


@pytest.mark.parametrize("sampled", [0, 1])
def test_span_context_comes_back(
    span_format_name: str, span_propagator: Any, context_of: Any, span_context_in: Any, sampled: int
) -> None:
    trace_id, make = trace_id_for(span_format_name, context_of)
    carrier: dict[str, str] = {}
    span_propagator.inject(carrier, make(sampled))
    found = span_context_in(span_propagator.extract(carrier))
    assert (found.trace_id, found.span_id, found.trace_flags) == (
        trace_id,
        0xF234567890123456,
        sampled,
    )
    assert found.is_remote


def test_baggage_comes_back() -> None:
    propagator = BaggagePropagator()
    carrier: dict[str, str] = {}
    propagator.inject(carrier, baggage.set_baggage("key", "väl ue", Context()))
    assert baggage.get_all(propagator.extract(carrier, Context())) == {"key": "väl ue"}


def test_custom_getter_and_setter_are_used(
    span_format_name: str, span_propagator: Any, context_of: Any, span_context_in: Any
) -> None:
    trace_id, make = trace_id_for(span_format_name, context_of)
    carrier: list[tuple[str, str]] = []
    span_propagator.inject(carrier, make(1), TupleSetter())
    shouted = [(name.upper(), value) for name, value in carrier]
    found = span_context_in(span_propagator.extract(shouted, None, TupleGetter()))
    assert found.trace_id == trace_id


def test_fields_name_what_inject_writes(
    span_format_name: str, span_propagator: Any, context_of: Any
) -> None:
    carrier: dict[str, str] = {}
    span_propagator.inject(carrier, trace_id_for(span_format_name, context_of)[1](1))
    assert carrier
    assert set(carrier) <= span_propagator.fields


def test_empty_carrier_leaves_the_context_as_it_is(propagator: Any) -> None:
    context = set_value("key", "value", Context())
    assert propagator.extract({}, context) is context


def test_missing_context_and_empty_carrier_give_a_context(propagator: Any) -> None:
    assert propagator.extract({}) == Context()


@pytest.mark.parametrize(
    "value", GARBAGE, ids=lambda value: repr(value).partition(" at 0x")[0][:30]
)
def test_garbage_leaves_the_context_as_it_is(propagator: Any, value: Any) -> None:
    context = set_value("key", "value", Context())
    carrier = dict.fromkeys(propagator.fields | {"uberctx-", "ot-baggage-", "b3"}, value)
    assert propagator.extract(carrier, context) is context
    pairs = list(carrier.items())
    assert propagator.extract(pairs, context, TupleGetter()) is context


@pytest.mark.parametrize("carrier", [None, 1, "text", object(), [("traceparent", "x")]])
def test_something_that_is_no_carrier_is_not_an_error(propagator: Any, carrier: Any) -> None:
    context = Context()
    assert propagator.extract(carrier, context) is context


def test_failing_getter_is_not_an_error(propagator: Any) -> None:
    context = Context()
    assert propagator.extract({}, context, BrokenGetter()) is context


@pytest.mark.parametrize(
    "span_context",
    [
        trace.INVALID_SPAN_CONTEXT,
        trace.SpanContext(1, 0, False),
        trace.SpanContext(0, 1, False),
        trace.SpanContext(2**128, 1, False),
        trace.SpanContext(-1, 1, False),
    ],
    ids=str,
)
def test_invalid_span_context_is_not_injected(propagator: Any, span_context: Any) -> None:
    carrier: dict[str, str] = {}
    span = trace.NonRecordingSpan(span_context)
    propagator.inject(carrier, trace.set_span_in_context(span, Context()))
    assert carrier == {}


def test_context_without_span_injects_nothing(propagator: Any) -> None:
    carrier: dict[str, str] = {}
    propagator.inject(carrier, Context())
    assert carrier == {}


def test_current_context_is_injected_by_default(
    span_format_name: str, span_propagator: Any, context_of: Any
) -> None:
    context = trace_id_for(span_format_name, context_of)[1](1)
    given_explicitly: dict[str, str] = {}
    span_propagator.inject(given_explicitly, context)
    taken_from_current: dict[str, str] = {}
    token = attach(context)
    try:
        span_propagator.inject(taken_from_current)
    finally:
        detach(token)
    assert taken_from_current == given_explicitly


def test_given_context_is_kept_beside_what_was_found(
    span_format_name: str, span_propagator: Any, context_of: Any
) -> None:
    carrier: dict[str, str] = {}
    span_propagator.inject(carrier, trace_id_for(span_format_name, context_of)[1](1))
    given_context = set_value("key", "value", Context())
    assert span_propagator.extract(carrier, given_context)["key"] == "value"
    assert given_context == {"key": "value"}


def test_refusals_are_counted_by_a_bounded_set_of_reasons(propagator: Any) -> None:
    for number in range(200):
        for field in propagator.fields:
            propagator.extract({field: f"garbage-{number}"}, Context())
    assert sum(propagator.refused.values()) >= 200
    assert len(propagator.refused) < 20


header_values = st.one_of(
    st.text(),
    st.text(alphabet="0123456789abcdef-:;=,%_ \t@", max_size=80),
    st.binary(),
    st.none(),
    st.integers(),
    st.floats(),
    st.lists(st.one_of(st.text(), st.binary(), st.none()), max_size=3),
)


@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None
)
@given(data=st.data())
def test_whatever_comes_in_never_raises_and_never_gives_an_invalid_parent(
    propagator: Any, span_context_in: Any, data: st.DataObject
) -> None:
    names = sorted(propagator.fields)
    carrier = {name: data.draw(header_values) for name in names}
    context = Context()
    found = propagator.extract(carrier, context)
    if trace.get_current_span(found) is not trace.INVALID_SPAN:
        span_context = span_context_in(found)
        assert span_context.is_valid
        assert span_context.is_remote
        assert int(span_context.trace_flags) in range(4)
        span_context.trace_state.to_header().encode("ascii")
    carried: dict[str, str] = {}
    propagator.inject(carried, found)
    for value in carried.values():
        assert len(value.encode("ascii")) <= 8192
