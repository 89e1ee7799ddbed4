"""What is known of a request beforehand is worked out once, and has room for what comes of it."""

from __future__ import annotations

import sys

import pytest

from tracekit.instrumentation._caller import Line
from tracekit.instrumentation._http_client_attributes import Destination
from tracekit.instrumentation._url import Origin

NO_LIMITS: dict[str, float] = {}


def destination(attributes: int) -> Destination:
    """Return one of which so many attributes are known."""
    return Destination(
        Origin("http", "shop.example", 80), {f"a.{number}": number for number in range(attributes)}
    )


def line(number: int) -> Line:
    return Line(None, number, {"code.line.number": number})


def test_same_request_is_told_of_by_the_same_mapping() -> None:
    where = destination(3)
    assert where.told_of("GET", NO_LIMITS, None) is where.told_of("GET", NO_LIMITS, None)


def test_lines_that_take_turns_are_each_told_of_once() -> None:
    where, lines = destination(3), [line(1), line(2)]
    first, second, *others = [where.told_of("GET", NO_LIMITS, lines[turn % 2]) for turn in range(6)]
    assert (first["code.line.number"], second["code.line.number"]) == (1, 2)
    assert all(told is (first, second)[turn % 2] for turn, told in enumerate(others))


def test_lines_without_end_take_bounded_memory() -> None:
    where = destination(3)
    for number in range(1000):
        assert where.told_of("GET", NO_LIMITS, line(number))["code.line.number"] == number
    assert len(where.told) <= 17


@pytest.mark.parametrize("attributes", range(3, 12))
def test_copy_takes_what_there_is_to_say_of_a_response_without_growing(attributes: int) -> None:
    told = dict(destination(attributes).told_of("GET", NO_LIMITS, None))
    assert len(told) == attributes + 1
    own = destination(attributes).told_of("GET", NO_LIMITS, None).copy()  # type: ignore[attr-defined]
    size = sys.getsizeof(own)
    own.update(dict.fromkeys("abcd"))
    assert sys.getsizeof(own) == size
    assert list(own)[: len(told)] == list(told)
