"""Several processes on one file, and what is left of one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from store.records import span
from tracekit.store.query import SpanFilter
from tracekit.store.reader import StoreReader
from tracekit.store.writer import StoreWriter

_PROCESSES, _BATCHES, _BATCH = 8, 40, 50

_WRITE = """
import sys
from store.records import service, span
from tracekit.store.writer import StoreWriter

path, process = sys.argv[1], int(sys.argv[2])
writer = StoreWriter(path)
sys.stdin.readline()
for batch in range({batches}):
    first = batch * {size}
    writer.write(
        [
            # Each trace is shared by all processes; each span is its own.
            span(process << 32 | number, number // 10 + 1, resource=service(f"s{{process}}"))
            for number in range(first + 1, first + {size} + 1)
        ]
    )
    print(batch, flush=True)
writer.close()
"""


def _start(path: Path, process: int, batches: int = _BATCHES) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [
            sys.executable,
            "-c",
            _WRITE.format(batches=batches, size=_BATCH),
            str(path),
            str(process),
        ],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def _release(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("go\n")
    process.stdin.flush()


def test_spans_of_eight_processes_arrive_exactly_once(path: Path, reader: StoreReader) -> None:
    running = [_start(path, number) for number in range(1, _PROCESSES + 1)]
    for process in running:
        _release(process)
    for process in running:
        process.communicate(timeout=100)
        assert process.returncode == 0
    expected = {
        number << 32 | place
        for number in range(1, _PROCESSES + 1)
        for place in range(1, _BATCHES * _BATCH + 1)
    }
    found = reader.spans(limit=len(expected) * 2)
    assert len(found) == len(expected)
    assert {item.context.span_id for item in found} == expected
    assert reader.stats().spans == len(expected)
    assert len(reader.summary(2).services) == _PROCESSES


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_killed_writer_leaves_whole_batches(path: Path, reader: StoreReader) -> None:
    with _start(path, 1, batches=100_000) as process:
        _release(process)
        assert process.stdout
        for line in process.stdout:
            if int(line) >= 20:
                process.kill()
                break
        told = 21 + sum(line.endswith("\n") for line in process.stdout)
    stored = reader.stats().spans
    assert stored % _BATCH == 0
    # What was said to be stored is stored; one batch more may be, that was not said any more.
    assert stored // _BATCH in (told, told + 1)
    writer = StoreWriter(path)
    writer.write([span(1, 999_999)])
    writer.close()
    assert reader.resolve(999_999) == 999_999


def test_a_reader_sees_whole_batches_while_others_write(path: Path, reader: StoreReader) -> None:
    writer = StoreWriter(path)
    writer.write([span(1, 10**6)])
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(1, 150):
                batch = [span(place, number, 1 if place > 1 else None) for place in range(1, 8)]
                writer.write(batch)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    counts = []
    while thread.is_alive():
        counts.append(reader.stats().spans)
        for summary in reader.traces(5, spans=SpanFilter(name="work")):
            assert len(reader.trace(summary.trace_id)) == summary.span_count
    thread.join()
    writer.close()
    assert failures == []
    assert counts == sorted(counts)
    assert all(count % 7 == 1 for count in counts)
    assert reader.stats().spans == 149 * 7 + 1
