"""Connections to our SQLite files: opening, recognising, and saying what is wrong with one."""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path

from tracekit.errors import StoreCorruptError, StoreError, StoreVersionError
from tracekit.store.location import private_folder

__all__ = [
    "APPLICATION_ID",
    "SCHEMA_VERSION",
    "STORE",
    "FileKind",
    "explain",
    "identity",
    "open_for_reading",
    "open_for_writing",
    "set_aside",
]

SCHEMA_VERSION = 1
APPLICATION_ID = 0x74726B74  # "trkt": tells our files from other programs' SQLite databases


@dataclass(frozen=True)
class FileKind:
    """What one kind of our files is called, and how it is told from others.

    Attributes:
        variable: Where another file can be named.
        schema: The file with its tables, beside this module.
    """

    noun: str
    variable: str
    application_id: int
    version: int
    schema: str


STORE = FileKind("span store", "TRACEKIT_STORE", APPLICATION_ID, SCHEMA_VERSION, "schema.sql")


def open_for_writing(path: Path, wait_s: float, kind: FileKind = STORE) -> sqlite3.Connection:
    """Open a file of that kind, making it when there is none.

    Raises:
        StoreVersionError: A newer tracekit wrote it; it was not touched.
        StoreCorruptError: It is not a readable database.
        StoreError: Anything else, with what to do about it.
    """
    if path.is_dir():
        raise StoreError(f"{kind.noun} {path} is a folder; name a file in {kind.variable}")
    db: sqlite3.Connection | None = None
    try:
        private_folder(path.parent)
        _create_private(path)
        db = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
        _prepare(db, path, kind)
        return db
    except (sqlite3.Error, OSError) as error:
        _close(db)
        raise explain(error, path, kind) from error
    except StoreError:
        _close(db)
        raise


def _create_private(path: Path) -> None:
    # SQLite gives -wal and -shm the mode of the file itself, so it must be right before them.
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    except FileExistsError:
        pass


