"""Carry the context that is current at ``Thread.start()`` into the thread.

Why start and not construction: a thread made beforehand and started by a request works for that
request. contrib, sentry-sdk and Python 3.14 (``-X thread_inherit_context``) chose the same.

What a plain ``Thread`` is to call is called by way of a ``contextvars.Context`` that holds nothing
else, without a step of ours in the new thread. Where ``run`` is the program's own, it is replaced
on the thread that starts, and not patched on the class: subclasses override it, mostly without
calling the one they override. The replacement goes as soon as it is called, so a running thread
looks as it always did.
"""

from __future__ import annotations

import contextvars
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from types import MethodType
from typing import Any

from opentelemetry.context import Context

from tracekit._otel_context import NO_CONTEXT, attach, current_context, is_fast
from tracekit.instrumentation._carry import (
    MACHINERY,
    call_within,
    is_machinery,
    threads_inherit,
)
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._replacing import Replacing, ReplacingInstrumentor

__all__ = ["ThreadingInstrumentor", "plugin"]


class ThreadingInstrumentor(ReplacingInstrumentor):
    """Context for ``threading.Thread``, ``Timer`` and every subclass. Makes no spans."""

    name = "threading"
    makes_spans = False
    contrib = ("threading",)

    def patches(self) -> Sequence[Replacing]:
        return (Replacing("threading", "Thread.start", _start),)


def _start(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    plain: Any = threading.Thread
    plain_run, takes_context = plain.run, sys.version_info >= (3, 14)
    if threads_inherit() or not is_fast:
        return _start_slowly(original, owners)

    def start(self: Any) -> Any:
        context = current_context()
        if context is NO_CONTEXT or not owners:
            return original(self)
        try:
            target: Any = self._target
            if (
                type(self) is not plain
                or self.run.__func__ is not plain_run
                or target.__module__.startswith(MACHINERY)
                or (takes_context and self._context is not None)
            ):
                target = None
        except AttributeError:  # already over; a `run` or a target of an unusual kind
            target = None
        if target is None:
            return _start_otherwise(original, self)
        carrier = contextvars.Context()
        carrier.run(attach, context)
        self._target = handed = partial(carrier.run, target)
        try:
            return original(self)
        except BaseException:
            if getattr(self, "_target", None) is handed:
                self._target = target
            raise

    return start


def _start_slowly(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    """Watch where the context is not in a ContextVar, or comes along by itself."""

    def start(self: threading.Thread) -> Any:
        return _start_otherwise(original, self) if owners else original(self)

    return start


def _start_otherwise(original: Callable[..., Any], thread: threading.Thread) -> Any:
    """Start a thread that is not the usual one."""
    context = _context_for(thread)
    if context is None:
        return original(thread)
    own_run = vars(thread).get("run")
    vars(thread)["run"] = _run_within(context, thread)
    try:
        return original(thread)
    except BaseException:
        _give_back(thread, own_run)
        raise


def _context_for(thread: threading.Thread) -> Context | None:
    """Return what to attach in the thread; None where it has the right context without us."""
    if sys.version_info >= (3, 14) and getattr(thread, "_context", None) is not None:
        return None  # Thread(context=...): the program chose
    if is_machinery(thread):
        return Context() if threads_inherit() else None
    return None if threads_inherit() else current_context() or None


def _run_within(context: Context, thread: threading.Thread) -> Callable[[], None]:
    run = thread.run
    own_run = vars(thread).get("run")

    def run_within(thread: threading.Thread) -> None:
        _give_back(thread, own_run)
        call_within(context, run)

    # A method, because sentry-sdk calls the `__func__` of whatever `run` it finds.
    return MethodType(run_within, thread)


def _give_back(thread: threading.Thread, own_run: object) -> None:
    vars(thread).pop("run", None)
    if own_run is not None:
        vars(thread)["run"] = own_run


plugin: type[LibraryInstrumentor] = ThreadingInstrumentor
