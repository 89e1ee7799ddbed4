"""Append to a file that other processes append to at the same time, whole or not at all."""

from __future__ import annotations

import os
import select
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic, sleep

if sys.platform != "win32":
    import fcntl

__all__ = ["append"]

_FLAGS = os.O_APPEND | os.O_CREAT | os.O_RDWR | getattr(os, "O_CLOEXEC", 0)
_POLL_S = 0.005


def append(path: str, line: bytes, patience_s: float = 2.0) -> None:
    """Write ``line`` at the end of the file, in one piece.

    The file is opened for each call: a forked child then shares no lock with its parent, and a
    file that was rotated away or deleted is simply made anew. That costs about 20 µs.

    Raises:
        OSError: it could not be written; a regular file is then as it was before.
    Cost: waits ``patience_s`` at most for another process's lock, then writes without it.
    """
    descriptor = _open(path)
    try:
        with _locked(descriptor, patience_s) as is_locked:
            if stat.S_ISREG(os.fstat(descriptor).st_mode):
                _append_to_regular_file(descriptor, line, is_locked)
            else:
                _write_all(descriptor, line, monotonic() + patience_s)
    finally:
        os.close(descriptor)


def _open(path: str) -> int:
    if _is_pipe(path):
        # Opening a pipe that nobody reads would wait for a reader; this fails at once.
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK)
    try:
        return os.open(path, _FLAGS, 0o644)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return os.open(path, _FLAGS, 0o644)


def _is_pipe(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


@contextmanager
def _locked(descriptor: int, patience_s: float) -> Iterator[bool]:
    is_locked = _lock(descriptor, monotonic() + patience_s)
    try:
        yield is_locked
    finally:
        if is_locked and sys.platform != "win32":
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _lock(descriptor: int, deadline: float) -> bool:
    if sys.platform == "win32":
        return False  # it has no such locks; O_APPEND alone has to do
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if monotonic() > deadline:
                return False
            sleep(_POLL_S)
        except OSError:
            return False  # a file system or device that has no locks


def _append_to_regular_file(descriptor: int, line: bytes, is_locked: bool) -> None:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line  # somebody was killed half-way through a line; ours must not join it
    try:
        _write_all(descriptor, line, deadline=None)
    except OSError:
        # Under the lock nobody has written after us, so what is there of the line is cut off.
        if is_locked:
            os.ftruncate(descriptor, size)
        raise


def _write_all(descriptor: int, line: bytes, deadline: float | None) -> None:
    """Write the line, by one call unless the system takes only a part of it."""
    rest = memoryview(line)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            if deadline is None or monotonic() > deadline:
                raise
            select.select([], [descriptor], [], max(0.0, deadline - monotonic()))
