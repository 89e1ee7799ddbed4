"""Attributes and their limits: https://opentelemetry.io/docs/specs/otel/common/."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.trace import SpanLimits as SdkLimits
from opentelemetry.trace import Link, SpanContext, Tracer

from tracekit.sdk import InMemorySpanExporter, Resource, SpanLimits


def recorded(tracer: Tracer, exporter: InMemorySpanExporter, value: Any) -> Any:
    exporter.clear()
    tracer.start_span("a", attributes={"key": value}).end()
    return exporter.get_finished_spans()[0].attributes.get("key", "nothing")


@pytest.mark.parametrize("key", [None, "", 1, b"key"])
def test_a_key_is_a_text_that_is_not_empty(
    tracer: Tracer, exporter: InMemorySpanExporter, key: Any
) -> None:
    """The key must be a non-null and non-empty string.

    https://opentelemetry.io/docs/specs/otel/common/#attribute
    """
    span = tracer.start_span("a")
    span.set_attribute(key, "value")
    span.set_attribute("fit", "value")
    span.end()
    assert exporter.get_finished_spans()[0].attributes == {"fit": "value"}


def test_keys_that_differ_in_case_are_two(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    """Case of keys is preserved, and makes them distinct.

    https://opentelemetry.io/docs/specs/otel/common/#attribute
    """
    tracer.start_span("a", attributes={"Key": 1, "key": 2}).end()
    assert exporter.get_finished_spans()[0].attributes == {"Key": 1, "key": 2}


@pytest.mark.parametrize(
    "value",
    ["text", "größe € 💼", True, 1.5, 2**63 - 1, -(2**63), b"bytes", None],
)
def test_primitive_values(tracer: Tracer, exporter: InMemorySpanExporter, value: Any) -> None:
    """A value is a string, boolean, double, signed 64 bit integer, byte array, or empty.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-value
    """
    found = recorded(tracer, exporter, value)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    "value", [["a", "b"], [True, False], [1.5, 2.5], [1, 2], [1, "a", [True]], {"a": {"b": [1]}}]
)
def test_arrays_and_maps(tracer: Tracer, exporter: InMemorySpanExporter, value: Any) -> None:
    """A value may be an array, of one type or of several, or a map; nesting is allowed.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-value
    """

    def as_lists(found: Any) -> Any:
        if isinstance(found, dict):
            return {key: as_lists(item) for key, item in found.items()}
        return [as_lists(item) for item in found] if isinstance(found, tuple) else found

    assert as_lists(recorded(tracer, exporter, value)) == value


@pytest.mark.parametrize("value", [None, 0, 0.0, "", (), False, b""])
def test_empty_values_are_meaningful(
    tracer: Tracer, exporter: InMemorySpanExporter, value: Any
) -> None:
    """Empty values, zero, empty strings and empty arrays are stored and passed on.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-value
    """
    assert recorded(tracer, exporter, value) == value


def test_null_inside_an_array_stays(tracer: Tracer, exporter: InMemorySpanExporter) -> None:
    """Null values within arrays are preserved as they are.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-value
    """
    assert recorded(tracer, exporter, ["a", None, "b"]) == ("a", None, "b")


def test_keys_are_unique_and_the_last_value_wins(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """Exported collections contain only unique keys.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-collections
    """
    span = tracer.start_span("a", attributes={"key": 1})
    span.set_attribute("key", 2)
    span.set_attributes({"key": 3})
    span.end()
    assert list(exporter.get_finished_spans()[0].attributes.items()) == [("key", 3)]


# Limits ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        ("abc", "abc"),
        ("abcd", "abc"),
        ("💼💼💼💼", "💼💼💼"),
        (["abcd", "e", None, 12345], ("abc", "e", None, 12345)),
        ({"a": "abcd", "b": {"c": ["abcd"]}}, {"a": "abc", "b": {"c": ("abc",)}}),
        (123456, 123456),
        (1.23456, 1.23456),
        (True, True),
    ],
)
def test_texts_are_cut_to_the_length_limit_and_nothing_else_is(
    make_provider: Any, exporter: InMemorySpanExporter, value: Any, kept: Any
) -> None:
    """Strings are truncated, counting characters, also those inside of arrays and maps.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-limits
    """
    tracer = make_provider(span_limits=SpanLimits(max_attribute_length=3)).get_tracer("library")
    assert recorded(tracer, exporter, value) == kept


def test_the_length_limit_is_for_events_and_links_too(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """The limits are those of every collection of attributes in a span.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-limits
    """
    tracer = make_provider(span_limits=SpanLimits(max_attribute_length=3)).get_tracer("library")
    span = tracer.start_span("a", links=[Link(SpanContext(1, 2, False), {"key": "abcd"})])
    span.add_event("event", {"key": "abcd"})
    span.end()
    (read,) = exporter.get_finished_spans()
    assert (read.links[0].attributes, read.events[0].attributes) == ({"key": "abc"},) * 2


def test_beyond_the_count_new_attributes_are_discarded_and_known_ones_change(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """An attribute that would exceed the limit is discarded; any other must not be.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-limits
    """
    tracer = make_provider(span_limits=SpanLimits(max_attributes=2)).get_tracer("library")
    span = tracer.start_span("a", attributes={"a": 1, "b": 2})
    span.set_attributes({"c": 3, "a": 4})
    span.end()
    assert exporter.get_finished_spans()[0].attributes == {"a": 4, "b": 2}


def test_the_limits_are_infinite_length_and_128_by_default(
    tracer: Tracer, exporter: InMemorySpanExporter
) -> None:
    """AttributeCountLimit is 128, AttributeValueLengthLimit has no limit.

    https://opentelemetry.io/docs/specs/otel/common/#configurable-parameters
    """
    assert len(recorded(tracer, exporter, "x" * 100_000)) == 100_000
    assert SpanLimits().max_attributes == SdkLimits().max_attributes == 128


SPECIFIC = [
    ("max_attributes", "max_span_attributes"),
    ("max_attributes", "max_event_attributes"),
    ("max_attributes", "max_link_attributes"),
    ("max_attribute_length", "max_span_attribute_length"),
]


@pytest.mark.parametrize(("general", "specific"), SPECIFIC)
def test_the_specific_limit_comes_before_the_general_one(general: str, specific: str) -> None:
    """The model's own limit first, then the general one, then the defaults.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-limits
    """
    default = getattr(SpanLimits(), specific)
    assert getattr(SpanLimits(**{general: 7}), specific) == 7
    assert getattr(SpanLimits(**{general: 7, specific: 9}), specific) == 9
    assert default == (None if "length" in specific else 128)


def test_resources_are_exempt(make_provider: Any, exporter: InMemorySpanExporter) -> None:
    """Resource attributes should be exempt from the limits.

    https://opentelemetry.io/docs/specs/otel/common/#exempt-entities
    """
    resource = Resource({f"key{number}": "text" for number in range(10)})
    limits = SpanLimits(max_attributes=1, max_attribute_length=1)
    make_provider(resource=resource, span_limits=limits).get_tracer("library").start_span("a").end()
    assert exporter.get_finished_spans()[0].resource.attributes == resource.attributes
