"""OTLP JSON lines in a file that several may write, on disks that may fail."""

from __future__ import annotations

import errno
import fcntl
import io
import logging
import multiprocessing
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from exporters.made import UNREADABLE_SPANS, made
from tracekit.exporters import _append
from tracekit.exporters._append import append
from tracekit.exporters._otlp_json import decode
from tracekit.exporters.otlp_file import OtlpFileExporter
from tracekit.interfaces import SpanExportResult

FAILURE, SUCCESS = SpanExportResult.FAILURE, SpanExportResult.SUCCESS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.jsonl"


def span_ids(path: Path) -> list[int]:
    """Return the ids in the file, each line of which must be a document by itself."""
    return [
        span.context.span_id for line in path.read_bytes().splitlines() for span in decode(line)
    ]


def test_each_batch_is_one_line(path: Path) -> None:
    exporter = OtlpFileExporter(path)
    exporter.export([made(1), made(2)])
    exporter.export([made(3)])
    assert len(path.read_bytes().splitlines()) == 2
    assert span_ids(path) == [1, 2, 3]


def test_what_is_in_the_file_stays(path: Path) -> None:
    OtlpFileExporter(path).export([made(1)])
    OtlpFileExporter(path).export([made(2)])
    assert span_ids(path) == [1, 2]


def test_an_empty_batch_writes_nothing(path: Path) -> None:
    assert OtlpFileExporter(path).export([]) is SUCCESS
    assert not path.exists()


def test_missing_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "traces.jsonl"
    assert OtlpFileExporter(path).export([made(1)]) is SUCCESS
    assert span_ids(path) == [1]


def test_the_path_comes_from_the_environment(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEKIT_OTLP_FILE", str(path))
    OtlpFileExporter().export([made(1)])
    assert span_ids(path) == [1]


def test_without_a_path_it_is_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    OtlpFileExporter().export([made(1)])
    assert span_ids(tmp_path / "traces.jsonl") == [1]


def test_a_later_change_of_folder_does_not_move_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    exporter = OtlpFileExporter("traces.jsonl")
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    exporter.export([made(1)])
    assert span_ids(tmp_path / "traces.jsonl") == [1]


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    OtlpFileExporter(f"file://{tmp_path}/a%20b.jsonl").export([made(1)])
    assert span_ids(tmp_path / "a b.jsonl") == [1]


@pytest.mark.parametrize("name", ["-", "stdout"])
def test_a_dash_is_standard_output(name: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    print("the program's own")
    assert OtlpFileExporter(name).export([made(1, "é")]) is SUCCESS
    own, line = capsysbinary.readouterr().out.splitlines()
    assert own == b"the program's own"
    assert decode(line)[0].name == "é"


def test_standard_output_without_bytes_is_written_as_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    OtlpFileExporter("-").export([made(1)])
    assert decode(sys.stdout.getvalue())[0].context.span_id == 1  # type: ignore[attr-defined]


# --- several writers


def write_batches(path: Path, first: int, batches: int) -> None:
    exporter = OtlpFileExporter(path)
    for number in range(first, first + batches):
        # Larger than a pipe or a page takes at once.
        assert exporter.export([made(number, attributes={"pad": "x" * 100_000})]) is SUCCESS


def test_lines_of_several_processes_and_threads_never_mix(path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    workers: list[Any] = [
        spawn.Process(target=write_batches, args=(path, 1000 * n, 20)) for n in (1, 2)
    ]
    workers += [threading.Thread(target=write_batches, args=(path, 1000 * n, 20)) for n in (3, 4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    expected = [1000 * n + index for n in (1, 2, 3, 4) for index in range(20)]
    assert sorted(span_ids(path)) == expected


def test_a_forked_child_writes_beside_its_parent(path: Path) -> None:
    program = (
        "import os, sys\n"
        "from exporters.test_otlp_file import write_batches\n"
        "write_batches(sys.argv[1], 1, 1)\n"
        "child = os.fork()\n"
        "write_batches(sys.argv[1], 100 if child else 200, 10)\n"
        "os.waitpid(child, 0) if child else os._exit(0)\n"
    )
    here = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    subprocess.run([sys.executable, "-c", program, str(path)], env=environment, check=True)
    assert sorted(span_ids(path)) == [1, *range(100, 110), *range(200, 210)]


def test_a_file_that_was_rotated_away_is_made_anew(path: Path) -> None:
    exporter = OtlpFileExporter(path)
    exporter.export([made(1)])
    path.rename(path.with_suffix(".1"))
    exporter.export([made(2)])
    assert span_ids(path) == [2]


def test_a_line_torn_by_a_killed_process_does_not_swallow_the_next(path: Path) -> None:
    path.write_bytes(b'{"resourceSpans":[{"sco')
    OtlpFileExporter(path).export([made(1)])
    assert decode(path.read_bytes().splitlines()[1])[0].context.span_id == 1


def test_somebody_who_never_gives_the_lock_back_is_not_waited_for(path: Path) -> None:
    with path.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        append(str(path), b"line\n", patience_s=0.02)
    assert path.read_bytes() == b"line\n"


# --- disks that fail


def test_a_folder_in_the_files_place_is_one_message_and_no_exception(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = OtlpFileExporter(tmp_path)
    assert [exporter.export([made(1)]) for _ in range(3)] == [FAILURE] * 3
    assert len(caplog.records) == 1
    assert str(tmp_path) in caplog.text


def test_recovery_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "traces.jsonl"
    path.mkdir()
    exporter = OtlpFileExporter(path)
    exporter.export([made(1)])
    path.rmdir()
    assert [exporter.export([made(n)]) for n in (2, 3)] == [SUCCESS] * 2
    assert [record.levelno for record in caplog.records] == [logging.WARNING] * 2
    assert "again" in caplog.text


def test_a_folder_that_cannot_be_made_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert OtlpFileExporter(tmp_path / "file" / "traces.jsonl").export([made(1)]) is FAILURE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_device_is_a_failure(caplog: pytest.LogCaptureFixture) -> None:
    assert OtlpFileExporter("/dev/full").export([made(1)]) is FAILURE
    assert "No space left" in caplog.text


def test_a_disk_that_fills_up_within_a_line_leaves_no_half_of_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exporter = OtlpFileExporter(path)
    exporter.export([made(1)])
    real, room = os.write, iter([100])

    def write(descriptor: int, data: Any) -> int:
        size = next(room, None)
        if size is None:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(descriptor, data[:size])

    with monkeypatch.context() as patched:
        patched.setattr(_append.os, "write", write)
        assert exporter.export([made(2)]) is FAILURE
    assert span_ids(path) == [1]
    assert exporter.export([made(3)]) is SUCCESS
    assert span_ids(path) == [1, 3]


def test_a_pipe_that_nobody_reads_is_a_failure_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert OtlpFileExporter(pipe).export([made(1)]) is FAILURE


def test_a_pipe_that_nobody_empties_is_given_up(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(BlockingIOError):
            append(str(pipe), b"x" * 1_000_000, patience_s=0.02)
    finally:
        os.close(reader)


def test_spans_that_cannot_be_encoded_are_counted_and_said_once(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    exporter = OtlpFileExporter(path)
    for _ in range(2):
        assert exporter.export([made(1), *UNREADABLE_SPANS.values()]) is SUCCESS
    assert exporter.skipped == 2 * len(UNREADABLE_SPANS)
    assert len(caplog.records) == 1
    assert span_ids(path) == [1, 1]
