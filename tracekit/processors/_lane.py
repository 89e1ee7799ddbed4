"""One exporter's lane behind the batch processor: its queue, its thread, its ledger."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

from opentelemetry import context as context_api

from tracekit._ledger import tell_exported
from tracekit._own_work import in_empty_context, suppressed, suppressed_context
from tracekit.interfaces import ExportOutcome, ReadableSpan, SpanExporter
from tracekit.processors._fates import Fates, call_export, exporter_name, failed, put_aside, told_by

__all__ = ["Lane"]

_logger = logging.getLogger("tracekit")

MAX_LANE_BYTES = 256 * 1024 * 1024
MAX_LEFT_BEHIND = 4
"""Threads that may hang in ``export`` at the same time; the lane then drops until one returns."""
IDLE_S = 0.05
EXACT_SIZES = 64
"""Spans in a batch up to which each is asked for its size."""

_Batch = tuple[int, Any, int]
"""Number of the batch's last span, its spans (or a request), and their size in bytes."""


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
        with suppressed():
            self.answer()

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
        self._fates = Fates()
        self._dropped: Counter[str] = Counter()
        self._said_failure = False
        self._untold: deque[tuple[float, str]] = deque()

    @property
    def name(self) -> str:
        return exporter_name(self.exporter)

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
            self._leave_behind()
        self._put_aside(under_way, "timeout")
        self.start()

    def _leave_behind(self) -> None:
        """Give up an export; its thread finds that it is not the lane's any more and ends."""
        if self._thread is not None:
            self._left_behind.append(self._thread)
        self._thread = self._under_way = None

    def _put_aside(self, under_way: tuple[float, _Batch], reason: str) -> None:
        """Let the exporter keep a batch that was left behind, or count it as failed."""
        began, batch = under_way
        spans = () if isinstance(batch[1], _Request) else batch[1]
        outcome = put_aside(self.exporter, spans) if spans else None
        self._settle(batch, outcome or failed(spans, reason), time.monotonic() - began)
        self._tell()

    # The lane's thread ------------------------------------------------------------------

    def _run(self, batches: queue.SimpleQueue[_Batch]) -> None:
        context_api.attach(suppressed_context())
        me = threading.current_thread()
        while self._thread is me and batches is self._queue:
            self._export(batches.get())

    def _export(self, batch: _Batch) -> None:
        outcome = ExportOutcome(0)
        under_way = self._under_way = (time.monotonic(), batch)
        if isinstance(batch[1], _Request):
            batch[1].answer()
        elif batch[1]:
            outcome = call_export(self.exporter, batch[1])
        with self._progress:
            if self._under_way is under_way:  # else it was given up meanwhile, and counted
                self._under_way = None
                self._settle(batch, outcome, time.monotonic() - under_way[0])
        self._tell()

    def _tell(self) -> None:
        """Tell of exports that are over; not under a lock, since whoever listens has its own."""
        try:
            while self._untold:
                tell_exported(self.exporter, *self._untold.popleft())
        except IndexError:  # another thread told of the last one
            return

    def _settle(self, batch: _Batch, outcome: ExportOutcome, duration_s: float) -> None:
        last, spans, size = batch
        count = 0 if isinstance(spans, _Request) else len(spans)
        if count:
            self._untold.append((duration_s, outcome.reason))
        if outcome.lost:
            self._say_failure(outcome.reason)
        with self._progress:
            self._fates.add(outcome)
            self._finished += count
            self._finished_bytes += size
            self.settled = max(self.settled, last)
            self._progress.notify_all()

    def _say_failure(self, reason: str) -> None:
        # Who knows what became of each span has said more than we could.
        if not self._said_failure and not hasattr(self.exporter, "last_outcome"):
            self._said_failure = True
            _logger.warning("spans could not be exported by %s: %s", self.name, reason)

    # Flushing ---------------------------------------------------------------------------

    def step_in(self, deadline: float) -> None:
        """Export what waits on the calling thread, when no thread can be started for it."""
        if not self._cannot_start or self._left_behind:
            return
        with suppressed():
            try:
                while time.monotonic() < deadline:
                    self._export(self._queue.get_nowait())
            except queue.Empty:
                return

    def flush_exporter(self, deadline: float) -> bool:
        left = deadline - time.monotonic()
        return left > 0 and self._ask("force_flush", left, int(left * 1000)) is not False

    @property
    def takes_unfinished(self) -> bool:
        """Whether the exporter can note spans that are under way."""
        return callable(getattr(self.exporter, "export_started", None))

    def export_unfinished(self, spans: Sequence[ReadableSpan], deadline: float) -> None:
        if self.takes_unfinished:
            self._ask("export_started", max(0.0, deadline - time.monotonic()), spans)

    @property
    def can_keep(self) -> bool:
        """Whether the exporter can keep for later what there is no time to export."""
        return getattr(self.exporter, "keeps_spans", False) is True

    def hurry(self) -> None:
        """Tell the exporter that there is little time."""
        hurry = getattr(self.exporter, "hurry", None)
        if self.owns_exporter and self.can_keep and callable(hurry):
            hurry()

    def close(self, deadline: float) -> None:
        """Give up what is still waiting, and shut the exporter down if it is ours."""
        if not self.can_keep:
            self._wait_for_export(deadline)
        self.give_up(deadline)
        if self.owns_exporter:
            self._ask("shutdown", max(0.2, deadline - time.monotonic()))
        self._thread = None
        self._queue.put((0, (), 0))  # wakes the thread, which finds that it may go

    def _wait_for_export(self, deadline: float) -> None:
        with self._progress:
            while self._accepted > self._finished and time.monotonic() < deadline:
                self._progress.wait(min(IDLE_S, max(0.0, deadline - time.monotonic())))

    def give_up(self, deadline: float) -> None:
        """Let the exporter keep what is under way or queued; what it cannot keep is lost."""
        with self._progress:
            under_way = self._under_way
            if under_way is not None:
                self._leave_behind()
        if under_way is not None:
            self._put_aside(under_way, "exit")
        try:
            while True:
                self._give_up_queued(self._queue.get_nowait(), deadline)
        except queue.Empty:
            return

    def _give_up_queued(self, batch: _Batch, deadline: float) -> None:
        last, spans, size = batch
        if isinstance(spans, _Request):
            return
        outcome = None
        if spans and time.monotonic() < deadline:
            outcome = put_aside(self.exporter, spans)
        with self._progress:
            self.settled = max(self.settled, last)
            self._finished += len(spans)
            self._finished_bytes += size
            if outcome is None and spans:
                self._dropped["exit"] += len(spans)
            elif outcome is not None:
                self._fates.add(outcome)
            self._progress.notify_all()

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
        return sum(self._fates.failed.values()) + sum(self._dropped.values())

    def _exporting(self) -> int:
        under_way = self._under_way
        spans = under_way[1][1] if under_way is not None else ()
        return 0 if isinstance(spans, _Request) else len(spans)

    def stats(self) -> dict[str, Any]:
        # Under the lock of _settle(), so that no batch is counted twice or not at all.
        with self._progress:
            found = {
                "exporter": self.name,
                "pending": self._accepted - self._finished,
                "exporting": self._exporting(),
                "dropped": dict(self._dropped),
                **self._fates.counts(),
            }
        return found | told_by(self.exporter)
