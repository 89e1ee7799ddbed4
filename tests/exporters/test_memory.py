"""The exporter that tests read from."""

from __future__ import annotations

import pytest

from exporters.made import made
from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.interfaces import SpanExportResult


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter(max_spans=3)


def test_spans_are_held_in_the_order_they_ended(exporter: InMemorySpanExporter) -> None:
    first, second = made(1), made(2)
    exporter.export([first])
    exporter.export([second])
    assert exporter.get_finished_spans() == (first, second)


def test_beyond_its_bound_the_oldest_are_dropped_and_counted(
    exporter: InMemorySpanExporter,
) -> None:
    exporter.export([made(number) for number in range(1, 6)])
    exporter.export([made(6)])
    assert [span.context.span_id for span in exporter.get_finished_spans()] == [4, 5, 6]
    assert exporter.dropped == 3


def test_no_bound_holds_everything() -> None:
    exporter = InMemorySpanExporter(max_spans=None)
    exporter.export([made(1)] * 200_000)
    assert len(exporter.get_finished_spans()) == 200_000


def test_the_default_is_bounded() -> None:
    exporter = InMemorySpanExporter()
    exporter.export([made(1)] * 200_000)
    assert len(exporter.get_finished_spans()) + exporter.dropped == 200_000
    assert exporter.dropped > 0


def test_clearing_starts_over(exporter: InMemorySpanExporter) -> None:
    exporter.export([made(number) for number in range(1, 6)])
    exporter.clear()
    assert exporter.get_finished_spans() == ()
    assert exporter.dropped == 0


def test_what_was_returned_does_not_change_afterwards(exporter: InMemorySpanExporter) -> None:
    exporter.export([made(1)])
    held = exporter.get_finished_spans()
    exporter.export([made(2)])
    assert len(held) == 1


def test_after_shutdown_the_held_spans_stay_and_no_more_are_taken(
    exporter: InMemorySpanExporter,
) -> None:
    exporter.export([made(1)])
    exporter.shutdown()
    assert exporter.export([made(2)]) is SpanExportResult.FAILURE
    assert len(exporter.get_finished_spans()) == 1