def _prepare(db: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    if not check_version(db, path, kind):
        _create_schema(db, path, kind)
    db.execute("PRAGMA synchronous = NORMAL")  # a crash of the machine may cost the last batches
    db.execute("PRAGMA journal_size_limit = 16777216")
    db.execute("PRAGMA wal_autocheckpoint = 512")  # 4 MiB, as SQLite's default is
    db.execute("PRAGMA temp_store = MEMORY")


def check_version(db: sqlite3.Connection, path: Path, kind: FileKind = STORE) -> bool:
    """Return whether the file holds our schema; False when it is empty."""
    # One statement is one snapshot: another process may be making the tables right now.
    version, owner, tables = db.execute(
        "SELECT user_version, application_id, (SELECT count(*) FROM sqlite_master) "
        "FROM pragma_user_version, pragma_application_id"
    ).fetchone()
    if owner == version == tables == 0:
        return False
    if owner != kind.application_id:
        raise StoreError(
            f"{path} is another program's SQLite database and was not touched; "
            f"name another file in {kind.variable}"
        )
    if version > kind.version:
        raise StoreVersionError(
            f"{kind.noun} {path} has schema version {version}, this tracekit knows "
            f"{kind.version}: upgrade tracekit, or name another file in {kind.variable}"
        )
    return True


def _create_schema(db: sqlite3.Connection, path: Path, kind: FileKind) -> None:
    # All three must precede the first table. A page of 8 KiB holds the segment of a usual trace:
    # with 4 KiB the file is a third larger. Several processes may get here at once: the one that
    # gets the lock makes the tables, the others find them.
    db.execute("PRAGMA page_size = 8192")
    _retry_while_busy(db, "PRAGMA auto_vacuum = INCREMENTAL")
    _retry_while_busy(db, "PRAGMA journal_mode = WAL")
    db.execute("BEGIN IMMEDIATE")
    try:
        if not check_version(db, path, kind):
            for statement in _statements(kind.schema):
                db.execute(statement)
            db.execute(f"PRAGMA application_id = {kind.application_id}")
            db.execute(f"PRAGMA user_version = {kind.version}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def _retry_while_busy(db: sqlite3.Connection, pragma: str) -> None:
    """Run a pragma whose lock SQLite does not wait for by itself."""
    deadline = time.monotonic() + 2.0
    while True:
        try:
            db.execute(pragma)
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)


def _statements(schema: str) -> list[str]:
    script = Path(__file__).with_name(schema).read_text("utf-8")
    statements, pending = [], ""
    for line in script.splitlines():
        pending += line + "\n"
        if sqlite3.complete_statement(pending):
            statements.append(pending)
            pending = ""
    return statements


def open_for_reading(path: Path, wait_s: float) -> sqlite3.Connection:
    """Open the store without the means to change it.

    Raises:
        StoreError: Or one of its kinds, with what to do about it.
    """
    if not path.is_file():
        raise StoreError(_absence(path))
    db: sqlite3.Connection | None = None
    try:
        db = _connect_read_only(path, wait_s)
        if not check_version(db, path):
            raise StoreError(f"span store {path} is empty: nothing has been traced yet")
        return db
    except (sqlite3.Error, OSError) as error:
        _close(db)
        raise explain(error, path) from error
    except StoreError:
        _close(db)
        raise


def _absence(path: Path) -> str:
    if path.is_dir():
        return f"span store {path} is a folder; name a file in TRACEKIT_STORE"
    return (
        f"there is no span store at {path}: trace a program first (tracekit run python app.py), "
        "or name its store in TRACEKIT_STORE"
    )


def _connect_read_only(path: Path, wait_s: float) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode=ro"
    db = _connect_uri(uri, wait_s)
    try:
        db.execute("PRAGMA user_version")
        return db
    except sqlite3.Error as error:
        # WAL needs to write beside the file even to read it. Where it may not, and no writer
        # left anything there, the file alone is the whole store.
        db.close()
        may_write = os.access(path.parent, os.W_OK) or Path(f"{path}-wal").exists()
        if may_write or not isinstance(error, sqlite3.OperationalError):
            raise
        return _connect_uri(f"{uri}&immutable=1", wait_s)


def _connect_uri(uri: str, wait_s: float) -> sqlite3.Connection:
    return sqlite3.connect(
        uri, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False
    )


def _close(db: sqlite3.Connection | None) -> None:
    if db is not None:
        try:
            db.close()
        except sqlite3.Error:
            pass


def identity(path: Path) -> tuple[int, int] | None:
    """Return what tells this file from one that took its place; None when it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


_CAUSES = (
    ("malformed", "is corrupt"),
    ("not a database", "is not a database"),
    ("locked", "is locked by another process: end what holds it open, or name another file"),
    ("disk is full", "cannot grow, the disk is full: make room, or lower its limit"),
    ("readonly", "is read-only: change its mode, or name another file in {variable}"),
    ("Permission denied", "may not be opened: change its mode, or name another file"),
    ("unable to open", "cannot be opened: check that its folder exists and may be written"),
    ("Read-only file system", "is on a read-only disk: name another file in {variable}"),
    ("No space left", "cannot grow, the disk is full: make room"),
)


def explain(error: Exception, path: Path, kind: FileKind = STORE) -> StoreError:
    """Return the error as a sentence that says what to do.

    The text is compared, not the code: Python 3.10 does not tell the code.
    """
    text = str(error)
    for cause, sentence in _CAUSES:
        if cause in text:
            is_corrupt = sentence.startswith("is corrupt") or "not a database" in sentence
            cls = StoreCorruptError if is_corrupt else StoreError
            return cls(f"{kind.noun} {path} {sentence.format(variable=kind.variable)} ({text})")
    return StoreError(f"{kind.noun} {path} cannot be used: {text}")


def set_aside(path: Path, expected: tuple[int, int] | None) -> Path | None:
    """Rename a corrupt file, with its -wal and -shm; nothing is deleted.

    Returns:
        Where it is now; None when another process was faster, and ``path`` is fine already.
    """
    if expected is not None and identity(path) != expected:
        return None
    stamp = time.strftime("%Y%m%dT%H%M%S")
    target = Path(f"{path}.corrupt-{stamp}")
    if target.exists():
        target = Path(f"{target}-{os.getpid()}")
    # The companions go first: a fresh store must never meet the log of the old one.
    for suffix in ("-wal", "-shm", ""):
        try:
            os.rename(f"{path}{suffix}", f"{target}{suffix}")
        except FileNotFoundError:
            continue
    return target
