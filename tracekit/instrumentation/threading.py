"""Carry the context that is current at ``Thread.start()`` into the thread.

Why start and not construction: a thread made beforehand and started by a request works for that
request. contrib, sentry-sdk and Python 3.14 (``-X thread_inherit_context``) chose the same.

Why ``run`` is replaced on the thread that starts, and not patched on the class: subclasses
override ``run``, mostly without calling the one they override. The replacement goes as soon as
it is called, so a running thread looks as it always did.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from types import MethodType
from typing import Any

from opentelemetry.context import Context, attach, detach, get_current

from tracekit.instrumentation._carry import is_machinery, threads_inherit
from tracekit.instrumentation._patch import LibraryInstrumentor, Patch

__all__ = ["ThreadingInstrumentor", "plugin"]


class ThreadingInstrumentor(LibraryInstrumentor):
    """Context for ``threading.Thread``, ``Timer`` and every subclass. Makes no spans."""

    name = "threading"
    makes_spans = False
    contrib = ("threading",)

    def patches(self) -> Sequence[Patch]:
        return (Patch("threading", "Thread.start", _start),)


def _start(
    wrapped: Callable[..., Any],
    thread: threading.Thread,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    context = _context_for(thread)
    if context is None:
        return wrapped(*args, **kwargs)
    own_run = vars(thread).get("run")
    vars(thread)["run"] = _run_within(context, thread)
    try:
        return wrapped(*args, **kwargs)
    except BaseException:
        _give_back(thread, own_run)
        raise


def _context_for(thread: threading.Thread) -> Context | None:
    """Return what to attach in the thread; None where it has the right context without us."""
    if sys.version_info >= (3, 14) and getattr(thread, "_context", None) is not None:
        return None  # Thread(context=...): the program chose
    if is_machinery(thread):
        return Context() if threads_inherit() else None
    return None if threads_inherit() else get_current() or None


def _run_within(context: Context, thread: threading.Thread) -> Callable[[], None]:
    run = thread.run
    own_run = vars(thread).get("run")

    def run_within(thread: threading.Thread) -> None:
        _give_back(thread, own_run)
        token = attach(context)
        try:
            run()
        finally:
            detach(token)

    # A method, because sentry-sdk calls the `__func__` of whatever `run` it finds.
    return MethodType(run_within, thread)


def _give_back(thread: threading.Thread, own_run: object) -> None:
    vars(thread).pop("run", None)
    if own_run is not None:
        vars(thread)["run"] = own_run


plugin: type[LibraryInstrumentor] = ThreadingInstrumentor
