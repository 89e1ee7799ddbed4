"""The immutable records: compared by what they hold, and loaded when they are asked for."""

from __future__ import annotations

import copy
import pickle

import pytest

from tracekit import model
from tracekit.model import Event, InstrumentationScope


@pytest.mark.parametrize(
    "record", [Event("retry", {"n": 1}, 5, 2), InstrumentationScope("lib", "1.0", "url", {"a": 1})]
)
def test_a_record_is_equal_to_its_copies_and_shows_what_it_holds(record):
    for other in (copy.copy(record), copy.deepcopy(record), pickle.loads(pickle.dumps(record))):
        assert other == record
        assert repr(other) == repr(record)
    assert record != repr(record)
    assert repr(record).startswith(f"{type(record).__name__}(name={record.name!r}, ")


@pytest.mark.parametrize("record", [Event("retry"), InstrumentationScope("lib")])
def test_a_record_is_not_changed_once_it_is_made(record):
    with pytest.raises(AttributeError, match="not changed once it is made: 'name'"):
        record.name = "other"
    with pytest.raises(AttributeError, match="not changed once it is made: 'name'"):
        del record.name
    assert record.name in ("retry", "lib")


def test_records_that_differ_in_one_field_are_not_equal():
    assert Event("a", {}, 1) != Event("a", {}, 2)
    assert InstrumentationScope("a", attributes={"x": 1}) != InstrumentationScope("a")


def test_a_scope_is_found_again_whatever_its_attributes_are():
    known = {InstrumentationScope("a", "1", attributes={"x": [1]}): "tracer"}
    assert known[InstrumentationScope("a", "1", attributes={"x": [1]})] == "tracer"
    assert InstrumentationScope("a", "1") not in known


def test_a_record_without_attributes_has_its_own():
    assert Event("a").attributes == {}
    assert Event("a").attributes is not Event("a").attributes


def test_every_public_name_of_the_model_is_there():
    for name in model.__all__:
        assert getattr(model, name).__name__ in (name, "Mapping")
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = model.nothing_such
