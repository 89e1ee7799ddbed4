"""The store as an exporter: what is said, how often, and what the ledger is told."""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

import pytest

from exporters.made import BrokenSpan, checkout, made
from tracekit.exporters.store import StoreExporter
from tracekit.interfaces import SpanExportResult
from tracekit.store.location import default_path
from tracekit.store.reader import StoreReader

FAILURE, SUCCESS = SpanExportResult.FAILURE, SpanExportResult.SUCCESS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


def test_spans_are_in_the_users_store_by_default() -> None:
    exporter = StoreExporter()
    assert exporter.export(checkout()) is SUCCESS
    exporter.shutdown()
    with StoreReader() as reader:
        assert reader.path == default_path()
        assert len(reader.trace("last")) == len(checkout())


def test_constructing_touches_nothing(path: Path) -> None:
    StoreExporter(path)
    assert not path.exists()


def test_spans_under_way_are_seen_until_they_end(path: Path) -> None:
    exporter = StoreExporter(path)
    assert exporter.export_started([made(1, for_ms=None)]) is SUCCESS
    with StoreReader(path) as reader:
        assert reader.summary().unfinished == 1
        assert exporter.export([made(1)]) is SUCCESS
        assert reader.summary().unfinished == 0
    exporter.shutdown()


def test_a_store_that_cannot_be_written_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = StoreExporter(tmp_path)
    with caplog.at_level(logging.DEBUG, "tracekit"):
        assert [exporter.export([made(1)]) for _ in range(5)] == [FAILURE] * 5
    (record,) = caplog.records
    assert record.name == "tracekit"
    assert "is a folder; name a file in TRACEKIT_STORE" in record.getMessage()


def test_each_cause_is_said_and_so_is_the_recovery(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = StoreExporter(path)
    path.mkdir()
    assert exporter.export([made(1)]) is FAILURE
    path.rmdir()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE customers (name TEXT)")
    db.close()
    assert exporter.export([made(1)]) is FAILURE
    path.unlink()
    assert [exporter.export([made(1)]) for _ in range(3)] == [SUCCESS] * 3
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == 3
    assert "is a folder" in messages[0]
    assert "another program's" in messages[1]
    assert messages[2] == f"span store {path} can be written again"
    exporter.shutdown()


def test_a_corrupt_store_is_said_once_and_costs_no_span(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.write_bytes(b"garbage " * 1000)
    exporter = StoreExporter(path)
    assert [exporter.export([made(number)]) for number in range(1, 4)] == [SUCCESS] * 3
    exporter.shutdown()
    (record,) = caplog.records
    assert "was set aside as" in record.getMessage()
    with StoreReader(path) as reader:
        assert len(reader.trace("last")) == 3


def test_a_newer_store_is_said_once_and_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = StoreExporter(path)
    first.export([made(1)])
    first.shutdown()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    exporter = StoreExporter(path)
    assert [exporter.export([made(2)]) for _ in range(3)] == [FAILURE] * 3
    (record,) = caplog.records
    assert "upgrade tracekit" in record.getMessage()


def test_a_span_with_a_field_that_raises_keeps_the_rest(path: Path) -> None:
    exporter = StoreExporter(path)
    broken = BrokenSpan(made(1, attributes={"good": 1}), "events")
    assert exporter.export([broken, made(2)]) is SUCCESS  # type: ignore[list-item]
    exporter.shutdown()
    with StoreReader(path) as reader:
        assert [span.attributes.get("good") for span in reader.trace("last")] == [1, None]


def test_spans_that_cannot_be_read_are_said_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = StoreExporter(path)
    nothing = [object(), made(1), object()]
    assert [exporter.export(nothing) for _ in range(3)] == [SUCCESS] * 3  # type: ignore[arg-type]
    exporter.shutdown()
    assert [record.getMessage() for record in caplog.records] == [
        "a span was not stored: its ids cannot be read"
    ]


def test_limits_are_the_exporters_arguments(path: Path) -> None:
    exporter = StoreExporter(path, max_bytes=500_000)
    for number in range(1, 200):
        spans = [made(1, trace_id=number, attributes={"text": "x" * 10_000})]
        assert exporter.export(spans) is SUCCESS
    exporter.shutdown()
    assert path.stat().st_size < 1_000_000
