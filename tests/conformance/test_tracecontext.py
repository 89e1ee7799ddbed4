"""W3C Trace Context Level 2, clause by clause: https://www.w3.org/TR/trace-context-2/."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)

from tracekit.propagators.tracecontext import TraceContextPropagator

TRACE = "0af7651916cd43dd8448eb211c80319c"
SPAN = "b7ad6b7169203331"
PARENT = f"00-{TRACE}-{SPAN}-01"


class AnyCase(Getter[list[tuple[str, str]]]):
    def get(self, carrier: list[tuple[str, str]], key: str) -> list[str] | None:
        return [value for name, value in carrier if name.lower() == key] or None

    def keys(self, carrier: list[tuple[str, str]]) -> list[str]:
        return [name for name, _ in carrier]


def received(traceparent: Any, tracestate: Any = None) -> SpanContext:
    carrier = {"traceparent": traceparent}
    if tracestate is not None:
        carrier["tracestate"] = tracestate
    context = TraceContextPropagator().extract(carrier, Context())
    return get_current_span(context).get_span_context()


def sent(span_context: SpanContext) -> dict[str, str]:
    carrier: dict[str, str] = {}
    context = set_span_in_context(NonRecordingSpan(span_context), Context())
    TraceContextPropagator().inject(carrier, context)
    return carrier


@pytest.mark.parametrize("name", ["traceparent", "TraceParent", "TrAcEpArEnT", "TRACEPARENT"])
def test_traceparent_name_is_expected_in_any_case(name: str) -> None:
    """The header's name must be understood in upper, lower and mixed case.

    https://www.w3.org/TR/trace-context-2/#header-name
    """
    context = TraceContextPropagator().extract([(name, PARENT)], Context(), AnyCase())
    assert get_current_span(context).get_span_context().is_valid


@pytest.mark.parametrize("name", ["tracestate", "TraceState", "TRACESTATE"])
def test_tracestate_name_is_expected_in_any_case(name: str) -> None:
    """The same holds for the name of tracestate.

    https://www.w3.org/TR/trace-context-2/#header-name-0
    """
    carrier = [("traceparent", PARENT), (name, "a=1")]
    context = TraceContextPropagator().extract(carrier, Context(), AnyCase())
    assert get_current_span(context).get_span_context().trace_state["a"] == "1"


def test_names_are_sent_in_lower_case() -> None:
    """Both names should be sent in lower case.

    https://www.w3.org/TR/trace-context-2/#header-name
    """
    assert set(sent(received(PARENT, "a=1"))) == {"traceparent", "tracestate"}


def test_version_ff_is_forbidden() -> None:
    """Version ff is invalid.

    https://www.w3.org/TR/trace-context-2/#version
    """
    assert not received(f"ff-{TRACE}-{SPAN}-01").is_valid


@pytest.mark.parametrize("trace_id", ["0" * 32, TRACE.upper(), TRACE[:-1] + "g", TRACE[:-1]])
def test_invalid_trace_id_means_no_traceparent(trace_id: str) -> None:
    """With a trace-id of zeros or of other than lower-case hex, traceparent must be ignored.

    https://www.w3.org/TR/trace-context-2/#trace-id
    """
    assert not received(f"00-{trace_id}-{SPAN}-01").is_valid


@pytest.mark.parametrize("parent_id", ["0" * 16, SPAN.upper(), SPAN[:-1] + "g", SPAN[:-1]])
def test_invalid_parent_id_means_no_traceparent(parent_id: str) -> None:
    """With a parent-id of zeros or of other than lower-case hex, traceparent must be ignored.

    https://www.w3.org/TR/trace-context-2/#parent-id
    """
    assert not received(f"00-{TRACE}-{parent_id}-01").is_valid


@pytest.mark.parametrize(("flags", "kept"), [("00", 0), ("01", 1), ("02", 2), ("03", 3)])
def test_sampled_and_random_are_carried_unchanged(flags: str, kept: int) -> None:
    """The random flag of a trace must be passed on as it came; sampled is a bit of its own.

    https://www.w3.org/TR/trace-context-2/#random-trace-id-flag
    """
    span_context = received(f"00-{TRACE}-{SPAN}-{flags}")
    assert span_context.trace_flags == kept
    assert sent(span_context)["traceparent"].endswith(f"-{flags}")


@pytest.mark.parametrize("flags", ["04", "08", "fc"])
def test_other_flags_are_sent_as_zero(flags: str) -> None:
    """Flags that this version does not define must be set to zero.

    https://www.w3.org/TR/trace-context-2/#other-flags
    """
    assert sent(received(f"00-{TRACE}-{SPAN}-{flags}"))["traceparent"].endswith("-00")
    own = SpanContext(1, 2, False, TraceFlags(int(flags, 16)))
    assert sent(own)["traceparent"].endswith("-00")


def test_version_00_ends_after_its_flags() -> None:
    """Only a higher version may have more than four fields.

    https://www.w3.org/TR/trace-context-2/#version-format
    """
    assert not received(f"{PARENT}-more").is_valid


@pytest.mark.parametrize(
    ("header", "valid"),
    [
        (f"01-{TRACE}-{SPAN}-01", True),
        (f"01-{TRACE}-{SPAN}-01-more", True),
        (f"01-{TRACE}-{SPAN}-01more", False),
        (f"01-{TRACE}-{SPAN}-0", False),
        (f"01-{TRACE}_{SPAN}-01", False),
        (f"01-{TRACE}-{SPAN}_01", False),
        (f"01-{TRACE[:-1]}g-{SPAN}-01", False),
        (f"0g-{TRACE}-{SPAN}-01", False),
    ],
)
def test_higher_version_is_parsed_by_the_fields_we_know(header: str, valid: bool) -> None:
    """Ids must be hex and followed by a dash, flags by a dash or the end; else a new trace.

    https://www.w3.org/TR/trace-context-2/#versioning-of-traceparent
    """
    assert received(header).is_valid is valid


def test_what_is_sent_has_the_highest_version_we_know() -> None:
    """The known fields of a higher version must be sent on as version 00.

    https://www.w3.org/TR/trace-context-2/#versioning-of-traceparent
    """
    assert sent(received(f"cc-{TRACE}-{SPAN}-01-more"))["traceparent"] == PARENT


def test_two_traceparents_are_none() -> None:
    """A field that is no list must not come twice (RFC 9110, 5.3); the trace is restarted.

    https://www.w3.org/TR/trace-context-2/#a-traceparent-is-received
    """
    assert not received([PARENT, PARENT]).is_valid


def test_tracestate_is_not_read_after_a_bad_traceparent() -> None:
    """When traceparent cannot be parsed, tracestate must not be.

    https://www.w3.org/TR/trace-context-2/#tracestate-header
    """
    propagator = TraceContextPropagator()
    context = Context()
    carrier = {"traceparent": "bad", "tracestate": "BAD"}
    assert propagator.extract(carrier, context) is context
    assert propagator.refused == {"traceparent_version": 1}


def test_bad_tracestate_leaves_traceparent_valid() -> None:
    """A failure to parse tracestate must not affect traceparent.

    https://www.w3.org/TR/trace-context-2/#tracestate-header
    """
    span_context = received(PARENT, "BAD")
    assert span_context.is_valid
    assert len(span_context.trace_state) == 0


def test_several_tracestate_fields_are_combined_in_order() -> None:
    """Several tracestate fields must be joined in the order in which they came.

    https://www.w3.org/TR/trace-context-2/#tracestate-header-field-values
    """
    assert received(PARENT, ["a=1,b=2", "c=3"]).trace_state.to_header() == "a=1,b=2,c=3"


@pytest.mark.parametrize("header", ["", " ", ",", " ,\t, "])
def test_empty_tracestate_is_accepted(header: str) -> None:
    """Empty tracestate headers and empty members must be accepted; none should be sent.

    https://www.w3.org/TR/trace-context-2/#tracestate-header-field-values
    """
    propagator = TraceContextPropagator()
    context = propagator.extract({"traceparent": PARENT, "tracestate": header})
    carrier: dict[str, str] = {}
    propagator.inject(carrier, context)
    assert carrier == {"traceparent": PARENT}
    assert propagator.refused == {}


@pytest.mark.parametrize("count", [32, 33])
def test_at_most_32_members(count: int) -> None:
    """A list has at most 32 members.

    https://www.w3.org/TR/trace-context-2/#tracestate-header-field-values
    """
    state = received(PARENT, ",".join(f"k{n}=1" for n in range(count))).trace_state
    assert len(state) == (32 if count == 32 else 0)


@pytest.mark.parametrize(
    ("key", "valid"),
    [
        ("a", True),
        ("0", True),
        ("0tenant@system", True),
        ("a_-*/@9", True),
        ("a@b@c", True),
        ("a" * 256, True),
        ("a" * 257, False),
        ("A", False),
        ("_a", False),
        ("@a", False),
        ("a b", False),
        ("a.b", False),
    ],
)
def test_key_grammar(key: str, valid: bool) -> None:
    """A key must begin with a lower-case letter or digit and has up to 256 of few characters.

    https://www.w3.org/TR/trace-context-2/#key
    """
    assert (key in received(PARENT, f"{key}=1").trace_state) is valid


def test_leading_spaces_belong_to_the_value_and_trailing_ones_do_not() -> None:
    """Leading spaces of a value must be preserved; trailing ones are not part of it.

    https://www.w3.org/TR/trace-context-2/#value
    """
    assert received(PARENT, "a=  1  ,b=2").trace_state["a"] == "  1"


@pytest.mark.parametrize("value", ["", "a\tb", "a=b", "\u00e9", "x" * 257, "a\x7f"])
def test_value_grammar(value: str) -> None:
    """A value has 1 to 256 printable ASCII characters without comma and equals sign.

    https://www.w3.org/TR/trace-context-2/#value
    """
    assert len(received(PARENT, f"a={value}").trace_state) == 0


def test_one_entry_per_key() -> None:
    """Only one entry per key is allowed.

    https://www.w3.org/TR/trace-context-2/#combined-header-value
    """
    assert len(received(PARENT, "a=1,b=2,a=3").trace_state) == 0


def test_512_characters_are_propagated() -> None:
    """At least 512 characters of a combined header should be propagated.

    https://www.w3.org/TR/trace-context-2/#tracestate-limits
    """
    header = "a=" + "x" * 253 + ",b=" + "y" * 254
    assert len(header) == 512
    assert sent(received(PARENT, header))["tracestate"] == header


def test_truncation_takes_whole_entries_large_ones_first() -> None:
    """Whole entries must be cut: those over 128 characters first, then from the end.

    https://www.w3.org/TR/trace-context-2/#tracestate-limits
    """
    small = [f"k{n}=" + "x" * 90 for n in range(6)]
    header = ",".join([small[0], "large=" + "y" * 200, *small[1:]])
    assert sent(received(PARENT, header))["tracestate"] == ",".join(small[:5])


def test_unchanged_traceparent_goes_with_unchanged_tracestate() -> None:
    """While traceparent is not changed, tracestate must not be modified either.

    https://www.w3.org/TR/trace-context-2/#mutating-the-traceparent-field
    """
    headers = {"traceparent": PARENT, "tracestate": "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"}
    assert sent(received(**headers)) == headers


def test_modified_key_moves_to_the_front_and_the_rest_keeps_its_order() -> None:
    """Modified keys must be moved to the left; unmodified pairs must keep their order.

    https://www.w3.org/TR/trace-context-2/#mutating-the-tracestate-field
    """
    state = received(PARENT, "a=1,b=2,c=3").trace_state
    assert state.update("c", "4").to_header() == "c=4,a=1,b=2"
