"""Writing: repeated spans, spans under way, forks and threads."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from store.records import SHOP, ids, service, span, told
from tracekit.store.process import is_lost, this_process
from tracekit.store.reader import StoreReader
from tracekit.store.writer import StoreWriter


def test_a_span_written_again_replaces_the_first(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1), span(2, 1, 1, failed=True), span(3, 1, 1)])
    writer.write([span(2, 1, 1, name="again", for_ms=20)])
    assert [found.name for found in reader.trace(1)] == ["work", "again", "work"]
    summary = reader.summary(1)
    assert (summary.span_count, summary.error_count) == (3, 0)
    assert reader.stats().spans == 3
    assert sum(stats.count for stats in reader.operations()) == 3


def test_a_trace_written_again_whole_is_not_doubled(
    writer: StoreWriter, reader: StoreReader, path: Path
) -> None:
    spans = [span(number, 1, 1 if number > 1 else None) for number in range(1, 50)]
    writer.write(spans)
    other = StoreWriter(path)
    other.write(spans)
    other.close()
    assert [told(found) for found in reader.trace(1)] == [told(found) for found in spans]
    assert reader.summary(1).span_count == 49
    assert reader.summary(1).duration_ns == 10_000_000


def test_a_span_twice_in_one_batch_is_kept_once(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write([span(1, name="first"), span(1, name="second")])
    assert [found.name for found in reader.trace(1)] == ["second"]
    assert reader.summary(1).span_count == 1


def test_a_started_span_is_seen_without_an_end(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write_started([span(1, name="hangs")])
    (found,) = reader.trace("last")
    assert (found.name, found.end_time) == ("hangs", None)
    summary = reader.summary()
    assert (summary.unfinished, summary.lost, summary.end_ns) == (1, 0, None)


def test_an_ended_span_replaces_its_notice(writer: StoreWriter, reader: StoreReader) -> None:
    writer.write_started([span(1, name="GET"), span(2, 1, 1)])
    writer.write([span(1, name="GET /users/{id}")])
    assert [found.end_time is None for found in reader.trace(1)] == [False, True]
    assert reader.summary().name == "GET /users/{id}"
    assert [item.span.context.span_id for item in reader.unfinished()] == [2]


def test_a_notice_that_comes_after_the_end_is_left_out(
    writer: StoreWriter, reader: StoreReader
) -> None:
    writer.write([span(1)])
    writer.write_started([span(1)])
    assert reader.unfinished() == []
    assert reader.summary().unfinished == 0


def test_a_span_written_without_an_end_counts_as_started(
    writer: StoreWriter, reader: StoreReader
) -> None:
    writer.write([span(1, for_ms=None), span(2, 1, 1)])
    assert [item.span.context.span_id for item in reader.unfinished()] == [1]
    assert reader.summary().span_count == 1


def test_spans_of_a_process_that_died_are_lost(path: Path, reader: StoreReader) -> None:
    program = (
        "from store.records import span\n"
        "from tracekit.store.writer import StoreWriter\n"
        f"StoreWriter({str(path)!r}).write_started([span(1, name='died')])\n"
    )
    tests = str(Path(__file__).parents[1])
    subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": tests}, check=True
    )
    (found,) = reader.unfinished()
    assert found.lost
    assert reader.summary().lost == 1


def test_this_process_is_not_lost() -> None:
    assert not is_lost(this_process())


def test_a_later_process_with_the_same_pid_is_another_one() -> None:
    pid, _, rest = this_process().split(":", 2)
    assert is_lost(f"{pid}:1:{rest}")


def test_a_process_in_another_container_is_not_judged() -> None:
    pid, _, boot, _ = this_process().split(":", 3)
    assert not is_lost(f"{pid}:1:{boot}:pid[1]")


def test_a_process_before_a_reboot_is_lost() -> None:
    pid, start, _, namespace = this_process().split(":", 3)
    assert is_lost(f"{pid}:{start}:another:{namespace}")


def test_the_name_of_a_trace_is_its_roots_in_whatever_order_spans_come(
    writer: StoreWriter, reader: StoreReader
) -> None:
    writer.write([span(3, 1, 2, name="leaf", at_ms=2, resource=service("orders"))])
    writer.write([span(2, 1, 1, name="entry", at_ms=1, remote=True, resource=service("orders"))])
    assert (reader.summary().name, reader.summary().has_root) == ("entry", False)
    writer.write([span(1, 1, name="root", resource=service("gateway"))])
    summary = reader.summary()
    assert (summary.name, summary.service, summary.has_root) == ("root", "gateway", True)
    assert summary.services == ("gateway", "orders")


def test_several_threads_may_share_a_writer(writer: StoreWriter, reader: StoreReader) -> None:
    def write(trace: int) -> None:
        for number in range(1, 30):
            writer.write([span(number, trace)])

    threads = [threading.Thread(target=write, args=(trace,)) for trace in range(1, 6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert reader.stats().spans == 5 * 29


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_writes_through_a_connection_of_its_own(
    writer: StoreWriter, reader: StoreReader
) -> None:
    writer.write([span(1, 1)])
    parent_connection = writer._db
    child = os.fork()
    if child == 0:
        try:
            writer.write([span(1, 2)])
            os._exit(0 if writer._db is not parent_connection else 3)
        except BaseException:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    writer.write([span(1, 3)])
    assert reader.stats().traces == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_ends_normally_harms_no_transaction_of_its_parent(
    path: Path, reader: StoreReader
) -> None:
    program = (
        "import os, sys\n"
        "from store.records import span\n"
        "from tracekit.store.writer import StoreWriter\n"
        f"writer = StoreWriter({str(path)!r})\n"
        "writer.write([span(1, 1)])\n"
        "db = writer._connect()\n"
        "db.execute('BEGIN IMMEDIATE')\n"
        "db.execute('UPDATE traces SET note = hex(randomblob(900000))')\n"
        "if os.fork() == 0:\n"
        "    writer._own_lock()\n"
        "    sys.exit(0)\n"
        "os.wait()\n"
        "db.execute('UPDATE traces SET note = \"done\"')\n"
        "db.execute('COMMIT')\n"
        "writer.write([span(1, 2)])\n"
    )
    tests = str(Path(__file__).parents[1])
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env={**os.environ, "PYTHONPATH": tests},
        check=True,
    )
    assert reader.summary(1).note == "done"
    assert reader.stats().traces == 2


@pytest.mark.skipif(os.name == "nt", reason="POSIX modes")
def test_the_file_is_its_owners_only(tmp_path: Path) -> None:
    path = tmp_path / "state" / "tracekit" / "traces.db"
    writer = StoreWriter(path)
    writer.write([span(1)])
    modes = {name: stat.S_IMODE(os.stat(f"{path}{name}").st_mode) for name in ("", "-wal", "-shm")}
    writer.close()
    assert modes == {"": 0o600, "-wal": 0o600, "-shm": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_an_empty_batch_makes_no_file(writer: StoreWriter, path: Path) -> None:
    assert writer.write([]) == []
    assert not path.exists()


def test_what_is_no_span_is_handed_back(writer: StoreWriter, reader: StoreReader) -> None:
    refused: list[Any] = [object(), span(2**70)]
    assert writer.write([refused[0], span(1), refused[1]]) == refused
    assert ids(reader.trace(1)) == [1]


def test_resources_are_stored_once(writer: StoreWriter, path: Path) -> None:
    import sqlite3

    for number in range(1, 5):
        writer.write([span(number, resource=type(SHOP)(SHOP.attributes))])
    db = sqlite3.connect(path)
    assert db.execute("SELECT count(*) FROM resources").fetchone() == (1,)
    db.close()
