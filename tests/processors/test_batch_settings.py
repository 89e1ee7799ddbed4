"""Where the batch processor's settings come from, and what is done with unusable ones."""

from __future__ import annotations

import logging
import math
import sys

import pytest

from processors.doubles import Recording
from tracekit.errors import InvalidValueError
from tracekit.sdk import BatchSpanProcessor
from tracekit.testing import build_span


def in_force(processor):
    return (
        processor._delay_s,
        processor._lanes[0]._timeout_s,
        processor._limit,
        processor._batch_size,
    )


def make(**options):
    return BatchSpanProcessor(Recording(), **options)


DEFAULTS = (5.0, 30.0, 1_000_000, 512)


def test_defaults():
    assert in_force(make()) == DEFAULTS


def test_every_variable_is_honoured(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
    monkeypatch.setenv("OTEL_BSP_EXPORT_TIMEOUT", "40")
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", " 100 ")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "7")
    assert in_force(make()) == (0.02, 0.04, 100, 7)


def test_arguments_win_over_variables(monkeypatch):
    for name in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE"):
        monkeypatch.setenv(f"OTEL_BSP_{name}", "1")
    processor = make(
        schedule_delay_millis=20,
        export_timeout_millis=40,
        max_queue_size=100,
        max_export_batch_size=7,
    )
    assert in_force(processor) == (0.02, 0.04, 100, 7)


@pytest.mark.parametrize("text", ["-1", "abc", "1.5", "1e3", "0x10", "9" * 5000, "½", "nan"])
@pytest.mark.parametrize(
    "name", ["SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE"]
)
def test_a_variable_that_cannot_be_used_is_reported_and_ignored(monkeypatch, caplog, name, text):
    """https://opentelemetry.io/docs/specs/otel/configuration/common/#numeric"""
    monkeypatch.setenv(f"OTEL_BSP_{name}", text)
    assert in_force(make()) == DEFAULTS
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"OTEL_BSP_{name}" in record.getMessage()
    assert len(record.getMessage()) < 300


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_variable_counts_as_not_set(monkeypatch, caplog, text):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", text)
    assert in_force(make()) == DEFAULTS
    assert caplog.records == []


def test_sizes_of_zero_are_ignored_and_times_of_zero_mean_something(monkeypatch, caplog):
    """https://opentelemetry.io/docs/specs/otel/configuration/common/#timeout: 0 is no limit."""
    for name in ("SCHEDULE_DELAY", "EXPORT_TIMEOUT", "MAX_QUEUE_SIZE", "MAX_EXPORT_BATCH_SIZE"):
        monkeypatch.setenv(f"OTEL_BSP_{name}", "0")
    delay_s, timeout_s, queue_size, batch_size = in_force(make())
    assert 0 < delay_s <= 0.1, "as soon as possible, and not without a rest"
    assert (timeout_s, queue_size, batch_size) == (math.inf, 1_000_000, 512)
    assert len(caplog.records) == 2


@pytest.mark.parametrize(
    "options",
    [
        {"max_queue_size": 0},
        {"max_queue_size": -1},
        {"max_queue_size": 1.5},
        {"max_queue_size": True},
        {"max_queue_size": "10"},
        {"max_export_batch_size": 0},
        {"max_export_batch_size": "10"},
        {"schedule_delay_millis": -1},
        {"schedule_delay_millis": math.nan},
        {"schedule_delay_millis": "10"},
        {"export_timeout_millis": -1},
        {"export_timeout_millis": [1]},
        {"max_queue_size": 10, "max_export_batch_size": 11},
    ],
)
def test_an_argument_that_cannot_be_used_is_refused(options):
    with pytest.raises(InvalidValueError) as caught:
        make(**options)
    assert list(options)[-1].removesuffix("_millis") in str(caught.value)


def test_a_batch_shrinks_to_the_queue_when_only_the_queue_was_said(monkeypatch):
    assert in_force(make(max_queue_size=100))[3] == 100
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "50")
    assert in_force(make())[3] == 50


@pytest.mark.parametrize("delay", [math.inf, sys.maxsize, 1e300])
def test_a_delay_that_never_ends_keeps_the_worker_alive(delay):
    exporter = Recording()
    processor = BatchSpanProcessor(exporter, schedule_delay_millis=delay)
    processor.on_end(build_span("a"))
    assert processor.force_flush(10_000)
    assert exporter.names == ["a"]
    processor.shutdown()
