"""Whatever was given as an attribute is recorded as far as possible, and never costs the rest."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import itertools
import math
import pathlib
import uuid

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit.core.attributes import MAX_DEPTH, MAX_ITEMS, clean


class Colour(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    def __str__(self):
        return "not this"


@dataclasses.dataclass
class Point:
    x: int
    y: list[int]


class Rude:
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


def read(value, **options):
    return clean({"k": value}, None, **options)[0].get("k")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("text", "text"),
        (True, True),
        (1, 1),
        (2**80, 2**80),
        (1.5, 1.5),
        (None, None),
        (b"\x00", b"\x00"),
        (bytearray(b"a"), b"a"),
        ([1, "a", None], (1, "a", None)),
        (({"a": (1,)},), ({"a": (1,)},)),
        ({2, 1}, (1, 2)),
        ({1: "a"}, {"1": "a"}),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (decimal.Decimal("1.10"), "1.10"),
        (datetime.datetime(2026, 1, 2, 3, 4, 5), "2026-01-02T03:04:05"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (datetime.timedelta(seconds=90), "90.0s"),
        (pathlib.PurePosixPath("/a/b"), "/a/b"),
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Text("kept"), "kept"),
        (Point(1, [2]), {"x": 1, "y": (2,)}),
        (numpy.float64(1.5), 1.5),
        (numpy.int32(7), 7),
        (numpy.array([1, 2]), (1, 2)),
        (numpy.zeros(10_000), "<array of shape (10000,)>"),
    ],
    ids=repr,
)
def test_value_reads_as(value, expected):
    result = read(value)
    assert (result, type(result)) == (expected, type(expected))


def test_nan_stays_nan():
    assert math.isnan(read(math.nan))


def test_value_that_cannot_be_shown_is_said_to_be_so():
    assert read(Rude()) == "<Rude that cannot be shown>"


def test_endless_iterable_is_not_iterated():
    assert read(itertools.count()).startswith("count(")


def test_recursive_containers_end():
    loop: list = []
    loop.append(loop)
    ring: dict = {}
    ring["ring"] = ring
    depth, value = 0, read(loop)
    while isinstance(value, tuple):
        depth, value = depth + 1, value[0]
    assert (depth, value) == (MAX_DEPTH, "...")
    assert isinstance(read(ring), dict)


def test_cyclic_object_graph_is_a_short_text():
    class Node:
        pass

    node = Node()
    node.self = node
    assert "Node" in read(node)


def test_long_containers_are_cut():
    assert len(read(range(MAX_ITEMS * 2))) == MAX_ITEMS


def test_class_objects_are_named():
    assert "Point" in read(Point)


def test_lengths_and_counts_are_limited():
    kept, dropped = clean({"a": "12345", "b": ["12345"], "c": 1}, 3, 2)
    assert (dict(kept), dropped) == ({"a": "123", "b": ("123",)}, 1)


def test_keys_that_are_not_texts_are_dropped_and_counted():
    kept, dropped = clean({1: "a", "": "b", None: "c", "ok": "d"}, None)
    assert (dict(kept), dropped) == ({"ok": "d"}, 3)


class _RaisingMapping(dict):
    def items(self):
        raise RuntimeError


def test_mapping_that_raises_is_empty():
    assert dict(clean(_RaisingMapping(a=1), None)[0]) == {}


class _Unstringable:
    def __str__(self):
        raise RuntimeError


_anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
    | st.uuids()
    | st.dates()
    | st.complex_numbers()
    | st.just(_Unstringable())
    | st.characters(categories=["Cs"]),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.text() | st.integers(), inner)
        | st.frozensets(st.integers() | st.text())
        | st.tuples(inner, inner)
    ),
)


def _is_any_value(value):
    if isinstance(value, tuple):
        return all(map(_is_any_value, value))
    if isinstance(value, dict):
        return all(type(key) is str and _is_any_value(item) for key, item in value.items())
    return type(value) in (str, bool, int, float, bytes, type(None))


@given(st.dictionaries(st.text() | st.integers(), _anything))
def test_everything_becomes_an_any_value(attributes):
    kept, dropped = clean(attributes, None)
    assert len(kept) + dropped == len(attributes)
    assert all(map(_is_any_value, kept.values()))
