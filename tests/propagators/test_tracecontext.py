"""traceparent and tracestate: what is taken, what is refused and why, and at what cost."""

from __future__ import annotations

import copy
import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Setter, default_setter
from opentelemetry.trace import SpanContext, TraceFlags, TraceState
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from tracekit._otel_context import with_span
from tracekit.propagators._composite import CompositePropagator
from tracekit.propagators._remote import SPAN_KEY
from tracekit.propagators.tracecontext import TraceContextPropagator
from tracekit.sdk import TracerProvider

TRACE = "12345678901234567890123456789012"
SPAN = "1234567890123456"
GOOD = f"00-{TRACE}-{SPAN}-01"
ALL_KEY_CHARACTERS = "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
ALL_VALUE_CHARACTERS = "".join(chr(c) for c in range(0x20, 0x7F) if chr(c) not in ",=")
THIRTY_TWO = ",".join(f"bar{n:02}={n:02}" for n in range(1, 33))


class _Shouting(Setter[dict[str, str]]):
    def set(self, carrier: dict[str, str], key: str, value: str) -> None:
        carrier[key.upper()] = value


# The cases of the W3C's own test harness, as data: header fields in, and what must be taken over.
ACCEPTED = [
    (GOOD, 1),
    (f"00-{TRACE}-{SPAN}-00", 0),
    (f"00-{TRACE}-{SPAN}-02", 2),
    (f"00-{TRACE}-{SPAN}-03", 3),
    (f"00-{TRACE}-{SPAN}-ff", 3),
    (f"00-{TRACE}-{SPAN}-09", 1),
    (f"cc-{TRACE}-{SPAN}-01", 1),
    (f"cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like", 1),
    (f"cc-{TRACE}-{SPAN}-01-", 1),
    (f"01-{TRACE}-{SPAN}-ff", 3),
    (f" {GOOD}", 1),
    (f"\t{GOOD}", 1),
    (f"{GOOD} ", 1),
    (f"{GOOD}\t", 1),
    (f"\t {GOOD} \t", 1),
]
REFUSED = [
    ("", "traceparent_version"),
    (f"{GOOD}.", "traceparent_length"),
    (f"{GOOD}-", "traceparent_length"),
    (f"{GOOD}-what-the-future-will-be-like", "traceparent_length"),
    (f"cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like", "traceparent_length"),
    (f"cc-{TRACE}-{SPAN}-010", "traceparent_length"),
    (f"ff-{TRACE}-{SPAN}-01", "traceparent_version"),
    (f".0-{TRACE}-{SPAN}-01", "traceparent_version"),
    (f"0.-{TRACE}-{SPAN}-01", "traceparent_version"),
    (f"CC-{TRACE}-{SPAN}-01", "traceparent_version"),
    (f"000-{TRACE}-{SPAN}-01", "traceparent_version"),
    (f"0000-{TRACE}-{SPAN}-01", "traceparent_version"),
    (f"0-{TRACE}-{SPAN}-01", "traceparent_version"),
    (f"00-{'0' * 32}-{SPAN}-01", "traceparent_zero_id"),
    (f"cc-{'0' * 32}-{SPAN}-01", "traceparent_zero_id"),
    (f"00-.{TRACE[1:]}-{SPAN}-01", "traceparent_fields"),
    (f"00-{TRACE[:-1]}.-{SPAN}-01", "traceparent_fields"),
    (f"00-{TRACE}3-{SPAN}-01", "traceparent_length"),
    (f"00-{TRACE[:-1]}-{SPAN}-01", "traceparent_length"),
    (f"00-{TRACE}-{'0' * 16}-01", "traceparent_zero_id"),
    (f"00-{TRACE}-.{SPAN[1:]}-01", "traceparent_fields"),
    (f"00-{TRACE}-{SPAN[:-1]}.-01", "traceparent_fields"),
    (f"00-{TRACE}-{SPAN}7-01", "traceparent_length"),
    (f"00-{TRACE}-{SPAN[:-1]}-01", "traceparent_length"),
    (f"00-{TRACE}-{SPAN}-.0", "traceparent_fields"),
    (f"00-{TRACE}-{SPAN}-0.", "traceparent_fields"),
    (f"00-{TRACE}-{SPAN}-001", "traceparent_length"),
    (f"00-{TRACE}-{SPAN}-1", "traceparent_length"),
    (f"00-{'ABCDEF' + TRACE[6:]}-{SPAN}-01", "traceparent_fields"),
    (f"00-{TRACE}-{'ABCDEF' + SPAN[6:]}-01", "traceparent_fields"),
    (f"00-{TRACE}-{SPAN}-0A", "traceparent_fields"),
    (f"00-{TRACE[:-2]}_1-{SPAN}-01", "traceparent_fields"),
    (f"00-0x{TRACE[2:]}-{SPAN}-01", "traceparent_fields"),
    ("00-" + "\u0661" * 32 + f"-{SPAN}-01", "traceparent_fields"),
    (f"00-\ud800{TRACE[1:]}-{SPAN}-01", "traceparent_fields"),
    (f"{GOOD}\n", "traceparent_length"),
    (f"cc-{TRACE}-{SPAN}-01-" + "x" * 1_000_000, "traceparent_length"),
    (" " * 1_000_000 + GOOD, "traceparent_length"),
    (GOOD.encode(), "traceparent_type"),
    (7, "traceparent_type"),
    ([GOOD, GOOD], "traceparent_repeated"),
    ([f"00-{TRACE[:-1]}1-{SPAN}-01", GOOD], "traceparent_repeated"),
    ([None], "traceparent_type"),
]
STATES = [
    (["foo=1,bar=2"], "foo=1,bar=2"),
    ([""], ""),
    (["foo=1", ""], "foo=1"),
    (["", "foo=1"], "foo=1"),
    (["foo=1,bar=2", "rojo=1,congo=2", "baz=3"], "foo=1,bar=2,rojo=1,congo=2,baz=3"),
    (["foo=1,foo=1"], ""),
    (["foo=1,foo=2"], ""),
    (["foo=1", "foo=1"], ""),
    (["foo=1", "foo=2"], ""),
    ([f"{ALL_KEY_CHARACTERS}={ALL_VALUE_CHARACTERS}"],) * 2,
    ([f"{ALL_KEY_CHARACTERS}@a-z0-9_-*/={ALL_VALUE_CHARACTERS}"],) * 2,
    (["foo=1 \t , \t bar=2, \t baz=3"], "foo=1,bar=2,baz=3"),
    (["foo=1\t \t,\t \tbar=2,\t \tbaz=3"], "foo=1,bar=2,baz=3"),
    ([" foo=1"], "foo=1"),
    (["\tfoo=1"], "foo=1"),
    (["foo=1 "], "foo=1"),
    (["foo=1\t"], "foo=1"),
    (["\t foo=1 \t"], "foo=1"),
    (["foo=  1"], "foo=  1"),
    ([",, ,\t,foo=1,,"], "foo=1"),
    (["foo =1"], ""),
    (["FOO=1"], ""),
    (["foo.bar=1"], ""),
    (["foo"], ""),
    (["foo="], ""),
    (["foo= "], ""),
    (["=1"], ""),
    (["foo=1=2"], ""),
    (["foo=1\t2"], ""),
    (["foo=1\n"], ""),
    (["foo=\u00e9"], ""),
    (["foo=\ud800"], ""),
    # Level 2 widened the key: what Level 1 called an illegal vendor format is one no more,
    # except for "@" in front.
    (["foo@=1,bar=2"], "foo@=1,bar=2"),
    (["@foo=1,bar=2"], ""),
    (["foo@@bar=1,bar=2"], "foo@@bar=1,bar=2"),
    (["foo@bar@baz=1,bar=2"], "foo@bar@baz=1,bar=2"),
    (["0foo=1"], "0foo=1"),
    ([THIRTY_TWO], THIRTY_TWO),
    ([THIRTY_TWO + ",bar33=33"], ""),
    ([THIRTY_TWO + ", bar33=33"], ""),
    (["foo=1", "z" * 256 + "=1"], "foo=1," + "z" * 256 + "=1"),
    (["foo=1", "z" * 257 + "=1"], ""),
    (["foo=1", "z=" + "v" * 256], "foo=1,z=" + "v" * 256),
    (["foo=1", "z=" + "v" * 257], ""),
]
STATES = [(s[0], s[0][0]) if s[0] is s[1] else s for s in STATES]


