"""Numbers in the environment: limits, sizes and times.

https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#numeric
"""

from __future__ import annotations

from typing import Any

import pytest

from tracekit.sdk import BatchSpanProcessor, InMemorySpanExporter, SpanLimits

LENGTHS = {
    "max_attribute_length": "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "max_span_attribute_length": "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
}
COUNTS = {
    "max_attributes": "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "max_span_attributes": "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "max_events": "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "max_links": "OTEL_SPAN_LINK_COUNT_LIMIT",
    "max_event_attributes": "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "max_link_attributes": "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
}
LIMITS = [*LENGTHS.values(), *COUNTS.values()]
SIZES = [
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
]


def settings_of_batch() -> Any:
    processor = BatchSpanProcessor(InMemorySpanExporter())
    processor.shutdown()
    values = vars(processor)
    return [values[name] for name in ("_limit", "_batch_size", "_delay_s")]


@pytest.mark.parametrize("text", ["-1", "abc", "1.5", "1e3", "0x10"])
@pytest.mark.parametrize("name", [*LIMITS, *SIZES])
def test_a_number_that_cannot_be_used_is_reported_once_and_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, text: str
) -> None:
    """What cannot be parsed or is out of range gives a warning and counts as not set.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#numeric
    """
    before = (vars(SpanLimits()), settings_of_batch())
    caplog.clear()
    monkeypatch.setenv(name, text)
    assert (vars(SpanLimits()), settings_of_batch()) == before
    assert [name in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("name", [*LIMITS, "OTEL_BSP_MAX_QUEUE_SIZE"])
def test_integers_up_to_31_bits_are_supported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    """Values from 0 to 2**31 - 1 are supported; sizes of queues are positive.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#integer
    """
    for value in (2**31 - 1, 1):
        monkeypatch.setenv(name, str(value))
        assert value in [*vars(SpanLimits()).values(), *settings_of_batch()]
    assert caplog.records == []


def test_durations_are_milliseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A duration is a whole number of milliseconds.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#duration
    """
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "12000")
    assert settings_of_batch()[2] == 12.0


def test_a_batch_that_exceeds_the_queue_is_reported_and_cut(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The batch size must be less than or equal to the queue size.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#batch-span-processor
    """
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "10")
    assert settings_of_batch()[:2] == [10, 10]
    assert caplog.records == []
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "20")
    assert settings_of_batch()[:2] == [10, 10]
    assert ["BATCH_SIZE" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(("limit", "variable"), [*LENGTHS.items(), *COUNTS.items()])
def test_each_limit_has_its_variable(
    monkeypatch: pytest.MonkeyPatch, limit: str, variable: str
) -> None:
    """Each limit of attributes and spans is read from its variable.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#span-limits
    """
    monkeypatch.setenv(variable, "7")
    assert getattr(SpanLimits(), limit) == 7


@pytest.mark.parametrize(
    ("limit", "general"),
    [
        ("max_span_attribute_length", "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT"),
        ("max_span_attributes", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
        ("max_event_attributes", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
        ("max_link_attributes", "OTEL_ATTRIBUTE_COUNT_LIMIT"),
    ],
)
def test_a_general_limit_is_that_of_what_has_none(
    monkeypatch: pytest.MonkeyPatch, limit: str, general: str
) -> None:
    """The general limit is used where the model's own is not set.

    https://opentelemetry.io/docs/specs/otel/common/#attribute-limits
    """
    monkeypatch.setenv(general, "7")
    assert getattr(SpanLimits(), limit) == 7
    monkeypatch.setenv({**LENGTHS, **COUNTS}[limit], "9")
    assert getattr(SpanLimits(), limit) == 9
