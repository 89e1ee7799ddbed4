"""Telling live objects that they woke up in a forked child."""

from __future__ import annotations

import os
import weakref
from typing import Protocol

__all__ = ["check_pid", "on_fork_in_child"]


class _ForkAware(Protocol):
    def after_fork_in_child(self) -> None: ...


# In registration order: ids and queues are made new before the provider renews its tracers.
_aware: list[weakref.ref[_ForkAware]] = []
_hooked = False
_pid = 0


def on_fork_in_child(listener: _ForkAware) -> None:
    """Call ``listener.after_fork_in_child()`` in every child forked while it is alive.

    Asked for again, it is called behind those that have asked since.
    """
    global _hooked, _pid
    _aware[:] = [reference for reference in _aware if reference() is not listener]
    _aware.append(weakref.ref(listener, _aware.remove))
    if not _hooked:
        _hooked, _pid = True, os.getpid()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=check_pid)


def check_pid() -> None:
    """Notice a fork, also one that Python was not told of (uWSGI forks in C).

    Called by the at-fork hook, and wherever the batch processor wakes its worker.
    """
    global _pid
    pid = os.getpid()
    if pid == _pid:
        return
    _pid = pid
    # A copy: a listener that dies meanwhile takes itself off the list.
    for reference in tuple(_aware):
        listener = reference()
        if listener is not None:
            listener.after_fork_in_child()
