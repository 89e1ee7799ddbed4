"""Being told that the process ends, in each of the ways in which processes end.

``atexit`` covers the ordinary one. Children of ``multiprocessing`` leave through
``os._exit`` after their own finalizers, so one of those is registered in every child. A
process that nobody taught what SIGTERM means would die without either; ``on_sigterm`` gives
it the chance to flush, and then lets it die of the signal as before.

A process may also leave by ``os._exit``, which runs nothing at all: children that were forked by
hand do, and so does who gives up. ``on_os_exit`` puts a moment for flushing in front of it, in
a thread that is left behind when it takes longer: whatever state the process is in, it ends.

Two of these often meet: ``with Pool()`` tells its workers to end and sends SIGTERM at once, so
the signal finds them in the middle of their last flush. It waits for that, which is bounded.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, NoReturn

from tracekit import _fork

__all__ = ["add", "not_on_os_exit", "on_os_exit", "on_sigterm", "remove"]

AGAIN_S = 0.1
OS_EXIT_S = 2.0
"""How long ``os._exit`` may be held up; who calls it wants to be gone."""

_hooks: list[Callable[[], Any]] = []
_registered = False


class _LastWords:
    """Whether the hooks are running, and the signal that came meanwhile."""

    def __init__(self) -> None:
        self.after_fork_in_child()
        _fork.on_fork_in_child(self)

    def after_fork_in_child(self) -> None:
        self.depth, self.signal = 0, 0
        _forget_wakeup()

    def __enter__(self) -> None:
        self.depth += 1

    def __exit__(self, *_exception: object) -> None:
        self.depth -= 1
        if self.signal and not self.depth:
            # Sent again instead of handled here: handlers run in the main thread only.
            number, self.signal = self.signal, 0
            os.kill(os.getpid(), number)


_last_words: _LastWords | None = None


def add(hook: Callable[[], Any]) -> None:
    """Call ``hook`` once when this process ends, or a child that it forks meanwhile."""
    if hook not in _hooks:
        _hooks.append(hook)
    _register()


def _register() -> None:
    global _registered, _last_words
    if not _registered:
        _registered = True
        _last_words = _LastWords()
        atexit.register(_run)
        # Imported here: that takes longer than importing all of tracekit.
        import wrapt

        wrapt.register_post_import_hook(_watch_children, "multiprocessing.util")


def remove(hook: Callable[[], Any]) -> None:
    if hook in _hooks:
        _hooks.remove(hook)


def _run() -> None:
    # Last in, first out, as atexit does; a hook may remove itself while it runs.
    with _last_words or nullcontext():
        for hook in reversed(list(_hooks)):
            hook()


def _watch_children(util: Any) -> None:
    """Register a finalizer in each child of multiprocessing, after it has dropped the parent's.

    A negative priority puts it behind the child's own finalizers, which may still make spans.
    """

    def in_child(_key: object) -> None:
        util.Finalize(None, _run, exitpriority=-100)
        _insist_on_sigterm()

    util.register_after_fork(_run, in_child)
    from multiprocessing.process import parent_process

    if parent_process() is not None:  # configured in a child, of whom nobody told us
        in_child(None)


_real_os_exit: Callable[[int], NoReturn] | None = None


def on_os_exit(leave: Callable[[float], Any]) -> None:
    """Call ``leave`` before ``os._exit`` ends the process, with the seconds that it may take.

    Only calls through the module count: who imported the function by name has the original.
    """
    global _real_os_exit
    not_on_os_exit()
    _real_os_exit = real = os._exit

    def _exit(status: int) -> NoReturn:
        try:
            thread = threading.Thread(target=leave, args=(OS_EXIT_S,), daemon=True)
            thread.start()
            thread.join(OS_EXIT_S + AGAIN_S)
        finally:
            real(status)

    _exit.__doc__ = real.__doc__
    setattr(os, "_exit", _exit)  # noqa: B010  (mypy takes it for a function of its own type)


def not_on_os_exit() -> None:
    """Undo ``on_os_exit``."""
    global _real_os_exit
    if _real_os_exit is not None:
        setattr(os, "_exit", _real_os_exit)  # noqa: B010
        _real_os_exit = None


def on_sigterm() -> bool:
    """Run the hooks when SIGTERM comes, if nothing in the program handles that signal.

    Returns:
        Whether the handler was set: only in the main thread, over the default handler.
    """
    import signal

    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return False
    _register()
    signal.signal(signal.SIGTERM, _terminate)
    return True


def _terminate(number: int, _frame: object) -> None:
    import signal

    if _last_words is not None and _last_words.depth:
        _last_words.signal = number
        return
    _run()
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


_wakeup: tuple[int, int] | None = None
"""Both ends of the pipe that tells of signals, in a child of multiprocessing."""


def _insist_on_sigterm() -> None:
    """Make SIGTERM end this child although its main thread is waiting for a lock.

    Python calls handlers between bytecodes. A signal that comes right before the main thread
    begins to wait is noted and does not end the wait, where the default handler would have
    ended the process. `with Pool()` hits that moment about once in a hundred times, and its
    parent would wait for the worker for ever. So a thread sends the signal again.
    Source: https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
    """
    global _wakeup
    import signal

    if signal.getsignal(signal.SIGTERM) is not _terminate:
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    other = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    if other != -1:
        signal.set_wakeup_fd(other)
        os.close(reading)
        os.close(writing)
        return
    _wakeup = reading, writing
    main = threading.main_thread().ident or 0
    name = "tracekit-sigterm"
    threading.Thread(target=_send_again, args=(reading, main), name=name, daemon=True).start()


def _send_again(reading: int, main: int) -> None:
    import signal

    while number := os.read(reading, 1):
        if number[0] == signal.SIGTERM and signal.getsignal(signal.SIGTERM) is _terminate:
            # Ordinarily the process is gone by then, or flushes and takes no notice.
            time.sleep(AGAIN_S)
            signal.pthread_kill(main, signal.SIGTERM)


def _forget_wakeup() -> None:
    """Leave the pipe to the parent: what this process writes would be taken for its signals."""
    global _wakeup
    if _wakeup is not None:
        import signal

        if signal.set_wakeup_fd(-1) != _wakeup[1]:
            return
        os.close(_wakeup[0])
        os.close(_wakeup[1])
        _wakeup = None
