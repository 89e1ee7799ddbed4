"""The baggage header: what travels, what stays, and how it compares with the API's propagator."""

from __future__ import annotations

import copy
import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach, set_value

from tracekit.propagators.baggage import BaggagePropagator, BaggageValue


@pytest.fixture
def propagator() -> BaggagePropagator:
    return BaggagePropagator()


def entries(propagator: Any, header: object) -> dict[str, object]:
    return dict(baggage.get_all(propagator.extract({"baggage": header}, Context())))


def header_of(propagator: Any, values: dict[Any, object]) -> str | None:
    context = Context()
    for key, value in values.items():
        context = baggage.set_baggage(key, value, context)
    carrier: dict[str, str] = {}
    propagator.inject(carrier, context)
    return carrier.get("baggage")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("key=value", {"key": "value"}),
        ("a=1,b=2", {"a": "1", "b": "2"}),
        (" a \t= 1 ,\tb =\t2 ", {"a": "1", "b": "2"}),
        ("userId =   alice", {"userId": "alice"}),
        ("serverNode=DF%2028,isProduction=false", {"serverNode": "DF 28", "isProduction": "false"}),
        ("key=a=b==", {"key": "a=b=="}),
        ("key=", {"key": ""}),
        ("key=%E2%82%AC", {"key": "\u20ac"}),
        ("key=%ff", {"key": "\ufffd"}),
        ("key=%zz%", {"key": "%zz%"}),
        ("key=a+b", {"key": "a+b"}),
        ("key=%20a%20", {"key": " a "}),
        ("k%41=1", {"k%41": "1"}),
        ("a=1,a=2", {"a": "2"}),
        (",a=1,,b=2,", {"a": "1", "b": "2"}),
        (["a=1", "b=2,c=3"], {"a": "1", "b": "2", "c": "3"}),
        ("a=1,bad,b=2", {"a": "1", "b": "2"}),
        ("a b=1,c=2", {"c": "2"}),
        ("=1,c=2", {"c": "2"}),
        ("a=1 2,c=2", {"c": "2"}),
        ('a="1",c=2', {"c": "2"}),
        ("a=\\,c=2", {"c": "2"}),
        ("\u00e9=1,b=\u00e9,c=2", {"c": "2"}),
        ("a=1;(,c=2", {"c": "2"}),
        ("a=1;,c=2", {"c": "2"}),
    ],
)
def test_header_gives_these_entries(
    propagator: BaggagePropagator, header: object, expected: dict[str, str]
) -> None:
    assert entries(propagator, header) == expected


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("a", "baggage_key"),
        ("(=1", "baggage_key"),
        ("a=\\", "baggage_value"),
        ("a=1;=", "baggage_property"),
        ("a=" + "x" * 4096, "baggage_member_length"),
        ("a=1," * 3000, "baggage_length"),
        (b"a=1", "baggage_type"),
        (["a=1", 2], "baggage_type"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_refusal_is_counted_by_reason(
    propagator: BaggagePropagator, header: object, reason: str
) -> None:
    assert entries(propagator, header) == {}
    assert propagator.refused == {reason: 1}


def test_entries_beyond_180_are_left_out(propagator: BaggagePropagator) -> None:
    found = entries(propagator, ",".join(f"k{n}=1" for n in range(200)))
    assert list(found) == [f"k{n}" for n in range(180)]
    assert propagator.refused == {"baggage_too_many_members": 1}


def test_properties_go_on_and_do_not_get_into_the_value(propagator: BaggagePropagator) -> None:
    context = propagator.extract({"baggage": "k=v ; ttl = 30;secret"}, Context())
    assert baggage.get_baggage("k", context) == "v"
    carrier: dict[str, str] = {}
    propagator.inject(carrier, context)
    assert carrier == {"baggage": "k=v;ttl = 30;secret"}


@pytest.mark.parametrize("again", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_value_with_properties_survives_a_copy(again: Any) -> None:
    value = again(BaggageValue("v", "ttl=30"))
    assert (value, value.properties) == ("v", "ttl=30")


def test_own_entries_are_kept_and_the_caller_s_win(propagator: BaggagePropagator) -> None:
    context = baggage.set_baggage("own", "1", baggage.set_baggage("both", "1", Context()))
    found = propagator.extract({"baggage": "both=2,new=3"}, context)
    assert baggage.get_all(found) == {"own": "1", "both": "2", "new": "3"}
    assert baggage.get_all(context) == {"own": "1", "both": "1"}


def test_missing_context_is_the_current_one(propagator: BaggagePropagator) -> None:
    token = attach(set_value("key", "value", Context()))
    try:
        assert propagator.extract({"baggage": "a=1"})["key"] == "value"
    finally:
        detach(token)


@pytest.mark.parametrize(
    ("values", "header"),
    [
        ({"a": "1", "b": "x y"}, "a=1,b=x%20y"),
        ({"a": "1+1=2,3;4"}, "a=1%2B1=2%2C3%3B4"),
        ({"a": "100%"}, "a=100%25"),
        ({"a": "\u20ac"}, "a=%E2%82%AC"),
        ({"a": 5, "b": True, "c": None}, "a=5,b=True,c=None"),
        ({"a": ""}, "a="),
        ({"a": "\ud800"}, "a=?"),
        ({"a": "\r\nset-cookie: x"}, "a=%0D%0Aset-cookie:%20x"),
        ({"bad key": "1", "": "1", "\u00e9": "1", 7: "1", "ok": "1"}, "ok=1"),
        ({"bad key": "1"}, None),
        ({"large": "x" * 5000, "ok": "1"}, "ok=1"),
        ({"k" * 5000: "1", "ok": "1"}, "ok=1"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_entries_give_this_header(
    propagator: BaggagePropagator, values: dict[Any, object], header: str | None
) -> None:
    assert header_of(propagator, values) == header


def test_value_without_text_is_left_out(propagator: BaggagePropagator) -> None:
    class Silent:
        def __str__(self) -> str:
            raise RuntimeError("no text")

    assert header_of(propagator, {"a": Silent(), "b": "1"}) == "b=1"
    assert propagator.refused == {"baggage_value": 1}


def test_header_stays_within_its_limits(propagator: BaggagePropagator) -> None:
    header = header_of(propagator, {f"k{n}": "x" * 100 for n in range(500)})
    assert header is not None
    assert 7900 < len(header) <= 8192
    many = header_of(propagator, {f"k{n}": "1" for n in range(500)})
    assert many is not None
    assert many.count(",") == 179


tokens = st.from_regex(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,20}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=40)


@given(st.dictionaries(tokens, texts, max_size=15))
def test_whatever_text_is_sent_arrives(values: dict[str, str]) -> None:
    propagator = BaggagePropagator()
    header = header_of(propagator, values)
    assert (entries(propagator, header) if header else {}) == values


# opentelemetry-api takes white space off both ends of a decoded value and decodes names too.
plain_tokens = st.from_regex(r"[!#$&'*.^_`|~0-9A-Za-z\-]{1,20}", fullmatch=True)


@given(st.dictionaries(plain_tokens, texts.map(str.strip), min_size=1, max_size=15))
def test_the_api_s_propagator_reads_what_we_write(values: dict[str, str]) -> None:
    assert entries(W3CBaggagePropagator(), header_of(BaggagePropagator(), values)) == values


@given(
    st.dictionaries(
        st.from_regex(r"[A-Za-z0-9_.\-]{1,20}", fullmatch=True),
        texts.filter(lambda text: " " not in text),
        min_size=1,
        max_size=15,
    )
)
def test_we_read_what_the_api_s_propagator_writes(values: dict[str, str]) -> None:
    assert entries(BaggagePropagator(), header_of(W3CBaggagePropagator(), values)) == values


@pytest.mark.parametrize(
    "value", ["a=1," * 2048, ";" * 8192, "a=" + "%" * 8000, "a;" * 4096, "=" * 8192]
)
def test_hostile_header_costs_little(propagator: BaggagePropagator, value: str) -> None:
    started = time.process_time()
    for _ in range(20):
        entries(propagator, value)
    assert time.process_time() - started < 1.0


def test_megabyte_header_is_refused_unread(propagator: BaggagePropagator) -> None:
    huge = "a=b," * 1_000_000
    started = time.process_time()
    for _ in range(1000):
        entries(propagator, huge)
    assert time.process_time() - started < 1.0
