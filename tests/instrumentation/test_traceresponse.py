"""A callee says what it decided, and nothing that looks like it is believed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from tracekit.errors import InvalidValueError
from tracekit.instrumentation import _traceresponse
from tracekit.instrumentation._traceresponse import answer, hear, mode_of, with_answer

TRACE_ID, SPAN_ID = 0xAF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331
KEPT = f"00-{TRACE_ID:032x}-{SPAN_ID:016x}-01"


class Asking(NonRecordingSpan):
    """A span that notes whether it was asked to be kept."""

    def __init__(self, trace_id: int = TRACE_ID, parent: Any = None) -> None:
        super().__init__(SpanContext(trace_id, 7, False, TraceFlags(1)))
        self.parent = parent
        self.asked: list[str] = []

    def keep(self, reason: str) -> None:
        self.asked.append(reason)


def is_kept(headers: Any, trace_id: int = TRACE_ID) -> bool:
    span = Asking(trace_id)
    hear(span, headers)
    return span.asked != []


ids = st.integers(1, 2**128 - 1)
CALLER = SpanContext(1, 2, True)


@given(ids, st.booleans())
def test_what_is_answered_is_heard(trace_id: int, kept: bool) -> None:
    span = Asking(trace_id, CALLER)
    assert is_kept(dict(answer(span, kept, "auto")), trace_id) is kept


@given(ids, ids)
def test_an_answer_about_another_trace_is_refused(one: int, other: int) -> None:
    told = dict(answer(Asking(one, CALLER), True, "auto"))
    assert is_kept(told, other) is (one == other)


@given(st.text() | st.binary() | st.none() | st.integers(), st.text() | st.just("1") | st.none())
def test_garbage_keeps_nothing_and_raises_nothing(header: Any, kept: Any) -> None:
    assert not is_kept({"traceresponse": header, "tracekit-kept": kept})


@given(st.integers(0, len(KEPT) - 1), st.characters(exclude_characters="0123456789abcdef"))
def test_one_wrong_character_is_refused(place: int, wrong: str) -> None:
    header = KEPT[:place] + wrong + KEPT[place + 1 :]
    is_same = header.strip(" \t") == KEPT
    assert is_kept({"traceresponse": header, "tracekit-kept": "1"}) is is_same


@pytest.mark.parametrize(
    ("header", "heard"),
    [
        (KEPT, True),
        (f" {KEPT}\t", True),
        (f"{KEPT[:-2]}03", True),  # the flag that says where the id comes from
        (f"{KEPT[:-2]}00", False),
        (KEPT.upper(), False),
        (f"{KEPT}-more", False),  # version 00 ends behind its flags
        (f"cc{KEPT[2:]}", True),
        (f"cc{KEPT[2:]}-more", True),
        (f"cc{KEPT[2:]}more", False),
        (f"ff{KEPT[2:]}", False),
        (f"{KEPT}, {KEPT}", False),
        (f"00-{TRACE_ID:032x}-{'0' * 16}-01", False),
        (f"cc{KEPT[2:]}-{'m' * 500}", False),
    ],
)
def test_a_header_counts_as_the_specification_has_it(header: str, heard: bool) -> None:
    assert is_kept({"traceresponse": header, "tracekit-kept": "1"}) is heard


@pytest.mark.parametrize("headers", [None, 7, [("traceresponse", KEPT)], {}])
def test_responses_of_any_shape_are_let_pass(headers: Any) -> None:
    assert not is_kept(headers)


def test_what_is_refused_is_counted_by_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_traceresponse, "refused", {})
    is_kept({"traceresponse": "no"})
    is_kept({"traceresponse": KEPT}, trace_id=1)
    is_kept({"traceresponse": KEPT})
    assert _traceresponse.refused == {
        "traceresponse_malformed": 1,
        "traceresponse_other_trace": 1,
    }


@pytest.mark.parametrize("parent", [None, SpanContext(1, 2, False)])
def test_only_a_remote_caller_is_answered(parent: SpanContext | None) -> None:
    assert answer(Asking(parent=parent), True, "auto") == ()


def test_an_answer_takes_the_place_of_one_that_is_passed_on() -> None:
    passed_on = [("X-A", "1"), ("TraceResponse", "00-of-the-callee"), ("Tracekit-Kept", "1")]
    told = answer(Asking(parent=CALLER), False, "auto")
    assert with_answer(passed_on, told) == [("X-A", "1"), *told]
    raw = [(name.encode(), value.encode()) for name, value in passed_on]
    assert with_answer(raw, []) == [(b"X-A", b"1")]


def test_a_mode_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(InvalidValueError, match=r"TRACEKIT_TRACERESPONSE='on'.*auto, always"):
        mode_of(None, {"TRACEKIT_TRACERESPONSE": "on"})
    assert mode_of("never", {"TRACEKIT_TRACERESPONSE": "on"}) == "never"
    assert mode_of(None, {"TRACEKIT_TRACERESPONSE": ""}) == "auto"
