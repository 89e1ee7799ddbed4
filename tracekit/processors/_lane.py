"""One exporter's lane behind the batch processor: its queue, its thread, its ledger."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry import context as context_api

from tracekit._ledger import tell_exported
from tracekit.interfaces import ReadableSpan, SpanExporter

__all__ = ["Lane", "call_export", "in_empty_context", "load_context_binding", "suppressed_context"]

_logger = logging.getLogger("tracekit")

MAX_LANE_BYTES = 256 * 1024 * 1024
MAX_LEFT_BEHIND = 4
"""Threads that may hang in ``export`` at the same time; the lane then drops until one returns."""
IDLE_S = 0.05
EXACT_SIZES = 64
"""Spans in a batch up to which each is asked for its size."""

_Batch = tuple[int, Any, int]
"""Number of the batch's last span, its spans (or a request), and their size in bytes."""


def suppressed_context() -> context_api.Context:
    """Return a context in which nobody's instrumentation traces what exporters do."""
    context = context_api.Context()
    for key in ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY"):
        name = getattr(context_api, key, None)
        if name:
            context = context_api.set_value(name, True, context)
    return context_api.set_value("suppress_instrumentation", True, context)


def load_context_binding() -> None:
    """Import what ``in_empty_context`` uses, in the thread that sets tracing up.

    It imports asyncio. Left to the thread that ends the first span, that import could be under
    way while another thread forks, and the child would wait for its lock for ever; and an
    interpreter that already exits lets no thread import it.
    """
    import contextvars_extras.context_management  # noqa: F401


def in_empty_context(work: Callable[..., None]) -> Callable[..., None]:
    """Return a thread's work such that none of the program's context variables is set in it.

    A thread starts in whoever's context ended the first span, where threads inherit one
    (Python 3.14, or a library that makes them): the request's variables would live, and be
    seen by exporters, as long as the process.
    """
    from contextvars_extras.context_management import bind_to_empty_context

    bound: Callable[..., None] = bind_to_empty_context(work)
    return bound


