"""The batch processor: takes ended spans off the caller's hands and carries them to exporters.

Theory of operation
-------------------
``on_end`` appends the span to a list and compares one number; that is all the caller pays.
The *worker* thread, started by the first span, wakes when a batch is full or the delay is
over. It empties the list and puts batches into one *lane* per exporter. Each lane has a
thread that calls ``export``, so a slow or dead exporter fills its own lane and delays nobody;
an exporter that is slow and takes several batches at once gets more threads.

Bounds. The list and each lane hold at most ``max_queue_size`` spans when that is set, and
at most ``MAX_LANE_BYTES`` (an estimate) in any case. By default only memory bounds them: a
burst that is faster than the worker, which has to wait for the GIL, is kept. What does not
fit is dropped and counted by reason, the newest first.

Time. An ``export`` that exceeds the timeout is left behind in its thread, its batch is
counted as failed and the lane goes on in a new thread. ``force_flush`` and ``shutdown`` end
by their deadline whatever an exporter does.

Fork. The child has none of these threads; it starts with an empty list and empty lanes (what
was queued is the parent's) and starts its own worker at its first span.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from tracekit import _fork
from tracekit._ledger import Counter
from tracekit._own_work import in_empty_context, load_context_binding
from tracekit.errors import InvalidValueError
from tracekit.interfaces import ReadableSpan, SpanExporter, SpanProcessor
from tracekit.processors._lane import Lane
from tracekit.processors._stage import is_sampled

__all__ = ["BatchSpanProcessor"]

_logger = logging.getLogger("tracekit")

DEFAULT_DELAY_MILLIS = 5_000
DEFAULT_TIMEOUT_MILLIS = 30_000
DEFAULT_BATCH_SIZE = 512
MIN_DELAY_S = 0.01
"""A delay of 0 asks for as soon as possible, not for a worker that never rests."""
SHARE_FOR_SENDING = 0.6
"""Of the time for a shutdown, where what is left then can be kept: the rest is for keeping it."""
MAX_DIGITS = 18
BATCHES_AT_ONCE = 16
"""Batches that are taken out of the intake together. What is behind them moves up, which costs
little for many at once; and as long as they are handed out, nobody learns how many are queued."""
UNBOUNDED_QUEUE_SIZE = 1_000_000
"""Spans that may wait when no queue size is set: a backstop behind the bound in bytes."""


class _Progress(threading.Condition):
    """A Condition with a reentrant lock, which the program's own do not pay for.

    One keeps its lock's ``_is_owned`` as an attribute of its own, for which CPython stops to take
    the short way to the method of that name, for all of the same class: with a first one here,
    every ``put`` of a ``queue.Queue`` would take 0.1 µs longer, and requests does twenty a call.
    """


class BatchSpanProcessor(SpanProcessor):
    """Export sampled spans in batches, from a thread of its own, to one or more exporters.

    Args:
        span_exporter: One exporter, or several that get the same spans.
        max_queue_size: Spans that may wait; OTEL_BSP_MAX_QUEUE_SIZE; by default as many as
            fit into the bound on memory.
        schedule_delay_millis: OTEL_BSP_SCHEDULE_DELAY; 5000.
        max_export_batch_size: OTEL_BSP_MAX_EXPORT_BATCH_SIZE; 512.
        export_timeout_millis: For one call of ``export``; OTEL_BSP_EXPORT_TIMEOUT; 30000. With 0
            there is no limit.

    Raises:
        InvalidValueError: A size is not positive, a time is negative, or the batch exceeds the
            queue.

    Concurrency: all methods may be called from any thread.
    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#batching-processor
    """

    def __init__(
        self,
        span_exporter: SpanExporter | Sequence[SpanExporter],
        max_queue_size: int | None = None,
        schedule_delay_millis: float | None = None,
        max_export_batch_size: int | None = None,
        export_timeout_millis: float | None = None,
    ) -> None:
        load_context_binding()
        several = isinstance(span_exporter, (list, tuple))
        exporters: list[Any] = list(span_exporter) if several else [span_exporter]  # type: ignore[arg-type]
        self._limit = limit = _count("MAX_QUEUE_SIZE", max_queue_size, UNBOUNDED_QUEUE_SIZE)
        self._batch_size = _count(
            "MAX_EXPORT_BATCH_SIZE", max_export_batch_size, DEFAULT_BATCH_SIZE
        )
        if self._batch_size > limit:
            if max_export_batch_size is not None and max_queue_size is not None:
                raise InvalidValueError(
                    "max_export_batch_size", max_export_batch_size, "at most max_queue_size"
                )
            if max_export_batch_size is None and self._batch_size != DEFAULT_BATCH_SIZE:
                _logger.warning(
                    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE=%d is ignored: the queue holds %d",
                    self._batch_size,
                    limit,
                )
            self._batch_size = limit
        delay_s = _seconds("SCHEDULE_DELAY", schedule_delay_millis, DEFAULT_DELAY_MILLIS)
        self._delay_s = min(max(delay_s, MIN_DELAY_S), threading.TIMEOUT_MAX)
        # https://opentelemetry.io/docs/specs/otel/configuration/common/#timeout
        timeout_s = _seconds("EXPORT_TIMEOUT", export_timeout_millis, DEFAULT_TIMEOUT_MILLIS)
        timeout_s = timeout_s or math.inf
        self._progress = _Progress()
        self._lanes = [Lane(part, limit, timeout_s, self._progress) for part in exporters]
        self._is_closing = self._is_shut_down = False
        self.after_hand_out: Callable[[], None] | None = None
        self._employers: list[Callable[[], float | None]] = []
        self._begin()
        _fork.on_fork_in_child(self)

    def _begin(self) -> None:
        """Start with nothing queued and no thread; the first span asks for attention."""
        # A list: appending takes half as long as with a deque, and so many are taken out at once.
        self._intake: list[ReadableSpan] = []
        self._attention_at = 1
        self._wake = threading.Event()
        self._start_lock = threading.Lock()
        # Held from the intake into the lanes, so that no span is in neither while flush() counts.
        # Reentrant: a signal handler that flushes may interrupt a flush of the same thread.
        self._handing = threading.RLock()
        self._worker: threading.Thread | None = None
        self._taken = 0
        # Spans that are recorded only: their number is counted without a lock, as the others'.
        self._unsampled = Counter()
        self._count_unsampled = self._unsampled.add
        self._dropped = {"queue_full": 0, "after_shutdown": 0}
        self._lost_and_told = 0

    def after_fork_in_child(self) -> None:
        self._progress = _Progress()
        self._begin()
        for lane in self._lanes:
            lane.begin(self._progress)

    @property
    def exporters(self) -> tuple[SpanExporter, ...]:
        return tuple(lane.exporter for lane in self._lanes)

    # The caller's side ------------------------------------------------------------------

    def on_end(self, span: ReadableSpan) -> None:
        if is_sampled(span):
            self.on_end_sampled(span)
        else:
            self._count_unsampled()

    def on_end_sampled(self, span: ReadableSpan) -> None:
        """Take a span that is known to be sampled: what the tracer itself calls."""
        intake = self._intake
        intake.append(span)
        if len(intake) >= self._attention_at:
            self._attend()

    def on_end_all(self, spans: Sequence[ReadableSpan]) -> None:
        """Take spans that are known to be sampled, all at once: what a stage hands on."""
        intake = self._intake
        if self._is_shut_down or len(intake) + len(spans) > self._limit:
            for span in spans:
                self.on_end_sampled(span)
            return
        intake.extend(spans)
        if len(intake) >= self._attention_at:
            self._attend()

    def _attend(self) -> None:
        """Start the worker, wake it, or drop the span that did not fit."""
        intake = self._intake
        _fork.check_pid()
        if intake is not self._intake:
            # A child that nobody announced: what was queued is the parent's, but for this span.
            self.on_end(intake.pop())
        elif self._is_shut_down:
            self._drop_newest("after_shutdown")
        elif len(self._intake) > self._limit:
            self._drop_newest("queue_full")
        elif self._worker is None and not self._start_worker():
            self._attention_at = self._limit + 1
        elif len(self._intake) >= self._batch_size:
            # Until the worker has been here, only a full queue needs attention again.
            self._attention_at = self._limit + 1
            self._wake.set()

    def _drop_newest(self, reason: str) -> None:
        # Under the lock of whoever takes spans out, else both might have the same one.
        with self._handing:
            room = 0 if self._is_shut_down else self._limit
            if len(self._intake) > room:  # else the worker was faster
                self._intake.pop()
                self._dropped[reason] += 1

    def _start_worker(self) -> bool:
        with self._start_lock:
            if self._worker is not None:
                return True
            work = in_empty_context(self._run)
            worker = threading.Thread(target=work, name="tracekit-batch", daemon=True)
            try:
                worker.start()
            except RuntimeError:
                # No thread can be started while the interpreter exits; shutdown() exports.
                return False
            self._worker = worker
            self._attention_at = self._batch_size
            return True

    def employ(self, work: Callable[[], float | None]) -> Callable[[], None]:
        """Let the worker do a stage's work each time before it hands out.

        Args:
            work: Returns in how many seconds it wants to be called again at the latest.

        Returns:
            What wakes the worker for it.
        """
        self._employers.append(work)
        return self._call_worker

    def _call_worker(self) -> None:
        if self._worker is not None or (not self._is_shut_down and self._start_worker()):
            self._wake.set()

    # The worker's side ------------------------------------------------------------------

    def _run(self) -> None:
        wake, intake = self._wake, self._intake
        # Before the first batch: while the interpreter exits, no thread may start (Python 3.12).
        for lane in self._lanes:
            lane.start()
        wait_s = self._delay_s
        while intake is self._intake and not self._is_shut_down:
            wake.wait(wait_s)
            wake.clear()
            wait_s = min([self._delay_s, *self._work_for_others()])
            self._hand_out()
            if self.after_hand_out is not None:
                self.after_hand_out()

    def _work_for_others(self) -> Iterator[float]:
        """Do the work of stages that have no thread; yield how soon more of it is due."""
        for work in self._employers:
            try:
                due_s = work()
            except Exception:
                _logger.warning("%r raised", work, exc_info=True)
            else:
                if due_s is not None:
                    yield due_s

    def _hand_out(self) -> None:
        """Move everything from the intake into the lanes."""
        intake, size = self._intake, self._batch_size
        self._attention_at = self._limit + 1
        while intake:
            with self._handing:
                # Another thread may hand out as well, and have taken them.
                taken = intake[: size * BATCHES_AT_ONCE]
                del intake[: len(taken)]
                for first in range(0, len(taken), size):
                    self._hand_out_batch(taken[first : first + size])
        self._attention_at = 0 if self._is_shut_down else size
        for lane in self._lanes:
            lane.check_timeout()

    def _hand_out_batch(self, batch: list[ReadableSpan]) -> None:
        self._taken += len(batch)
        for lane in self._lanes:
            lane.put(self._taken, batch)

    # Flushing ---------------------------------------------------------------------------

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Export what has ended so far; True only if all of it was exported within the time."""
        deadline = time.monotonic() + timeout_millis / 1000
        flushed = self._is_shut_down or self._flush(deadline)
        # What was lost since the last flush has not arrived either, though nothing waits for it.
        told, self._lost_and_told = self._lost_and_told, self._lost()
        return flushed and self._lost_and_told == told

    def _flush(self, deadline: float) -> bool:
        if not self._push(self._arrived(), deadline):
            return False
        # Each is asked, also when one before it could not.
        flushed = [lane.flush_exporter(deadline) for lane in self._lanes]
        return all(flushed)

    def _arrived(self) -> int:
        with self._handing:
            return self._taken + len(self._intake)

    def _push(self, target: int, deadline: float) -> bool:
        """Wait until every lane has settled the first ``target`` spans."""
        if self._is_settled(target):
            return True
        self._wake.set()
        if self._worker is None or not self._worker.is_alive():
            self._hand_out()
        while not self._is_settled(target):
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            with self._progress:
                # The wait is short because a hanging export must be noticed meanwhile.
                self._progress.wait_for(lambda: self._is_settled(target), min(left, 0.1))
            for lane in self._lanes:
                lane.check_timeout()
                lane.step_in(deadline)
        return True

    @property
    def takes_unfinished(self) -> bool:
        return any(lane.takes_unfinished for lane in self._lanes)

    def export_unfinished(self, spans: Sequence[ReadableSpan], timeout_millis: int) -> None:
        """Let exporters that can note spans which are still open, behind those that have ended."""
        deadline = time.monotonic() + timeout_millis / 1000
        self._wake.set()
        for lane in self._lanes:
            lane.export_unfinished(spans, deadline)

    def _is_settled(self, target: int) -> bool:
        return all(lane.settled >= target for lane in self._lanes)

    def spare(self, exporters: Sequence[SpanExporter]) -> None:
        """Leave these running at shutdown: another processor goes on with them."""
        for lane in self._lanes:
            if any(lane.exporter is part for part in exporters):
                lane.owns_exporter = False

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        """Export what is queued, within the time, and stop; the rest is kept, or dropped."""
        with self._handing:
            if self._is_closing:
                return
            self._is_closing = True
        began = time.monotonic()
        deadline = began + timeout_millis / 1000
        for lane in self._lanes:
            lane.hurry()
        # An exporter may hold something back that only its flush sends.
        # https://opentelemetry.io/docs/specs/otel/trace/sdk/#shutdown-1
        self._flush(began + timeout_millis / 1000 * self._share_for_sending())
        self._is_shut_down = True
        self._attention_at = 0
        self._wake.set()
        self._hand_out()
        # Those that wait until the deadline come last.
        for lane in sorted(self._lanes, key=lambda lane: not lane.can_keep):
            lane.close(deadline)

    def _share_for_sending(self) -> float:
        return SHARE_FOR_SENDING if any(lane.can_keep for lane in self._lanes) else 1.0

    def flush_or_keep(self, timeout_millis: int) -> bool:
        """Leave nothing in memory, within the time: export what has ended, keep the rest.

        For a process that is about to be frozen, and perhaps never wakes up.

        Returns:
            Whether all of it was exported.
        """
        began = time.monotonic()
        if self.force_flush(int(timeout_millis * self._share_for_sending())):
            return True
        self._hand_out()
        for lane in self._lanes:
            if lane.can_keep:
                lane.give_up(began + timeout_millis / 1000)
        return False

    # The ledger -------------------------------------------------------------------------

    def received(self) -> int:
        """Return how many ended spans came here since the process began."""
        with self._handing:
            queued = self._taken + len(self._intake)
            return queued + sum(self._dropped.values()) + self._unsampled.read()

    def _lost(self) -> int:
        return sum(self._dropped.values()) + sum(lane.lost() for lane in self._lanes)

    def stats(self) -> dict[str, Any]:
        with self._handing:
            return {
                "processor": "batch",
                "received": self.received(),
                "not_sampled": self._unsampled.read(),
                "queued": len(self._intake),
                "queue_capacity": self._limit,
                "dropped": dict(self._dropped),
                "exporters": [lane.stats() for lane in self._lanes],
            }