@pytest.fixture
def propagator() -> TraceContextPropagator:
    return TraceContextPropagator()


def span_context_of(context: Context) -> SpanContext:
    return trace.get_current_span(context).get_span_context()


def state_of(propagator: TraceContextPropagator, value: object) -> TraceState:
    found = propagator.extract({"traceparent": GOOD, "tracestate": value})
    return span_context_of(found).trace_state


@pytest.mark.parametrize(("header", "flags"), ACCEPTED)
def test_valid_traceparent_is_taken(
    propagator: TraceContextPropagator, header: str, flags: int
) -> None:
    found = span_context_of(propagator.extract({"traceparent": header}))
    assert found == SpanContext(int(TRACE, 16), int(SPAN, 16), True, TraceFlags(flags))
    assert type(found.trace_flags) is TraceFlags
    assert propagator.refused == {}


@pytest.mark.parametrize(("header", "reason"), REFUSED, ids=lambda value: repr(value)[:60])
def test_invalid_traceparent_is_refused_with_its_reason(
    propagator: TraceContextPropagator, header: object, reason: str
) -> None:
    context = Context({"key": "value"})
    assert propagator.extract({"traceparent": header, "tracestate": "a=1"}, context) is context
    assert propagator.refused == {reason: 1}


@pytest.mark.parametrize("name", ["trace-parent", "trace.parent"])
def test_other_names_are_not_traceparent(propagator: TraceContextPropagator, name: str) -> None:
    assert propagator.extract({name: GOOD}) == {}


