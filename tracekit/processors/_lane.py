"""One exporter's lane behind the batch processor: its queue, its threads, its ledger.

Theory of operation. A lane has one thread. An exporter that can take several batches at once
(``exports_at_once``) gets more, one at a time: whoever is through with an export that took long,
and finds that others wait and no thread is free, starts another. So what is fast enough for one
thread never has two, which would only compete for the interpreter; and what fails gets none
either. A thread that nothing waits for any more goes.

Batches may then be over in another order than they came: ``settled`` is how far it goes without
a gap, which is what a flush waits for.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from opentelemetry import context as context_api

from tracekit._ledger import tell_exported
from tracekit._listening import listens
from tracekit._own_work import in_empty_context, suppressed, suppressed_context
from tracekit.interfaces import ExportOutcome, ReadableSpan, SpanExporter
from tracekit.processors._fates import Fates, call_export, exporter_name, failed, put_aside, told_by
from tracekit.processors._queued import Queued, Request, Settled, size_of

__all__ = ["Lane"]

_logger = logging.getLogger("tracekit")

MAX_LANE_BYTES = 256 * 1024 * 1024
MAX_LEFT_BEHIND = 4
"""Threads that may hang in ``export`` at the same time, beside those that a lane may have at
once; the lane then drops until one returns."""
IDLE_S = 0.05
SLOW_S = 0.05
"""An export that takes less keeps up with ten thousand spans a second, in batches of 512."""
SPARE_S = 30.0
"""How long a thread that is not needed stays, with its connection."""


class _UnderWay(NamedTuple):
    """An export that has begun."""

    thread: threading.Thread
    began: float
    entry: Queued


def _at_once(exporter: SpanExporter) -> int:
    told: Any = getattr(exporter, "exports_at_once", 1)
    return told if type(told) is int and told > 0 else 1


class Lane:
    """Batches on their way to one exporter.

    ``_accepted`` and ``_dropped`` have one writer, the batch processor's worker; the others are
    written under the lock of ``progress``.
    """

    def __init__(
        self, exporter: SpanExporter, limit: int, timeout_s: float, progress: threading.Condition
    ) -> None:
        self.exporter = exporter
        self._limit = limit
        self._timeout_s = timeout_s
        self._at_once = _at_once(exporter)
        self._holds_back = listens(exporter, "force_flush")
        self._max_left_behind = MAX_LEFT_BEHIND + self._at_once - 1
        self.owns_exporter = True
        self.begin(progress)

    def begin(self, progress: threading.Condition) -> None:
        """Start with an empty lane and no thread."""
        self._progress = progress
        self._queue: queue.SimpleQueue[Queued] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._left_behind: list[threading.Thread] = []
        self._cannot_start = self._is_slow = False
        self._under_way: dict[int, _UnderWay] = {}
        self._accepted = self._accepted_bytes = 0
        self._finished = self._finished_bytes = 0
        self._settled = Settled()
        self._fates = Fates()
        self._dropped: Counter[str] = Counter()
        self._said_failure = False
        self._untold: deque[tuple[float, str]] = deque()

    @property
    def name(self) -> str:
        return exporter_name(self.exporter)

    @property
    def settled(self) -> int:
        """How many of the spans that were put here are over, the first ones without a gap."""
        with self._progress:
            return self._settled.spans

    # Called by the batch processor's worker ---------------------------------------------

    def put(self, last: int, spans: Sequence[ReadableSpan]) -> None:
        """Take a batch, or drop it when the lane is full."""
        size = size_of(spans)
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
        with self._progress:
            number = self._settled.expect(last)
        self._queue.put(Queued(number, spans, size))
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
        if len(self._left_behind) >= self._max_left_behind:
            self._left_behind = [part for part in self._left_behind if part.is_alive()]
        return len(self._left_behind) >= self._max_left_behind

    def start(self) -> None:
        """Start a thread, unless there are enough or too many hang already."""
        with self._progress:
            if not self._wants_thread():
                return
            thread = threading.Thread(
                target=in_empty_context(self._run),
                args=(self._queue,),
                name=f"tracekit-{self.name}",
                daemon=True,
            )
            self._threads.append(thread)
        # Not under the lock: whoever flushes must get it in time whatever becomes of the start.
        try:
            thread.start()
        except RuntimeError:  # the interpreter exits; step_in() does the work, if nobody is there
            with self._progress:
                self._threads.remove(thread)
                self._cannot_start = not self._threads

    def _wants_thread(self) -> bool:
        running = len(self._threads)
        if running:
            free = running - len(self._under_way)
            if running >= self._at_once or not self._is_slow or self._queue.qsize() <= free:
                return False
        return not self._is_stuck()

    def check_timeout(self) -> None:
        """Leave exports behind that take longer than they may, and go on without them."""
        # The worker and whoever flushes come here at the same time; one of them acts.
        with self._progress:
            now = time.monotonic()
            late = [
                part for part in self._under_way.values() if now - part.began >= self._timeout_s
            ]
            self._leave_behind(late)
        for under_way in late:
            self._put_aside(under_way, "timeout")
        if late:
            self.start()

    def _leave_behind(self, given_up: Sequence[_UnderWay]) -> None:
        """Give up exports; a thread finds that it is not the lane's any more and ends."""
        for part in given_up:
            del self._under_way[part.entry.number]
            if part.thread in self._threads:
                self._threads.remove(part.thread)
                self._left_behind.append(part.thread)

    def _put_aside(self, under_way: _UnderWay, reason: str) -> None:
        """Let the exporter keep a batch that was left behind, or count it as failed."""
        spans = under_way.entry.spans
        outcome = ExportOutcome(0)
        if spans:
            outcome = put_aside(self.exporter, spans) or failed(spans, reason)
        self._settle(under_way.entry, outcome, time.monotonic() - under_way.began)
        self._tell()

    # The lane's threads -----------------------------------------------------------------

    def _run(self, entries: queue.SimpleQueue[Queued]) -> None:
        context_api.attach(suppressed_context())
        me = threading.current_thread()
        while me in self._threads and entries is self._queue:
            try:
                entry = entries.get(timeout=SPARE_S if len(self._threads) > 1 else None)
            except queue.Empty:
                self._leave_if_spare(me)
                continue
            self._export(entry)
            del entry  # else a batch is kept until the next comes, however long that takes
            if self._is_slow and me in self._threads:
                self.start()

    def _leave_if_spare(self, me: threading.Thread) -> None:
        with self._progress:
            if len(self._threads) > 1 and me in self._threads:
                self._threads.remove(me)

    def _export(self, entry: Queued) -> None:
        outcome = ExportOutcome(0)
        under_way = _UnderWay(threading.current_thread(), time.monotonic(), entry)
        with self._progress:
            self._under_way[entry.number] = under_way
        if entry.request is not None:
            entry.request.answer()
        elif entry.spans:
            outcome = call_export(self.exporter, entry.spans)
        with self._progress:
            # Else it was given up meanwhile, and counted.
            if self._under_way.pop(entry.number, None) is not None:
                self._settle(entry, outcome, time.monotonic() - under_way.began)
        self._tell()

    def _tell(self) -> None:
        """Tell of exports that are over; not under a lock, since whoever listens has its own."""
        try:
            while self._untold:
                tell_exported(self.exporter, *self._untold.popleft())
        except IndexError:  # another thread told of the last one
            return

    def _settle(self, entry: Queued, outcome: ExportOutcome, duration_s: float) -> None:
        if entry.spans:
            self._untold.append((duration_s, outcome.reason))
            self._is_slow = outcome.sent > 0 and duration_s >= SLOW_S
        if outcome.lost:
            self._say_failure(outcome.reason)
        with self._progress:
            self._fates.add(outcome)
            self._finish(entry)

    def _finish(self, entry: Queued) -> None:
        self._finished += len(entry.spans)
        self._finished_bytes += entry.size
        self._settled.over(entry.number)
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
        if not self._holds_back:
            return True
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
        with self._progress:
            threads, self._threads = self._threads, []
            wakers = [Queued(self._settled.take_number()) for _ in threads]
        for waker in wakers:
            self._queue.put(waker)  # wakes a thread, which finds that it may go

    def _wait_for_export(self, deadline: float) -> None:
        with self._progress:
            while self._accepted > self._finished and time.monotonic() < deadline:
                self._progress.wait(min(IDLE_S, max(0.0, deadline - time.monotonic())))

    def give_up(self, deadline: float) -> None:
        """Let the exporter keep what is under way or queued; what it cannot keep is lost."""
        with self._progress:
            given_up = list(self._under_way.values())
            self._leave_behind(given_up)
        for under_way in given_up:
            self._put_aside(under_way, "exit")
        try:
            while True:
                self._give_up_queued(self._queue.get_nowait(), deadline)
        except queue.Empty:
            return

    def _give_up_queued(self, entry: Queued, deadline: float) -> None:
        if entry.request is not None:
            return
        outcome = None
        if entry.spans and time.monotonic() < deadline:
            outcome = put_aside(self.exporter, entry.spans)
        with self._progress:
            if outcome is None and entry.spans:
                self._dropped["exit"] += len(entry.spans)
            elif outcome is not None:
                self._fates.add(outcome)
            self._finish(entry)

    def _ask(self, method: str, timeout_s: float, *arguments: Any) -> Any:
        """Call a method of the exporter, and give up waiting for it at the deadline.

        A thread of the lane calls it, behind the batches: at the interpreter's exit no new
        one could be started. Without any, a thread is tried, and at last this one.
        """
        request = Request(self.exporter, method, arguments)
        with self._progress:
            number = self._settled.take_number()
            has_thread = any(thread.is_alive() for thread in self._threads)
        if has_thread:
            self._queue.put(Queued(number, request=request))
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
        return sum(len(part.entry.spans) for part in self._under_way.values())

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
