"""Rules of trust are read strictly, and judge whatever comes in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage, trace
from opentelemetry.context import Context
from opentelemetry.trace import NonRecordingSpan, SpanContext

from tracekit.errors import ConfigurationError
from tracekit.instrumentation._trust import Caller, caller_of, trust_of

CALLER = SpanContext(0xA, 0xB, True)
AROUND = Context({"mine": 1})
SENT = baggage.set_baggage(
    "user", "eve", trace.set_span_in_context(NonRecordingSpan(CALLER), AROUND)
)


def judged(rules: str, headers: Any = None, context: Context = SENT, **attributes: Any) -> Caller:
    return caller_of(trust_of(rules, {}), context, AROUND, attributes, headers or {})


def test_without_rules_everybody_is_trusted() -> None:
    assert trust_of(None, {}) is None
    assert trust_of(None, {"TRACEKIT_TRUST": " "}) is None
    assert caller_of(None, SENT, AROUND, {}, {}) == (SENT, ())


def test_an_option_takes_the_place_of_the_variable() -> None:
    trust = trust_of(["trust method=GET", "ignore"], {"TRACEKIT_TRUST": "nonsense"})
    assert caller_of(trust, SENT, AROUND, {"http.request.method": "GET"}, {}).context is SENT
    assert caller_of(trust, SENT, AROUND, {}, {}) == (AROUND, ())


def test_whoever_no_rule_matches_is_trusted() -> None:
    assert judged("link host=a.example").context is SENT


def test_of_an_untrusted_caller_nothing_is_left_but_a_link() -> None:
    context, links = judged("link")
    assert context is AROUND
    assert [link.context for link in links] == [CALLER]


def test_where_a_caller_sent_nothing_there_is_nothing_to_link_to() -> None:
    assert judged("link", context=AROUND) == (AROUND, ())
    only_baggage = baggage.set_baggage("user", "eve", AROUND)
    assert judged("link", context=only_baggage) == (AROUND, ())


def test_a_span_of_this_process_is_no_caller() -> None:
    local = trace.set_span_in_context(NonRecordingSpan(SpanContext(1, 2, False)), AROUND)
    assert judged("link", context=local).links == ()


def test_a_header_that_is_there_twice_proves_nothing() -> None:
    rules = "trust http.request.header.x-edge=yes; link"
    assert judged(rules, {"x-edge": "yes"}).context is SENT
    assert judged(rules, {"x-edge": ["yes", "yes"]}).context is AROUND
    assert judged(rules, {"x-edge": ["yes"]}).context is SENT


@given(st.dictionaries(st.text(), st.text() | st.integers() | st.none()))
def test_whatever_a_span_starts_with_can_be_judged(attributes: Any) -> None:
    trust = trust_of("trust http.request.header.a=b route=/*; trust url.path=/x; link", {})
    assert caller_of(trust, SENT, AROUND, attributes, attributes).context in (SENT, AROUND)


@pytest.mark.parametrize(
    ("rules", "complaint"),
    [
        ("restart", "'restart' is no verdict"),
        ("trust peer", "'peer' is no condition"),
        ("link route=/(/", "is no regular expression"),
        ("link; trust host=a", "rule 1 already matches"),
        ('link route="/a', "a quote is not closed"),
        ("route=/a", "it begins with 'route=/a'"),
        (7, "7 is no list of rules"),
        ([{"route": "/a"}], "it does not say what it keeps"),
    ],
)
def test_rules_that_cannot_work_are_refused_with_the_remedy(rules: Any, complaint: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        trust_of(rules, {})
    message = str(refused.value)
    assert message.startswith("TRACEKIT_TRUST, ")
    assert complaint in message
    assert "as in: trust network.peer.address=10.*; link" in message
    assert "sampling" not in message
