"""Write spans to the store.

Theory of operation. Spans of a batch are sorted into segments (one for each trace and
resource) and encoded before the database is touched; then one short ``BEGIN IMMEDIATE``
transaction adds them. A batch is a handful of statements of many rows each, not one a span:
sqlite3 gives up the GIL at every statement, and a busy program may keep it for 5 ms each
time, while other processes wait for our lock.

A span that is there already (same trace, same span id) is replaced. To know, the span ids of
a trace are read back when a batch brings more of a trace that exists; they are remembered for
as long as that takes little memory.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tracekit.errors import StoreCorruptError, StoreError
from tracekit.store import connection
from tracekit.store.batch_sql import insert_batch, insert_started
from tracekit.store.known import KnownSpans
from tracekit.store.location import default_path
from tracekit.store.origins import Origins
from tracekit.store.process import this_process
from tracekit.store.retention import Retention
from tracekit.store.segment import Batch, gather
from tracekit.store.terms import TermCache

__all__ = ["DEFAULT_MAX_AGE_S", "DEFAULT_MAX_BYTES", "StoreWriter"]

DEFAULT_MAX_BYTES = 512 * 1024 * 1024
DEFAULT_MAX_AGE_S = 7 * 24 * 3600.0

_WAIT_S = 5.0
_SHORT_WAIT_S = 0.1
_SLICE = 2048
_logger = logging.getLogger("tracekit")
_T = TypeVar("_T")


class StoreWriter:
    """Write spans to one store file; make it when the first ones come.

    Concurrency: any number of processes and threads may write to one file, each process
    through writers of its own; a writer that was carried over a fork opens a connection of
    its own. Calls on one writer wait for one another.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_age_s: float = DEFAULT_MAX_AGE_S,
    ) -> None:
        self.path = default_path() if path is None else Path(path)
        self._limits = max_bytes, max_age_s
        self._db: sqlite3.Connection | None = None
        self._reset()

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._identity: tuple[int, int] | None = None
        self._wait_s = _WAIT_S
        self._origins = Origins()
        self._terms = TermCache()
        self._known = KnownSpans()
        self._retention = Retention(*self._limits)
        self._process = ""

    def write(self, spans: Iterable[Any]) -> list[Any]:
        """Add ended spans; those without an end are kept as started ones.

        Args:
            spans: Anything that reads like ``tracekit.interfaces.ReadableSpan``.

        Returns:
            Those that could not be read, and were left out.

        Raises:
            StoreError: Nothing of the last transaction (at most 2048 spans) was stored.
        """
        return self._write(spans, started=False)

    def write_started(self, spans: Iterable[Any]) -> list[Any]:
        """Note spans that are under way, so that what hangs, or dies, can be seen.

        Each is replaced when the ended span is written. Returns and raises as ``write``.
        """
        return self._write(spans, started=True)

    def _write(self, spans: Iterable[Any], started: bool) -> list[Any]:
        refused: list[Any] = []
        source = iter(spans)
        with self._own_lock():
            while part := list(islice(source, _SLICE)):
                batch = gather(part, self._origins, self._terms, started)
                self._transact(partial(self._insert, batch))
                refused += batch.refused
            if self._db is not None:
                self._after_write(self._retention.enforce)
        return refused

    def _insert(self, batch: Batch, db: sqlite3.Connection) -> int:
        insert_batch(db, batch, self._known)
        if batch.unfinished:
            self._process = self._process or this_process()
            insert_started(db, batch, self._known, self._process)
        return 0

    def _after_write(self, enforce: Callable[..., None]) -> None:
        # The spans are stored by now: whatever retention meets is the next batch's to report.
        try:
            enforce(self._db, self._transact)
        except (sqlite3.Error, StoreError):
            _logger.debug("retention of the span store was put off", exc_info=True)

    def pin(self, trace_id: int, pinned: bool = True, note: str = "") -> bool:
        """Keep a trace from retention; False when there is no such trace."""
        statement = "UPDATE traces SET pinned = ?, note = ? WHERE trace_id = ?"
        parameters = (pinned, note, trace_id.to_bytes(16, "big"))
        with self._own_lock():
            return self._transact(lambda db: db.execute(statement, parameters).rowcount) > 0

    def clear(self) -> None:
        """Remove all traces but pinned ones, and give the room back to the disk."""
        with self._own_lock():
            self._transact(_clear)
            if self._db is not None:
                self._db.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close the connection; the next write opens it again."""
        with self._own_lock():
            self._close()

    # --- the connection ----------------------------------------------------------------------

    def _own_lock(self) -> threading.Lock:
        if self._pid != os.getpid():
            self._leave_to_parent()
        return self._lock

    def _leave_to_parent(self) -> None:
        # A connection must not even be closed in a forked child: rolling back a transaction
        # of the parent's would write to the memory that both share. The lock may be held for
        # ever, by a thread that exists in the parent only.
        if self._db is not None:
            _keep_for_ever(self._db)
        self._db = None
        self._reset()

    def _transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        try:
            return self._try_transaction(work)
        except StoreCorruptError as error:
            self._set_aside(error)
            return self._try_transaction(work)

    def _try_transaction(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        db = self._connect()
        try:
            db.execute("BEGIN IMMEDIATE")
            result = work(db)
            db.execute("COMMIT")
        except BaseException as error:
            self._give_up(db)
            if not isinstance(error, sqlite3.Error):
                raise
            if "locked" in str(error):
                self._wait_s = _SHORT_WAIT_S  # the next batch does not wait as long again
            raise connection.explain(error, self.path) from error
        self._wait_s = _WAIT_S
        return result

    def _give_up(self, db: sqlite3.Connection) -> None:
        # Closing rolls back, also where ROLLBACK itself would fail; the next batch starts afresh.
        self._known.clear()
        self._close()

    def _connect(self) -> sqlite3.Connection:
        path = self.path
        if self._db is not None and connection.identity(path) != self._identity:
            self._close()  # deleted or replaced by somebody: what we would write is lost
        if self._db is None:
            self._known.clear()
            self._db = connection.open_for_writing(path, self._wait_s)
            self._identity = connection.identity(path)
        return self._db

    def _close(self) -> None:
        if self._db is None:
            return
        try:
            self._db.close()
        except sqlite3.Error:
            _logger.debug("the span store did not close cleanly", exc_info=True)
        self._db = None

    def _set_aside(self, error: StoreCorruptError) -> None:
        identity = self._identity or connection.identity(self.path)
        self._identity = None
        self._close()
        try:
            target = connection.set_aside(self.path, identity)
        except OSError as failure:
            raise StoreError(f"{error}; it could not be set aside: {failure}") from failure
        if target is not None:
            _logger.warning("%s; it was set aside as %s and a new one begun", error, target)


def _clear(db: sqlite3.Connection) -> int:
    kept = "(SELECT id FROM traces WHERE pinned)"
    db.execute(
        f"DELETE FROM payloads WHERE id NOT IN (SELECT id FROM segments WHERE trace IN {kept})"
    )
    for table in ("segments", "started"):
        db.execute(f"DELETE FROM {table} WHERE trace NOT IN {kept}")
    return db.execute("DELETE FROM traces WHERE NOT pinned").rowcount


def _keep_for_ever(db: sqlite3.Connection) -> None:
    """Take one reference more than there are, so that the connection is never finalised."""
    try:
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(db))
    except (ImportError, AttributeError):
        _inherited.append(db)


_inherited: list[sqlite3.Connection] = []
