"""Notice spans that hold up the event loop, where a limit is set.

Context follows into tasks and callbacks by itself; nothing has to be patched for that.

Theory of operation. Every callback of a loop, and every step of a task, is one call of
``Handle._run``. Around it a thread's running callback is noted; a second thread looks a few times
within the limit whether one has been running for too long. It then sees which span is current there
and which line of the program runs: afterwards it would be too late, for a request that is handled
without waiting anywhere begins and ends its span within one step.

A context is read from another thread through a copy of it. What a context holds is an immutable
map, so under the interpreter's lock the copy is whole. Without that lock nobody looks from outside,
and a step that took too long is told to the span that is current at its end.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextvars import Context
from threading import get_ident
from typing import Any

from opentelemetry.trace import Span, get_current_span

from tracekit import _fork, semconv
from tracekit._ledger import is_locked
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._caller import Caller, caller_from
from tracekit.instrumentation._patch import InstrumentationStatus, LibraryInstrumentor, Patch, quiet

__all__ = ["AsyncioInstrumentor", "plugin"]

VARIABLE = "TRACEKIT_LOOP_BLOCKED_MS"
_LOOKS_PER_LIMIT = 4
_SHORTEST_LOOK_S = 0.005


class AsyncioInstrumentor(LibraryInstrumentor):
    """Mark spans during which a loop could run nothing else for ``blocked_ms`` milliseconds.

    Off unless ``blocked_ms`` or ``TRACEKIT_LOOP_BLOCKED_MS`` says a number. The span gets an event
    with the line that ran, and how long it took as an attribute. For asyncio's own loops; those of
    uvloop run their callbacks in C. Makes no spans.
    """

    name = "asyncio"

    def __init__(self) -> None:
        super().__init__()
        self._watch: _Watch | None = None

    def configure(self, options: Mapping[str, Any]) -> None:
        others = dict(options)
        blocked_ms = _checked(others.pop("blocked_ms", None))
        code_location = others.pop("code_location", None)
        caller = caller_from(os.environ, code_location)
        self._watch = _Watch(blocked_ms, caller) if blocked_ms else None
        super().configure(others)

    def patches(self) -> Sequence[Patch]:
        if self._watch is None:
            return ()
        return (Patch("asyncio.events", "Handle._run", self._watch.run),)

    def uninstrument(self) -> None:
        super().uninstrument()
        if self._watch is not None:
            self._watch.stop()

    @property
    def status(self) -> InstrumentationStatus:
        if self._wanted and self._watch is None:
            reason = f"no limit is set ({VARIABLE})"
            return InstrumentationStatus(self.name, None, self.supported, False, reason)
        return super().status


def _checked(given: Any) -> float:
    value = os.environ.get(VARIABLE, "").strip() if given is None else given
    try:
        number = float(value or 0)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise InvalidValueError(f"blocked_ms ({VARIABLE})", value, "milliseconds, such as 100")
    return number


class _Block:
    """One callback that is taking too long, and the span that it is told to."""

    __slots__ = ("span", "started_ns")

    def __init__(self, started_ns: int, span: Span) -> None:
        self.started_ns = started_ns
        self.span = span


class _Watch:
    """Callbacks that are running, and the thread that looks at them.

    Concurrency: a loop's thread writes its own entries only; the watching thread reads them.
    """

    def __init__(self, limit_ms: float, caller: Caller | None) -> None:
        self._limit_ns = int(limit_ms * 1e6)
        self._caller = caller
        self._look_s = max(_SHORTEST_LOOK_S, limit_ms / 1000 / _LOOKS_PER_LIMIT)
        self._lock = threading.Lock()
        self._begin()
        _fork.on_fork_in_child(self)

    def _begin(self) -> None:
        self._running: dict[int, tuple[int, Context]] = {}
        self._blocks: dict[int, _Block] = {}
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()

    def after_fork_in_child(self) -> None:
        """Begin anew: the watching thread is the parent's."""
        self._lock = threading.Lock()
        self._begin()

    def run(self, wrapped: Any, instance: Any, args: Any, kwargs: Any) -> Any:
        """Run a callback of a loop. Cost: on the path of every step of every task."""
        thread = get_ident()
        started = time.perf_counter_ns()
        # A loop may run within a callback of another: what was there goes on afterwards.
        outer = self._running.get(thread)
        self._running[thread] = (started, instance._context)
        if self._thread is None:
            self._start()
        try:
            return wrapped(*args, **kwargs)
        finally:
            if outer is None:
                self._running.pop(thread, None)
            else:
                self._running[thread] = outer
            if time.perf_counter_ns() - started >= self._limit_ns:
                self._finish(thread, started, instance._context)

    @quiet
    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or not is_locked():
                return
            self._thread = threading.Thread(
                target=self._look, name="tracekit-loop-watch", daemon=True
            )
            # In an empty context: the span of whoever comes first is not this thread's.
            Context().run(self._thread.start)

    def stop(self) -> None:
        self._stopping.set()

    def _look(self) -> None:
        stopping = self._stopping
        while not stopping.wait(self._look_s):
            now = time.perf_counter_ns()
            for thread, (started, context) in list(self._running.items()):
                if now - started >= self._limit_ns:
                    self._note(thread, started, context, now - started)

    @quiet
    def _note(self, thread: int, started: int, context: Context, blocked_ns: int) -> None:
        """Tell a span that it blocks, the first time with an event, then how long by now."""
        block = self._blocks.get(thread)
        if block is None or block.started_ns != started:
            span = context.copy().run(get_current_span)
            block = self._blocks[thread] = _Block(started, span)
            if span.is_recording():
                span.add_event(semconv.LOOP_BLOCKED_EVENT, self._where(thread))
        _tell(block.span, blocked_ns)

    def _where(self, thread: int) -> Mapping[str, Any]:
        frame = sys._current_frames().get(thread)
        if self._caller is None or frame is None:
            return {}
        return self._caller.attributes(frame=frame)

    @quiet
    def _finish(self, thread: int, started: int, context: Context) -> None:
        """Say how long it was in the end. Here nobody else runs in the context."""
        block = self._blocks.pop(thread, None)
        blocked_ns = time.perf_counter_ns() - started
        if block is not None and block.started_ns == started:
            _tell(block.span, blocked_ns)
            return
        # C code that kept the interpreter's lock kept the watching thread from looking too.
        span = context.copy().run(get_current_span)
        if span.is_recording():
            span.add_event(semconv.LOOP_BLOCKED_EVENT)
            _tell(span, blocked_ns)


def _tell(span: Span, blocked_ns: int) -> None:
    if not span.is_recording():
        return
    blocked_ms = round(blocked_ns / 1e6, 1)
    attributes: Any = getattr(span, "attributes", None) or {}
    if blocked_ms > attributes.get(semconv.LOOP_BLOCKED, 0):
        span.set_attribute(semconv.LOOP_BLOCKED, blocked_ms)


plugin: type[LibraryInstrumentor] = AsyncioInstrumentor