def _count(name: str, argument: int | None, default: int) -> int:
    """Return an argument, else its environment variable, else the default.

    A variable that cannot be used is reported and ignored, as the specification asks; an
    argument is refused. https://opentelemetry.io/docs/specs/otel/configuration/common/#numeric
    """
    if argument is None:
        return _variable(name, default, 1)
    given: Any = argument
    if isinstance(given, bool) or not isinstance(given, int) or given <= 0:
        raise InvalidValueError(name.lower(), argument, "a whole number above 0")
    return argument


def _seconds(name: str, millis: float | None, default: int) -> float:
    if millis is None:
        return _variable(name, default, 0) / 1000
    given: Any = millis
    # Written so that NaN is refused too.
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not given >= 0:
        raise InvalidValueError(f"{name.lower()}_millis", millis, "a number that is not negative")
    return millis / 1000


def _variable(name: str, default: int, least: int) -> int:
    text = os.environ.get(f"OTEL_BSP_{name}", "").strip()
    if not text:
        return default
    # More digits than these are no number of spans or milliseconds, and int() may refuse them.
    if text.isdecimal() and len(text) <= MAX_DIGITS and int(text) >= least:
        return int(text)
    _logger.warning(
        "OTEL_BSP_%s=%r is ignored: expected a whole number, at least %d", name, text[:80], least
    )
    return default


plugin: type[SpanProcessor] = BatchSpanProcessor
