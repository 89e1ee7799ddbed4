"""The right to do something alone, among all processes of a machine.

A lock that the operating system keeps is held exactly as long as its process lives: whoever is
killed lets go at that moment, whoever is stopped does not, and no clock is read. It is asked
for without waiting.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType
from typing import Any

from tracekit.store.location import private_folder

__all__ = ["Claim"]

_mine: dict[tuple[int, str], Claim] = {}
"""By process and path. Without a lock, which a fork might leave held for ever: the operations on
it are single ones, which no other thread can interrupt."""


class Claim:
    """Hold a lock file as long as the block runs; ``None`` for who comes while it is held.

    POSIX locks belong to the process, not to the file object: they do not keep a second thread
    out, which ``_mine`` does, and a forked child has none of its parent's.
    Source: https://man7.org/linux/man-pages/man2/fcntl.2.html (Advisory record locking)

    Raises:
        OSError: The lock file can be neither made nor opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key = (os.getpid(), str(path))
        self._file = -1

    def __enter__(self) -> Claim | None:
        if _mine.setdefault(self._key, self) is not self:
            return None
        try:
            self._file = self._locked()
        finally:
            if self._file < 0:
                del _mine[self._key]
        return self if self._file >= 0 else None

    def _locked(self) -> int:
        """Return the file with the lock on it, or -1 when another process has that."""
        private_folder(self._path.parent)
        file = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
        if _lock_now(file):
            return file
        os.close(file)
        return -1

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # In a child that was forked in the block it is the parent's, and closing is all there is.
        if self._file >= 0:
            os.close(self._file)
            del _mine[self._key]


def _lock_now(file: int) -> bool:
    try:
        import fcntl
    except ImportError:
        return _lock_now_on_windows(file)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock_now_on_windows(file: int) -> bool:
    from importlib import import_module

    msvcrt: Any = import_module("msvcrt")
    try:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    except OSError:
        return False
    return True
