"""Span limits: where they come from."""

from __future__ import annotations

import logging

import pytest

from tracekit.errors import InvalidValueError
from tracekit.sdk import SpanLimits

COUNTS = {
    "max_attributes": "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "max_events": "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "max_links": "OTEL_SPAN_LINK_COUNT_LIMIT",
    "max_span_attributes": "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "max_event_attributes": "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "max_link_attributes": "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
}
LENGTHS = {
    "max_attribute_length": "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "max_span_attribute_length": "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
}
ALL = {**COUNTS, **LENGTHS}


def test_defaults():
    assert {getattr(SpanLimits(), name) for name in COUNTS} == {128}
    assert {getattr(SpanLimits(), name) for name in LENGTHS} == {None}


@pytest.mark.parametrize("name", ALL)
def test_each_has_a_variable_and_the_argument_wins(monkeypatch, name):
    monkeypatch.setenv(ALL[name], " 7 ")
    assert getattr(SpanLimits(), name) == 7
    assert getattr(SpanLimits(**{name: 9}), name) == 9
    assert getattr(SpanLimits(**{name: 0}), name) == 0


@pytest.mark.parametrize("name", ALL)
def test_unset_is_no_limit_whatever_the_variable_says(monkeypatch, name):
    monkeypatch.setenv(ALL[name], "7")
    assert getattr(SpanLimits(**{name: SpanLimits.UNSET}), name) is None


def test_the_general_limits_hold_for_spans_events_and_links():
    limits = SpanLimits(max_attributes=5, max_attribute_length=6)
    assert limits.max_span_attributes == limits.max_event_attributes == 5
    assert limits.max_link_attributes == 5
    assert limits.max_span_attribute_length == 6


def test_a_specific_limit_wins_over_the_general_one(monkeypatch):
    monkeypatch.setenv("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "3")
    limits = SpanLimits(max_attributes=5)
    assert (limits.max_span_attributes, limits.max_event_attributes) == (3, 5)


@pytest.mark.parametrize("text", ["-1", "-5", "abc", "1.5", "9" * 5000, "1_0"])
@pytest.mark.parametrize("name", ["max_events", "max_attributes", "max_attribute_length"])
def test_a_variable_that_cannot_be_used_is_reported_and_ignored(monkeypatch, caplog, name, text):
    """https://opentelemetry.io/docs/specs/otel/configuration/common/#numeric"""
    monkeypatch.setenv(ALL[name], text)
    default = None if name in LENGTHS else 128
    assert getattr(SpanLimits(), name) == default
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert ALL[name] in record.getMessage()


@pytest.mark.parametrize("value", [-2, 1.5, "5", True, [], float("nan")])
def test_an_argument_that_cannot_be_used_is_refused(value):
    with pytest.raises(InvalidValueError):
        SpanLimits(max_events=value)


def test_the_limits_in_force_can_be_read():
    assert "max_events=3" in repr(SpanLimits(max_events=3))
