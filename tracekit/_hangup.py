"""Being told of SIGHUP, which asks a server to read its settings again."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

__all__ = ["not_on_sighup", "on_sighup"]

_told: Callable[[], Any] | None = None
_before: Any = None
_had_terminal = False


def on_sighup(tell: Callable[[], Any]) -> bool:
    """Call ``tell`` when SIGHUP comes, and then whoever the program had there.

    A program that ignores the signal, as one under ``nohup`` does, goes on ignoring it. One that
    would end by it because its terminal was closed still does.

    Args:
        tell: Called between any two bytecodes of the main thread: it may take no lock.

    Returns:
        Whether it is installed: only in the main thread, and where there is such a signal.
    """
    global _told, _before, _had_terminal
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or not hasattr(signal, "SIGHUP"):
        return False
    before = signal.getsignal(signal.SIGHUP)
    if before is not _hung_up:
        # None is a handler that was not installed by Python, which could not be called.
        if before is signal.SIG_IGN or before is None:
            return False
        _before = before
        signal.signal(signal.SIGHUP, _hung_up)
    _had_terminal = _has_terminal()
    _told = tell
    return True


def not_on_sighup() -> None:
    """Undo ``on_sighup``, unless the program has put something else there since."""
    global _told
    _told = None
    is_main = threading.current_thread() is threading.main_thread()
    if is_main and hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is _hung_up:
        signal.signal(signal.SIGHUP, _before)


def _hung_up(number: int, frame: Any) -> None:
    if _told is not None:
        _told()
    if callable(_before):
        _before(number, frame)
    elif _told is None or (_had_terminal and not _has_terminal()):
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
