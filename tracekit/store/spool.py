"""Requests that could not be sent, on the disk until they can be.

Theory of operation. A request is kept as the bytes that its destination takes, so that whoever
sends it later needs nothing but an exporter to the same place. All processes of a user share
one file. Who puts something in makes room first: what is too old goes, then what came first.
Who takes something out has a claim on the destination, of which there is one at a time on a
machine and which ends with its process; so requests leave in the order in which they came, and
no two processes send the same one. A request is marked while it is under way, so that nobody
drops, and counts as lost, what arrives; it is removed when the destination has answered.

The file is opened for each operation, since one is needed only while something is wrong. No
operation is under way while the process forks: a child would find SQLite's own locks held by a
thread that it does not have.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

from tracekit.errors import ConfigurationError, StoreCorruptError, StoreError
from tracekit.store import connection
from tracekit.store.claim import Claim
from tracekit.store.location import state_folder
from tracekit.store.process import this_process
from tracekit.store.retention import used_bytes

__all__ = ["SPOOL", "KeptRequest", "Spool", "Waiting", "default_spool_path"]

SPOOL = connection.FileKind("spool", "TRACEKIT_SPOOL", 0x74726B73, 1, "spool.sql")  # "trks"

DEFAULT_MAX_BYTES = 128 * 1024 * 1024
"""Some five million spans: they are kept compressed, in about a tenth of their size."""
DEFAULT_MAX_AGE_S = 24 * 3600.0
"""Back ends refuse, or file away unseen, what is older than about a day."""
LEAST_BYTES = 256 * 1024

FULL, EXPIRED, UNREADABLE = "spool_full", "spool_expired", "spool_unreadable"

_WAIT_S = 1.0
_FORK_WAIT_S = 2.0
_logger = logging.getLogger("tracekit")
_T = TypeVar("_T")


class KeptRequest(NamedTuple):
    """One request: what is in it and how many spans that are."""

    body: bytes
    spans: int
    headers: tuple[tuple[str, str], ...] = ()
    id: int = 0


class Waiting(NamedTuple):
    """What waits for one destination."""

    destination: str
    requests: int
    spans: int
    oldest_s: float

    @property
    def address(self) -> str:
        """The destination as it may be shown to anybody."""
        return self.destination.rpartition(" #")[0].partition(" ")[2] or self.destination


def default_spool_path(environ: Mapping[str, str] | None = None) -> Path:
    return state_folder(environ) / "spool.db"


class _OneAtATime:
    """Let one thread at a time work on spools, and none while the process forks."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._is_hooked = False
        self._held_for_fork = False

    @contextmanager
    def turn(self) -> Iterator[None]:
        if not self._is_hooked and hasattr(os, "register_at_fork"):
            self._is_hooked = True
            os.register_at_fork(
                before=self._before_fork,
                after_in_parent=self._after_fork,
                after_in_child=self._after_fork_in_child,
            )
        with self._lock:
            yield

    def _before_fork(self) -> None:
        # A disk that hangs may hang the spool, and must not hang whoever forks.
        self._held_for_fork = self._lock.acquire(timeout=_FORK_WAIT_S)

    def _after_fork(self) -> None:
        if self._held_for_fork:
            self._held_for_fork = False
            self._lock.release()

    def _after_fork_in_child(self) -> None:
        self._lock = threading.RLock()
        self._held_for_fork = False


_one_at_a_time = _OneAtATime()


