"""Bad conditions: one clear error each, and the file treated with care."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from store.records import ids, span
from tracekit.errors import StoreCorruptError, StoreError, StoreVersionError
from tracekit.store import writer as writer_module
from tracekit.store.reader import StoreReader
from tracekit.store.writer import StoreWriter

is_root = hasattr(os, "geteuid") and os.geteuid() == 0


@contextlib.contextmanager
def _database(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path, isolation_level=None)
    yield db
    db.close()


def _set_aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.corrupt-*"))


# --- corrupt ---------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"garbage " * 1000, b"SQLite format 3\0" + b"\xff" * 20000])
def test_a_corrupt_file_is_set_aside_and_a_new_one_begun(
    writer: StoreWriter, reader: StoreReader, path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    writer.write([span(1)])
    assert ids(reader.trace(1)) == [1]
    (kept,) = _set_aside(path)
    assert kept.read_bytes() == content


def test_a_file_that_becomes_corrupt_is_set_aside_with_its_log(
    writer: StoreWriter, reader: StoreReader, path: Path
) -> None:
    for number in range(1, 300):
        writer.write([span(1, number, attributes={"text": "x" * 500})])
    writer.close()
    content = bytearray(path.read_bytes())
    content[8192:] = b"\xff" * (len(content) - 8192)
    path.write_bytes(content)
    writer.write([span(1, 1000)])
    assert reader.stats().traces == 1
    assert len(_set_aside(path)) >= 1


def test_a_second_corruption_within_a_second_is_kept_too(path: Path) -> None:
    for content in (b"first " * 1000, b"second " * 1000):
        for suffix in ("", "-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)
        path.write_bytes(content)
        writer = StoreWriter(path)
        writer.write([span(1)])
        writer.close()
    assert {kept.read_bytes()[:5] for kept in _set_aside(path)} == {b"first", b"secon"}


def test_another_writer_goes_on_in_the_new_file(path: Path, reader: StoreReader) -> None:
    one, other = StoreWriter(path), StoreWriter(path)
    one.write([span(1, 1)])
    other.write([span(1, 2)])
    os.rename(path, f"{path}.corrupt-now")
    one.write([span(1, 3)])
    other.write([span(1, 4)])
    assert reader.stats().traces == 2
    one.close()
    other.close()


def test_a_reader_says_that_the_file_is_corrupt_and_leaves_it(
    reader: StoreReader, path: Path
) -> None:
    path.write_bytes(b"garbage " * 1000)
    with pytest.raises(StoreCorruptError, match="is not a database"):
        reader.traces()
    assert path.read_bytes() == b"garbage " * 1000


# --- somebody else's --------------------------------------------------------------------------


def test_a_newer_version_is_never_touched(
    writer: StoreWriter, reader: StoreReader, path: Path
) -> None:
    writer.write([span(1)])
    writer.close()
    with _database(path) as db:
        db.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    for use in (lambda: writer.write([span(2)]), reader.traces):
        with pytest.raises(StoreVersionError, match=r"schema version 99.*upgrade tracekit"):
            use()
    assert path.read_bytes() == before


def test_another_programs_database_is_never_touched(
    writer: StoreWriter, reader: StoreReader, path: Path
) -> None:
    with _database(path) as db:
        db.execute("CREATE TABLE customers (name TEXT)")
    before = path.read_bytes()
    for use in (lambda: writer.write([span(1)]), reader.traces):
        with pytest.raises(StoreError, match="another program's"):
            use()
    assert path.read_bytes() == before


# --- not to be had ----------------------------------------------------------------------------


def test_a_path_that_is_a_folder(tmp_path: Path) -> None:
    for use in (lambda: StoreWriter(tmp_path).write([span(1)]), StoreReader(tmp_path).traces):
        with pytest.raises(StoreError, match="is a folder; name a file"):
            use()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be used"):
        StoreWriter(tmp_path / "file" / "traces.db").write([span(1)])


def test_a_locked_store_is_given_up_within_the_wait(
    writer: StoreWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write([span(1)])
    writer.close()
    writer._wait_s = 0.05
    with _database(path) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another process"):
            writer.write([span(2)])
        holder.execute("ROLLBACK")
    writer.write([span(3)])


def test_after_a_lock_the_next_batch_does_not_wait_as_long(
    writer: StoreWriter, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer.write([span(1)])
    writer.close()
    writer._wait_s = 0.05
    with _database(path) as holder:
        holder.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError):
            writer.write([span(2)])
    assert writer._wait_s == writer_module._SHORT_WAIT_S
    writer.write([span(3)])
    assert writer._wait_s == writer_module._WAIT_S


def _without_privileges(program: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Run as a user whom file modes hold for; root may write anything."""
    drop = "import os; os.setuid(65534)\n" if is_root else ""
    # What is imported on first use may lie where only root can read.
    head = "import sys, urllib.parse\nfrom store.records import span\n"
    head += "from tracekit.store.writer import StoreWriter\n"
    head += "from tracekit.store.reader import StoreReader\n"
    head += f"path = {str(path)!r}\n"
    return subprocess.run(
        [sys.executable, "-c", head + drop + program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def public_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that another user may reach, for the time of a test."""
    if os.name == "nt":
        pytest.skip("POSIX modes")
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


_WRITE = """
try:
    StoreWriter(path).write([span(1)])
except Exception as error:
    print(type(error).__name__, error)
"""


def test_a_read_only_file(public_folder: Path) -> None:
    path = public_folder / "traces.db"
    writer = StoreWriter(path)
    writer.write([span(1)])
    writer.close()
    path.chmod(0o444)
    public_folder.chmod(0o555)
    done = _without_privileges(_WRITE, path)
    assert done.stdout.startswith("StoreError span store"), done
    assert "read-only" in done.stdout or "cannot be opened" in done.stdout


def test_a_read_only_folder(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    done = _without_privileges(_WRITE, public_folder / "traces.db")
    assert done.stdout.startswith("StoreError span store"), done
    assert "may not be opened" in done.stdout


def test_a_store_that_may_only_be_read_is_read(public_folder: Path) -> None:
    path = public_folder / "traces.db"
    writer = StoreWriter(path)
    writer.write([span(1, name="found")])
    writer.close()
    path.chmod(0o444)
    public_folder.chmod(0o555)
    done = _without_privileges("print(StoreReader(path).trace('last')[0].name)", path)
    assert done.stdout == "found\n", done


def test_no_store_says_how_to_get_one(reader: StoreReader) -> None:
    with pytest.raises(StoreError, match="tracekit run"):
        reader.traces()


def test_an_empty_file_says_that_nothing_was_traced(reader: StoreReader, path: Path) -> None:
    path.touch()
    with pytest.raises(StoreError, match="nothing has been traced yet"):
        reader.traces()


# --- while it is open -------------------------------------------------------------------------


def test_a_store_deleted_while_open_is_made_again(
    writer: StoreWriter, reader: StoreReader, path: Path
) -> None:
    writer.write([span(1, 1)])
    assert reader.stats().traces == 1
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    writer.write([span(1, 2)])
    assert reader.resolve("last") == 2
    assert reader.stats().traces == 1


def test_a_folder_deleted_while_open_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "state" / "traces.db"
    writer = StoreWriter(path)
    writer.write([span(1, 1)])
    shutil.rmtree(path.parent)
    writer.write([span(1, 2)])
    writer.close()
    with StoreReader(path) as reader:
        assert reader.resolve("last") == 2


# --- a full disk ------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = (
        is_root
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)],
            capture_output=True,
            check=False,
        ).returncode
    )
    if not mounted:
        pytest.skip("a file system of one megabyte needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(writer: StoreWriter) -> int:
    for number in range(1, 1000):
        try:
            writer.write([span(1, number, attributes={"text": "x" * 10_000})])
        except StoreError:
            return number - 1
    raise AssertionError("the disk never filled")


def test_a_full_disk_keeps_what_was_written(small_disk: Path) -> None:
    path = small_disk / "traces.db"
    writer = StoreWriter(path)
    written = _fill(writer)
    with pytest.raises(StoreError, match="disk is full"):
        writer.write([span(1, 2000, attributes={"text": "x" * 300_000})])
    writer.close()
    with StoreReader(path) as reader:
        assert written > 3
        assert reader.stats().traces >= written


def test_writing_goes_on_when_there_is_room_again(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 500_000)
    writer = StoreWriter(small_disk / "traces.db")
    _fill(writer)
    ballast.unlink()
    writer.write([span(1, 5000)])
    writer.close()
    with StoreReader(small_disk / "traces.db") as reader:
        assert reader.resolve(5000) == 5000


def test_a_file_size_limit_is_an_error_and_no_more(path: Path) -> None:
    resource = pytest.importorskip("resource")
    program = (
        "import resource\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\n"
        "from store.records import span\n"
        "from tracekit.errors import StoreError\n"
        "from tracekit.store.writer import StoreWriter\n"
        f"writer = StoreWriter({str(path)!r})\n"
        "for number in range(1, 200):\n"
        "    try:\n"
        "        writer.write([span(1, number, attributes={'text': 'x' * 10_000})])\n"
        "    except StoreError as error:\n"
        "        print('refused', error)\n"
        "        break\n"
    )
    assert resource
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("refused span store"), done
    with StoreReader(path) as reader:
        assert reader.stats().traces > 3