def test_plain_dict_may_spell_the_names_with_a_capital(propagator: TraceContextPropagator) -> None:
    found = propagator.extract({"Traceparent": GOOD, "Tracestate": "a=1"})
    assert span_context_of(found).trace_state.to_header() == "a=1"


@pytest.mark.parametrize(("values", "expected"), STATES, ids=lambda value: repr(value)[:60])
def test_tracestate_is_taken_whole_or_not_at_all(
    propagator: TraceContextPropagator, values: list[str], expected: str
) -> None:
    assert state_of(propagator, values).to_header() == expected
    if len(values) == 1:
        assert state_of(propagator, values[0]).to_header() == expected


def test_tracestate_alone_is_not_read(propagator: TraceContextPropagator) -> None:
    context = Context()
    assert propagator.extract({"tracestate": "foo=1"}, context) is context


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"foo=1", "tracestate_type"),
        (["foo=1", b"bar=1"], "tracestate_type"),
        ("foo=1," * 2000, "tracestate_length"),
        (["foo=1"] * 60 + ["x" * 8000], "tracestate_length"),
        ("foo", "tracestate_member"),
        ("foo=1,foo=2", "tracestate_duplicate_key"),
        (THIRTY_TWO + ",more=1", "tracestate_too_many_members"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_bad_tracestate_leaves_the_parent_and_is_counted(
    propagator: TraceContextPropagator, value: object, reason: str
) -> None:
    found = span_context_of(propagator.extract({"traceparent": GOOD, "tracestate": value}))
    assert found.trace_id == int(TRACE, 16)
    assert len(found.trace_state) == 0
    assert propagator.refused == {reason: 1}


def test_refused_tracestate_is_not_injected(propagator: TraceContextPropagator) -> None:
    carrier: dict[str, str] = {}
    propagator.inject(carrier, propagator.extract({"traceparent": GOOD, "tracestate": "BAD"}))
    assert carrier == {"traceparent": GOOD}


def test_headers_pass_through_unchanged(propagator: TraceContextPropagator) -> None:
    sent = {"traceparent": f"00-{TRACE}-{SPAN}-03", "tracestate": "0a@@b=1,congo= t61"}
    carrier: dict[str, str] = {}
    propagator.inject(carrier, propagator.extract(sent))
    assert carrier == sent


def test_newer_version_goes_on_as_00_without_its_unknown_fields(
    propagator: TraceContextPropagator,
) -> None:
    carrier: dict[str, str] = {}
    propagator.inject(carrier, propagator.extract({"traceparent": f"cc-{TRACE}-{SPAN}-fd-xyz"}))
    assert carrier == {"traceparent": GOOD}


def test_tracestate_of_512_characters_goes_on_whole(
    propagator: TraceContextPropagator, context_of: Any
) -> None:
    pairs = [(f"k{n}", "v" * 124) for n in range(4)]
    pairs[-1] = ("k3", "v" * 122)
    state = TraceState(pairs)
    assert len(state.to_header()) == 509
    carrier: dict[str, str] = {}
    propagator.inject(carrier, context_of(state=state))
    assert carrier["tracestate"] == state.to_header()


def test_longer_tracestate_loses_large_members_first_then_the_last_ones(
    propagator: TraceContextPropagator, context_of: Any
) -> None:
    pairs = [("large", "v" * 200), *((f"k{n:02}", "v" * 56) for n in range(9))]
    carrier: dict[str, str] = {}
    propagator.inject(carrier, context_of(state=TraceState(pairs)))
    kept = carrier["tracestate"].split(",")
    assert [member[:3] for member in kept] == [f"k{n:02}" for n in range(8)]
    assert len(carrier["tracestate"]) <= 512


def test_large_member_stays_when_another_large_one_makes_room(
    propagator: TraceContextPropagator, context_of: Any
) -> None:
    state = TraceState([("first", "v" * 250), ("small", "1"), ("second", "v" * 256)])
    carrier: dict[str, str] = {}
    propagator.inject(carrier, context_of(state=state))
    assert carrier["tracestate"] == "first=" + "v" * 250 + ",small=1"


def test_empty_tracestate_is_not_injected(
    propagator: TraceContextPropagator, context_of: Any
) -> None:
    carrier: dict[str, str] = {}
    propagator.inject(carrier, context_of(state=TraceState()))
    assert list(carrier) == ["traceparent"]


def test_something_else_under_the_span_key_is_no_span(propagator: TraceContextPropagator) -> None:
    carrier: dict[str, str] = {}
    propagator.inject(carrier, trace.set_span_in_context(None, Context()))  # type: ignore[arg-type]
    propagator.inject(carrier, trace.set_span_in_context("x", Context()))  # type: ignore[arg-type]
    assert carrier == {}


@given(
    st.integers(1, 2**128 - 1),
    st.integers(1, 2**64 - 1),
    st.integers(0, 255),
)
def test_both_codecs_write_and_read_the_same(trace_id: int, span_id: int, flags: int) -> None:
    ours, theirs = TraceContextPropagator(), TraceContextTextMapPropagator()
    span_context = SpanContext(trace_id, span_id, False, TraceFlags(flags & 3))
    context = trace.set_span_in_context(trace.NonRecordingSpan(span_context), Context())
    written: dict[str, str] = {}
    expected: dict[str, str] = {}
    ours.inject(written, context)
    theirs.inject(expected, context)
    assert written == expected
    assert span_context_of(ours.extract(written)) == span_context_of(theirs.extract(written))


members = st.tuples(
    st.from_regex(r"[a-z][a-z0-9_\-*/]{0,20}", fullmatch=True),
    st.from_regex(
        r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,20}[\x21-\x2b\x2d-\x3c\x3e-\x7e]", fullmatch=True
    ),
)