class Spool:
    """A file of requests that wait to be sent; made when the first one is put in.

    Args:
        path: The file; None for ``spool.db`` in the user's state folder.
        max_bytes: Beyond it what came first is dropped; at least 256 KiB.
        max_age_s: What is older is dropped.

    Raises:
        ConfigurationError: A limit cannot be used.

    Concurrency: any number of processes and threads may use one file.
    Cost: nothing until something is put in.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_age_s: float = DEFAULT_MAX_AGE_S,
    ) -> None:
        if not max_bytes >= LEAST_BYTES:
            raise ConfigurationError(
                f"the spool's max_bytes={max_bytes!r} is not valid: expected at least "
                f"{LEAST_BYTES}, or spool=False for none."
            )
        if not max_age_s > 0:
            raise ConfigurationError(
                f"the spool's max_age_s={max_age_s!r} is not valid: expected seconds above 0, "
                "or spool=False for none."
            )
        self.path = default_spool_path() if path is None else Path(path).expanduser()
        self.max_bytes, self.max_age_s = max_bytes, max_age_s

    def exists(self) -> bool:
        """Say whether anything was ever put in. Cost: one look at the folder, 2 µs."""
        return self.path.exists()

    def mark(self) -> tuple[int, ...]:
        """Return what changes when somebody puts something in; empty without a file.

        Cost: two looks at the folder, 5 µs.
        """
        found: list[int] = []
        for path in (self.path, f"{self.path}-wal"):
            try:
                told = os.stat(path)
            except OSError:
                continue
            # Whoever has the file open to read makes an empty log beside it.
            found += (told.st_mtime_ns, told.st_size) if told.st_size else ()
        return tuple(found)

    def put(self, destination: str, requests: Sequence[KeptRequest]) -> Counter[str]:
        """Keep requests, all or none, and make room for them.

        Returns:
            Spans that were dropped for it, or were too old, by reason: anybody's.

        Raises:
            StoreError: Nothing was kept; the message says why and what to do.
        """
        now, process = time.time(), this_process()
        rows = []
        for request in requests:
            body = zlib.compress(request.body, 1)
            row = (destination, request.spans, len(body), now, process)
            rows.append((*row, json.dumps(request.headers), body))
        return self._transact(lambda db: self._insert(db, rows))

    def _insert(self, db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> Counter[str]:
        dropped = self._drop_expired(db)
        db.executemany(
            "INSERT INTO requests (destination, spans, bytes, kept_s, process, headers, body) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        while (excess := used_bytes(db) - self.max_bytes) > 0:
            oldest = _oldest(db, excess)
            if not oldest:
                break
            dropped[FULL] += _remove(db, oldest)
        return dropped

    def _drop_expired(self, db: sqlite3.Connection) -> Counter[str]:
        # What came "later than now" stays: the wall clock was set back meanwhile.
        born = time.time() - self.max_age_s
        found = db.execute(
            "SELECT id, spans FROM requests WHERE kept_s < ? AND NOT sending", (born,)
        ).fetchall()
        return Counter({EXPIRED: _remove(db, found)}) if found else Counter()

    def claim(self, destination: str) -> Claim:
        """Return the claim on a destination: ``with spool.claim(...) as claim``; None if taken."""
        name = hashlib.sha256(destination.encode()).hexdigest()[:16]
        return Claim(self.path.with_name(f"{self.path.name}.{name}.lock"))

    def take(self, destination: str) -> tuple[KeptRequest | None, Counter[str]]:
        """Return what came first and mark it as under way; for whoever has the claim.

        It stays until ``remove`` or ``put_back``; if neither comes, it is taken again later.

        Returns:
            The request, None when nothing waits; and the spans dropped meanwhile, by reason.

        Raises:
            StoreError: The file cannot be read.
        """
        if not self.exists():
            return None, Counter()
        return self._transact(lambda db: self._take(db, destination))

    def _take(
        self, db: sqlite3.Connection, destination: str
    ) -> tuple[KeptRequest | None, Counter[str]]:
        # What a claimant that is gone had under way is as old as it is.
        db.execute(
            "UPDATE requests SET sending = 0 WHERE destination = ? AND sending", (destination,)
        )
        dropped = self._drop_expired(db)
        while (row := db.execute(_FIRST, (destination,)).fetchone()) is not None:
            try:
                request = _request(row)
            except (zlib.error, ValueError, TypeError):
                # Left there, it would be in the way of all that came after it.
                dropped[UNREADABLE] += _remove(db, [row[:2]])
                continue
            db.execute("UPDATE requests SET sending = 1 WHERE id = ?", row[:1])
            return request, dropped
        return None, dropped

    def remove(self, request: KeptRequest) -> None:
        """Forget a request that the destination has answered for good."""
        self._transact(lambda db: _remove(db, [(request.id, 0)]))

    def put_back(self, request: KeptRequest) -> None:
        """Leave a request for later."""
        statement = "UPDATE requests SET sending = 0 WHERE id = ?"
        self._transact(lambda db: db.execute(statement, (request.id,)))

    def give_back_room(self) -> None:
        """Return what the file does not use to the disk."""
        if self.exists():
            with self._open() as db:
                db.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")

    def own_spans(self, destination: str) -> int:
        """Return how many spans of this process wait for that destination."""
        if not self.exists():
            return 0
        statement = (
            "SELECT coalesce(sum(spans), 0) FROM requests WHERE destination = ? AND process = ?"
        )
        with self._open() as db:
            return int(db.execute(statement, (destination, this_process())).fetchone()[0])

    def waiting(self) -> list[Waiting]:
        """Return what waits, by destination.

        Raises:
            StoreError: The file cannot be read.
        """
        if not self.exists():
            return []
        statement = (
            "SELECT destination, count(*), sum(spans), min(kept_s) FROM requests "
            "GROUP BY destination ORDER BY destination"
        )
        with self._open() as db:
            return [Waiting(*row) for row in db.execute(statement)]

    # --- the connection ----------------------------------------------------------------------

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        with (
            _one_at_a_time.turn(),
            closing(connection.open_for_writing(self.path, _WAIT_S, SPOOL)) as db,
        ):
            try:
                yield db
            except sqlite3.Error as error:
                raise connection.explain(error, self.path, SPOOL) from error

    def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        before = connection.identity(self.path)
        try:
            return self._try_transaction(work)
        except StoreCorruptError as error:
            self._set_aside(error, before)
            return self._try_transaction(work)

    def _try_transaction(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        # Closing the connection rolls back what was not committed.
        with self._open() as db:
            db.execute("BEGIN IMMEDIATE")
            result = work(db)
            db.execute("COMMIT")
        return result

    def _set_aside(self, error: StoreCorruptError, expected: tuple[int, int] | None) -> None:
        try:
            target = connection.set_aside(self.path, expected)
        except OSError as failure:
            raise StoreError(f"{error}; it could not be set aside: {failure}") from failure
        if target is not None:
            _logger.warning("%s; it was set aside as %s and a new one begun", error, target)


_FIRST = "SELECT id, spans, headers, body FROM requests WHERE destination = ? ORDER BY id LIMIT 1"


def _request(row: tuple[int, int, str, bytes]) -> KeptRequest:
    headers = tuple((str(name), str(value)) for name, value in json.loads(row[2]))
    return KeptRequest(zlib.decompress(row[3]), row[1], headers, row[0])


def _oldest(db: sqlite3.Connection, excess: int) -> list[tuple[int, int]]:
    """Return id and spans of the requests that came first and make so much room."""
    found: list[tuple[int, int]] = []
    statement = "SELECT id, spans, bytes FROM requests WHERE NOT sending ORDER BY id"
    for row_id, spans, size in db.execute(statement):
        found.append((row_id, spans))
        excess -= size
        if excess <= 0:
            break
    return found


def _remove(db: sqlite3.Connection, rows: Sequence[tuple[int, int]]) -> int:
    """Remove requests, and return how many spans they held."""
    db.executemany("DELETE FROM requests WHERE id = ?", [row[:1] for row in rows])
    return sum(spans for _, spans in rows)