def call_export(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> str:
    """Export a batch; return ``""`` or the reason why it failed."""
    try:
        # A copy: the same batch goes to several exporters, and is counted afterwards.
        result = exporter.export([*spans])
    except (Exception, SystemExit) as error:  # sys.exit() would end the lane's thread, not more
        _logger.debug("%r raised", exporter, exc_info=True)
        return f"raised {type(error).__name__}"
    # An exporter of opentelemetry-sdk returns the SDK's own enumeration.
    return "" if getattr(result, "name", None) == "SUCCESS" else "refused"


def _size(spans: Sequence[ReadableSpan]) -> int:
    """Estimate the bytes of a batch: of a large one every 23rd span stands for its like.

    Asking each would cost more than all the rest of the hand-over, up to 1 µs a span, and
    asking every seventh still as much as taking them out of the queue. 23, because programs
    make spans in step with other numbers: loops of ten, trees of eight.
    """
    asked = spans[::23] if len(spans) > EXACT_SIZES else spans
    try:
        size = sum([getattr(span, "size_hint", 1024) for span in asked])
        return size * len(spans) // (len(asked) or 1)
    except Exception:  # somebody else's span
        return 1024 * len(spans)


class _Request:
    """A call of an exporter's method, waiting for its turn in the lane's thread."""

    def __init__(self, exporter: SpanExporter, method: str, arguments: tuple[Any, ...]) -> None:
        self._exporter, self._method, self._arguments = exporter, method, arguments
        self._result: Any = None
        self._done = threading.Event()

    def answer(self) -> None:
        try:
            method = getattr(self._exporter, self._method, None)
            self._result = method(*self._arguments) if callable(method) else None
        except Exception:
            self._result = False
            _logger.debug("%s of %r raised", self._method, self._exporter, exc_info=True)
        finally:
            self._done.set()

    def answer_suppressed(self) -> None:
        token = context_api.attach(suppressed_context())
        self.answer()
        context_api.detach(token)

    def wait(self, timeout_s: float) -> Any:
        return self._result if self._done.wait(timeout_s) else False


class Lane:
    """Batches on their way to one exporter.

    Each number has one writer: the batch processor's worker writes ``_accepted`` and
    ``_dropped``, the lane's current thread the others.
    """

    def __init__(
        self, exporter: SpanExporter, limit: int, timeout_s: float, progress: threading.Condition
    ) -> None:
        self.exporter = exporter
        self._limit = limit
        self._timeout_s = timeout_s
        self.owns_exporter = True
        self.begin(progress)

    def begin(self, progress: threading.Condition) -> None:
        """Start with an empty lane and no thread."""
        self._progress = progress
        self._queue: queue.SimpleQueue[_Batch] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._left_behind: list[threading.Thread] = []
        self._cannot_start = False
        self._under_way: tuple[float, _Batch] | None = None
        self._accepted = self._accepted_bytes = 0
        self._finished = self._finished_bytes = 0
        self.settled = 0
        self._exported = 0
        self._failed: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._said_failure = False
        self._untold: deque[tuple[float, str]] = deque()

    @property
    def name(self) -> str:
        return str(getattr(self.exporter, "name", None) or type(self.exporter).__name__)

    # Called by the batch processor's worker ---------------------------------------------

    def put(self, last: int, spans: Sequence[ReadableSpan]) -> None:
        """Take a batch, or drop it when the lane is full."""
        size = _size(spans)
        if len(spans) > 1 and size > MAX_LANE_BYTES // 8:
            # As a whole it might never fit, and not even an empty lane would take it.
            half = len(spans) // 2
            self.put(0, spans[:half])
            self.put(last, spans[half:])
            return
        reason = self._refusal(len(spans), size) if spans else ""
        if reason:
            self._dropped[reason] += len(spans)
            spans, size = (), 0
        self._accepted += len(spans)
        self._accepted_bytes += size
        self._queue.put((last, spans, size))
        self.start()

    def _refusal(self, count: int, size: int) -> str:
        if self._is_stuck():
            return "exporter_hangs"
        full = (
            self._accepted - self._finished + count > self._limit
            or self._accepted_bytes - self._finished_bytes + size > MAX_LANE_BYTES
        )
        return "queue_full" if full else ""

    def _is_stuck(self) -> bool:
        if len(self._left_behind) >= MAX_LEFT_BEHIND:
            self._left_behind = [part for part in self._left_behind if part.is_alive()]
        return len(self._left_behind) >= MAX_LEFT_BEHIND

    def start(self) -> None:
        """Start the lane's thread, unless it runs or too many hang already."""
        if self._thread is not None:
            return
        with self._progress:
            # Another thread may have been faster.
            started: Any = self._thread
            if started is not None or self._is_stuck():
                return
            self._thread = thread = threading.Thread(
                target=in_empty_context(self._run),
                args=(self._queue,),
                name=f"tracekit-{self.name}",
                daemon=True,
            )
        # Not under the lock: whoever flushes must get it in time whatever becomes of the start.
        try:
            thread.start()
        except RuntimeError:  # the interpreter exits; step_in() does the work
            self._thread = None
            self._cannot_start = True

    def check_timeout(self) -> None:
        """Leave an export behind that takes longer than it may, and go on without it."""
        # The worker and whoever flushes come here at the same time; one of them acts.
        with self._progress:
            under_way = self._under_way
            if under_way is None or time.monotonic() - under_way[0] < self._timeout_s:
                return
            self._leave_behind(under_way[1], "timeout")
        self.start()
        self._tell()

    def _leave_behind(self, batch: _Batch, reason: str) -> None:
        """Give up a batch; its thread finds that it is not the lane's any more and ends."""
        if self._thread is not None:
            self._left_behind.append(self._thread)
        self._thread = None
        self._settle(batch, reason)

    # The lane's thread ------------------------------------------------------------------

    def _run(self, batches: queue.SimpleQueue[_Batch]) -> None:
        context_api.attach(suppressed_context())
        me = threading.current_thread()
        while self._thread is me and batches is self._queue:
            self._export(batches.get())

    def _export(self, batch: _Batch) -> None:
        reason = ""
        under_way = self._under_way = (time.monotonic(), batch)
        if isinstance(batch[1], _Request):
            batch[1].answer()
        elif batch[1]:
            reason = call_export(self.exporter, batch[1])
        with self._progress:
            if self._under_way is under_way:  # else it was given up meanwhile, and counted
                self._settle(batch, reason)
        self._tell()

    def _tell(self) -> None:
        """Tell of exports that are over; not under a lock, since whoever listens has its own."""
        try:
            while self._untold:
                tell_exported(self.exporter, *self._untold.popleft())
        except IndexError:  # another thread told of the last one
            return

    def _settle(self, batch: _Batch, reason: str) -> None:
        last, spans, size = batch
        count = 0 if isinstance(spans, _Request) else len(spans)
        if count and self._under_way is not None:
            self._untold.append((time.monotonic() - self._under_way[0], reason))
        self._under_way = None
        if reason:
            self._failed[reason] += count
            self._say_failure(reason)
        else:
            self._exported += count
        self._finished += count
        self._finished_bytes += size
        self.settled = max(self.settled, last)
        with self._progress:
            self._progress.notify_all()

    def _say_failure(self, reason: str) -> None:
        if not self._said_failure:
            self._said_failure = True
            _logger.warning("spans could not be exported by %s: %s", self.name, reason)

    # Flushing ---------------------------------------------------------------------------

    def step_in(self, deadline: float) -> None:
        """Export what waits on the calling thread, when no thread can be started for it."""
        if not self._cannot_start or self._left_behind:
            return
        token = context_api.attach(suppressed_context())
        try:
            while time.monotonic() < deadline:
                self._export(self._queue.get_nowait())
        except queue.Empty:
            return
        finally:
            context_api.detach(token)

    def flush_exporter(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        return left > 0 and self._ask("force_flush", left, int(left * 1000)) is not False

    def close(self, deadline: float) -> None:
        """Count what is still queued as dropped, and shut the exporter down if it is ours."""
        with self._progress:
            while self._accepted > self._finished and time.monotonic() < deadline:
                self._progress.wait(min(IDLE_S, max(0.0, deadline - time.monotonic())))
            if self._under_way is not None:
                self._leave_behind(self._under_way[1], "exit")
        self._tell()
        self._drop_queued()
        if self.owns_exporter:
            self._ask("shutdown", max(0.2, deadline - time.monotonic()))
        self._thread = None
        self._queue.put((0, (), 0))  # wakes the thread, which finds that it may go

    def _drop_queued(self) -> None:
        while True:
            try:
                last, spans, size = self._queue.get_nowait()
            except queue.Empty:
                return
            if isinstance(spans, _Request):
                continue
            self.settled = max(self.settled, last)
            self._dropped["exit"] += len(spans)
            self._finished += len(spans)
            self._finished_bytes += size

    def _ask(self, method: str, timeout_s: float, *arguments: Any) -> Any:
        """Call a method of the exporter, and give up waiting for it at the deadline.

        The lane's own thread calls it, behind the batches: at the interpreter's exit no new
        thread could be started. Without one, a thread is tried, and at last this one.
        """
        request = _Request(self.exporter, method, arguments)
        if self._thread is not None and self._thread.is_alive():
            self._queue.put((0, request, 0))
        else:
            try:
                threading.Thread(target=request.answer_suppressed, daemon=True).start()
            except RuntimeError:
                # An exporter that hangs would hang here too, and with it the exit.
                if self._left_behind:
                    return False
                request.answer_suppressed()
        return request.wait(timeout_s)

    # The ledger -------------------------------------------------------------------------

    def lost(self) -> int:
        return sum(self._failed.values()) + sum(self._dropped.values())

    def _exporting(self) -> int:
        under_way = self._under_way
        spans = under_way[1][1] if under_way is not None else ()
        return 0 if isinstance(spans, _Request) else len(spans)

    def stats(self) -> dict[str, Any]:
        # Under the lock of _settle(), so that no batch is counted twice or not at all.
        with self._progress:
            return {
                "exporter": self.name,
                "exported": self._exported,
                "pending": self._accepted - self._finished,
                "exporting": self._exporting(),
                "failed": dict(self._failed),
                "dropped": dict(self._dropped),
            }