@given(st.lists(members, max_size=32, unique_by=lambda pair: pair[0]), st.booleans())
def test_every_legal_tracestate_is_kept_in_order(pairs: list[tuple[str, str]], ows: bool) -> None:
    header = (" ,\t" if ows else ",").join(f"{key}={value}" for key, value in pairs)
    state = state_of(TraceContextPropagator(), header)
    assert list(state.items()) == pairs


@given(st.text(alphabet="ab=, \t@A\n\u00e9", max_size=60))
def test_one_pass_and_member_by_member_agree(header: str) -> None:
    from tracekit.propagators import _trace_state
    from tracekit.propagators._refusal import RefusedError

    def outcome(parse: Any) -> object:
        try:
            return list(parse(header).items())
        except RefusedError as error:
            return error.reason

    assert outcome(_trace_state.parse) == outcome(_trace_state._parse_by_member)


@pytest.mark.parametrize(
    "value",
    ["a" * 8192, "a=" + " " * 8190, "a=b," * 2048, "," * 8192, "a=b " * 2048, "a@" * 4096],
    ids=lambda value: value[:6],
)
def test_hostile_tracestate_costs_little(propagator: TraceContextPropagator, value: str) -> None:
    started = time.process_time()
    for _ in range(20):
        state_of(propagator, value).to_header()
    assert time.process_time() - started < 1.0


