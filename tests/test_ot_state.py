"""The `ot` member of a tracestate: thresholds and explicit randomness, read and written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import TraceState

from tracekit._ot_state import (
    MAX_THRESHOLD,
    RANDOM_MASK,
    OtState,
    threshold_of,
    with_threshold,
)


def state(ot: str) -> TraceState:
    return TraceState([("ot", ot)])


@pytest.mark.parametrize(
    ("text", "threshold"),
    [
        ("th:0", 0),
        ("th:8", 1 << 55),
        ("th:c", 3 << 54),
        ("th:fd70a4", 0xFD70A400000000),
        ("th:ffffffffffffff", RANDOM_MASK),
        ("th:", None),
        ("th:FF", None),
        ("th:123456789abcdef", None),
        ("th:xyz", None),
        ("x:1", None),
        ("", None),
    ],
)
def test_a_threshold_is_one_to_fourteen_digits(text: str, threshold: int | None) -> None:
    assert OtState.of(state(text)).threshold == threshold


@pytest.mark.parametrize(
    ("text", "randomness"),
    [
        ("rv:6e6d1a75832a2f", 0x6E6D1A75832A2F),
        ("rv:00000000000000", 0),
        ("rv:6e6d1a75832a2", None),
        ("rv:6E6D1A75832A2F", None),
        ("rv:", None),
    ],
)
def test_randomness_is_exactly_fourteen_digits(text: str, randomness: int | None) -> None:
    assert OtState.of(state(text)).randomness == randomness


def test_without_the_member_there_is_nothing() -> None:
    assert OtState.of(None) == OtState.of(TraceState([("vendor", "th:8")])) == OtState()


def test_what_others_wrote_is_kept() -> None:
    written = with_threshold(state("p:8;th:1;rv:6e6d1a75832a2f;k1:7"), 1 << 55)
    assert written["ot"].split(";") == ["th:8", "rv:6e6d1a75832a2f", "p:8", "k1:7"]


def test_other_members_of_the_tracestate_are_kept_behind() -> None:
    written = with_threshold(TraceState([("a", "1"), ("ot", "th:1"), ("b", "2")]), 0)
    assert written.to_header() == "ot=th:0,a=1,b=2"


def test_none_takes_the_threshold_out() -> None:
    assert with_threshold(state("th:8;p:1"), None)["ot"] == "p:1"
    assert "ot" not in with_threshold(state("th:8"), None)
    assert with_threshold(None, None).to_header() == ""


def test_what_would_be_too_long_loses_what_others_wrote() -> None:
    """A tracestate value has at most 256 characters."""
    long = with_threshold(state("x:" + "a" * 250), 1 << 55)["ot"]
    assert long == "th:8"


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(1.0, "th:0"), (0.5, "th:8"), (0.25, "th:c"), (0.75, "th:4"), (0.01, "th:fd70a")],
)
def test_usual_ratios_have_short_thresholds(ratio: float, text: str) -> None:
    assert with_threshold(None, threshold_of(ratio))["ot"].startswith(text[:6])
    assert len(with_threshold(None, threshold_of(ratio))["ot"]) <= len("th:") + 6


@given(st.floats(min_value=2**-50, max_value=1.0))
def test_a_threshold_lets_the_ratio_through(ratio: float) -> None:
    share = (MAX_THRESHOLD - threshold_of(ratio)) / MAX_THRESHOLD
    assert share == pytest.approx(ratio, rel=0.01)


def test_the_smallest_ratios_still_let_something_through() -> None:
    assert threshold_of(2**-56) == threshold_of(1e-300) == MAX_THRESHOLD - 1
    assert threshold_of(0.0) == MAX_THRESHOLD


@given(st.lists(st.floats(0, 1), min_size=2))
def test_a_higher_ratio_has_no_higher_threshold(ratios: list[float]) -> None:
    thresholds = [threshold_of(ratio) for ratio in sorted(ratios)]
    assert thresholds == sorted(thresholds, reverse=True)


@given(st.integers(0, RANDOM_MASK))
def test_every_threshold_is_read_as_it_was_written(threshold: int) -> None:
    assert OtState.of(with_threshold(None, threshold)).threshold == threshold


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyz0123456789:;.-_", max_size=80))
def test_whatever_is_in_the_member_is_read_without_error(text: str) -> None:
    ot = OtState.of(state(text) if text else None)
    assert ot.threshold is None or 0 <= ot.threshold < MAX_THRESHOLD
    assert ot.randomness is None or 0 <= ot.randomness < MAX_THRESHOLD
