"""A thread for a stage whose next stage has none to lend."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tracekit import _fork
from tracekit._own_work import in_empty_context, load_context_binding, suppressed

__all__ = ["OwnWorker"]

LONGEST_S = 1.0


class OwnWorker:
    """Do a stage's work when it is woken, and when the work itself said that more is due.

    Args:
        work: Returns in how many seconds it wants to be called again at the latest; it never
            raises.
    """

    def __init__(self, work: Callable[[], float | None]) -> None:
        load_context_binding()
        self._work = work
        self.after_fork_in_child()
        _fork.on_fork_in_child(self)

    def after_fork_in_child(self) -> None:
        self._woken = threading.Event()
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_stopped = False

    def wake(self) -> None:
        """Have the work done soon; the first call starts the thread."""
        if self._thread is None:
            self._start()
        self._woken.set()

    def _start(self) -> None:
        with self._starting:
            if self._thread is not None or self._is_stopped:
                return
            run = in_empty_context(self._run)
            thread = threading.Thread(target=run, name="tracekit-tail", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter exits; shutting down does the work
                return
            self._thread = thread

    def _run(self) -> None:
        woken = self._woken
        with suppressed():
            while woken is self._woken and not self._is_stopped:
                due_s = self._work()
                woken.wait(LONGEST_S if due_s is None else min(LONGEST_S, due_s))
                woken.clear()

    def stop(self) -> None:
        self._is_stopped = True
        self._woken.set()