def test_megabyte_headers_are_refused_unread(propagator: TraceContextPropagator) -> None:
    huge = "a=b," * 1_000_000
    started = time.process_time()
    for _ in range(1000):
        propagator.extract({"traceparent": huge, "tracestate": huge})
        propagator.extract({"traceparent": GOOD, "tracestate": huge})
    assert time.process_time() - started < 1.0


def test_remote_span_is_a_span_that_does_not_record(propagator: TraceContextPropagator) -> None:
    span = trace.get_current_span(propagator.extract({"traceparent": GOOD}))
    assert isinstance(span, trace.NonRecordingSpan)
    assert not span.is_recording()
    assert span.get_span_context() is span.get_span_context()
    assert TRACE in repr(span)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda span: pickle.loads(pickle.dumps(span))])
def test_remote_span_can_be_copied_and_sent(propagator: TraceContextPropagator, again: Any) -> None:
    context = propagator.extract({"traceparent": GOOD, "tracestate": "0a@@b=1,c=2"})
    span = trace.get_current_span(context)
    assert again(span).get_span_context() == span.get_span_context()
    assert again(span.get_span_context().trace_state).to_header() == "0a@@b=1,c=2"


def test_span_key_is_the_one_of_the_api(context_of: Any) -> None:
    context = context_of()
    assert trace.get_current_span(context) is context[SPAN_KEY]


@pytest.mark.parametrize("state", [TraceState(), TraceState([("a", "b"), ("c", "d")])])
@pytest.mark.parametrize("flags", [1, 3])
@pytest.mark.parametrize("setter", [default_setter, _Shouting()])
def test_a_span_of_ours_is_sent_as_any_span_with_its_span_context(
    state: TraceState, flags: int, setter: Setter[dict[str, str]]
) -> None:
    caller = trace.NonRecordingSpan(SpanContext(7, 9, True, TraceFlags(flags), state))
    tracer = TracerProvider(shutdown_on_exit=False).get_tracer("t")
    parent = trace.set_span_in_context(caller, Context())
    span = tracer.start_span("x", parent)
    sent: dict[str, str] = {}
    TraceContextPropagator().inject(sent, with_span(Context(), span), setter)
    told = trace.set_span_in_context(trace.NonRecordingSpan(span.get_span_context()), Context())
    expected: dict[str, str] = {}
    TraceContextPropagator().inject(expected, told, setter)
    assert sent == expected
    assert len(sent) == (2 if state else 1)


def test_a_scope_that_was_not_entered_has_no_ids_to_send() -> None:
    scope = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_as_current_span("x")
    propagator = CompositePropagator([TraceContextPropagator()])
    sent: dict[str, str] = {}
    propagator.inject(sent, with_span(Context(), scope))
    assert sent == {}
