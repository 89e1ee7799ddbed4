"""Size and age: the oldest traces go whole, and nobody waits long."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.records import span
from tracekit.store import retention as retention_module
from tracekit.store.reader import StoreReader
from tracekit.store.writer import StoreWriter

_TEXT = {"text": "x" * 2000}
_CAP = 1_000_000


@pytest.fixture
def small(path: Path) -> Iterator[StoreWriter]:
    writer = StoreWriter(path, max_bytes=_CAP)
    yield writer
    writer.close()


def _write_trace(writer: StoreWriter, trace: int, spans: int = 10) -> None:
    writer.write(
        [
            span(number, trace, 1 if number > 1 else None, attributes=_TEXT)
            for number in range(1, spans + 1)
        ]
    )


def _age(path: Path, trace: int, seconds: int) -> None:
    """Let a trace have been stored so long ago."""
    db = sqlite3.connect(path)
    with db:
        db.execute(
            "UPDATE traces SET stored_s = stored_s - ? WHERE trace_id = ?",
            (seconds, trace.to_bytes(16, "big")),
        )
    db.close()


def test_the_store_stays_within_its_size(
    small: StoreWriter, reader: StoreReader, path: Path
) -> None:
    for trace in range(1, 300):
        _write_trace(small, trace)
        assert path.stat().st_size < _CAP * 1.5
    assert 20 < reader.stats().traces < 100


def test_the_oldest_traces_go_and_the_others_stay_whole(
    small: StoreWriter, reader: StoreReader
) -> None:
    for trace in range(1, 200):
        _write_trace(small, trace)
    kept = sorted(found.trace_id for found in reader.traces(1000))
    assert kept == list(range(kept[0], 200))
    assert {len(reader.trace(trace)) for trace in kept} == {10}
    assert {reader.summary(trace).removed for trace in kept} == {0}


def test_nothing_is_left_of_a_removed_trace(
    small: StoreWriter, reader: StoreReader, path: Path
) -> None:
    small.write_started([span(99, 1)])
    for trace in range(1, 200):
        _write_trace(small, trace)
    db = sqlite3.connect(path)
    orphans = [
        db.execute(f"SELECT count(*) FROM {table} WHERE {condition}").fetchone()[0]
        for table, condition in (
            ("segments", "trace NOT IN (SELECT id FROM traces)"),
            ("payloads", "id NOT IN (SELECT id FROM segments)"),
            ("started", "trace NOT IN (SELECT id FROM traces)"),
        )
    ]
    db.close()
    assert orphans == [0, 0, 0]
    assert reader.unfinished() == []


def test_a_trace_larger_than_the_store_loses_its_oldest_part_and_says_so(
    small: StoreWriter, reader: StoreReader, path: Path
) -> None:
    total = 0
    for batch in range(400):
        first = batch * 5 + 1
        small.write([span(number, 1, attributes=_TEXT) for number in range(first, first + 5)])
        total += 5
    summary = reader.summary(1)
    assert summary.removed > 0
    assert summary.span_count + summary.removed == total
    assert len(reader.trace(1)) == summary.span_count
    assert path.stat().st_size < _CAP * 2


def test_a_quiet_trace_goes_before_one_that_is_still_growing(
    small: StoreWriter, reader: StoreReader, path: Path
) -> None:
    _write_trace(small, 1)
    for trace in range(2, 30):
        _write_trace(small, trace)
        _age(path, trace, 3600)
    for trace in range(30, 60):
        _write_trace(small, trace)
        _age(path, trace, 3600)
    kept = {found.trace_id for found in reader.traces(1000)}
    assert 1 in kept
    assert 2 not in kept


def test_old_traces_go_by_the_time_they_were_stored(path: Path, reader: StoreReader) -> None:
    writer = StoreWriter(path, max_age_s=3600)
    _write_trace(writer, 1)  # its own times lie years back
    _write_trace(writer, 2)
    _age(path, 1, 7200)
    writer.close()
    later = StoreWriter(path, max_age_s=3600)
    _write_trace(later, 3)
    later.close()
    assert {found.trace_id for found in reader.traces()} == {2, 3}


def test_a_pinned_trace_stays(small: StoreWriter, reader: StoreReader) -> None:
    _write_trace(small, 1)
    assert small.pin(1, note="the slow one")
    for trace in range(2, 200):
        _write_trace(small, trace)
    assert reader.summary(1).pinned
    assert reader.summary(1).note == "the slow one"
    assert len(reader.trace(1)) == 10


def test_room_that_is_long_free_goes_back_to_the_disk(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = StoreWriter(path)
    for trace in range(1, 200):
        _write_trace(large, trace)
    large.close()
    before = path.stat().st_size
    monkeypatch.setattr(retention_module, "_SPARE_PAGES", 50)
    small = StoreWriter(path, max_bytes=_CAP)
    for trace in range(200, 210):
        _write_trace(small, trace)
    small.close()
    assert path.stat().st_size < before / 2


def test_an_unknown_trace_cannot_be_pinned(small: StoreWriter) -> None:
    _write_trace(small, 1)
    assert not small.pin(2)


def test_clear_removes_all_but_what_is_pinned_and_returns_the_room(
    writer: StoreWriter, reader: StoreReader, path: Path
) -> None:
    for trace in range(1, 100):
        _write_trace(writer, trace)
    writer.pin(7)
    writer.clear()
    writer.close()
    assert [found.trace_id for found in reader.traces()] == [7]
    assert path.stat().st_size < 200_000


def test_one_step_removes_a_bounded_number_of_segments(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two steps the lock is free, so another writer waits for one step at most."""
    writer = StoreWriter(path)
    for number in range(1, 700):
        writer.write([span(number, 1)])
    assert writer._db is not None
    monkeypatch.setattr(retention_module, "_STEP_SEGMENTS", 100)
    writer._transact(lambda db: retention_module.remove_oldest(db, target=0))
    (left,) = writer._db.execute("SELECT count(*) FROM segments").fetchone()
    writer.close()
    assert 590 < left < 610


def test_resources_that_nothing_refers_to_are_removed(
    small: StoreWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from store.records import service

    monkeypatch.setattr(retention_module, "_MANY_RESOURCES", 10)
    for trace in range(1, 300):
        small.write(
            [span(1, trace, attributes={"text": "x" * 20_000}, resource=service(f"s{trace}"))]
        )
    db = sqlite3.connect(path)
    (left,) = db.execute("SELECT count(*) FROM resources").fetchone()
    db.close()
    assert left < 150
