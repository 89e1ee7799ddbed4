"""Which local traces are held, what they weigh, and which of them is due."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence

from tracekit.processors._held_trace import HeldTrace
from tracekit.processors._queued import size_of
from tracekit.processors._tail_settings import TailSettings

__all__ = ["Due", "Holding"]

RELIEVED = 0.9
"""Of a bound that was reached: room is made until so much is left, not for one trace at a time."""
LARGEST_SHARE = 8
"""The part of the bytes that one trace may have."""
SOONEST_S = 0.01

Due = tuple[HeldTrace, str]
"""A trace that is to be decided about, and why that is early; nothing for one that is over."""


class Holding:
    """The traces that are held, oldest first, and those that wait for late spans.

    Concurrency: none; under the lock of the stage.
    """

    def __init__(self) -> None:
        self._open: dict[int, HeldTrace] = {}
        self._ending: deque[tuple[float, HeldTrace]] = deque()
        self._grown: list[HeldTrace] = []
        self._spans = self._bytes = 0

    @property
    def traces(self) -> list[HeldTrace]:
        return list(self._open.values())

    def take_in(self, intake: deque[HeldTrace], linger_s: float) -> None:
        """Note what is new, has ended, or has grown."""
        now = time.monotonic()
        grown = []
        while intake:
            trace = intake.popleft()
            if trace.verdict is not None:
                continue
            if not trace.since_s:
                trace.since_s = now
                self._open[id(trace)] = trace
            if trace.root is not None and not trace.is_ending:
                trace.is_ending = True
                self._ending.append((now + linger_s, trace))
            grown.append(trace)
        if grown:
            self._charge(grown)
            self._grown += grown

    def _charge(self, traces: Sequence[HeldTrace]) -> None:
        """Count the spans and bytes of traces; the newest spans stand for what came with them."""
        mean = size_of([trace[-1] for trace in traces]) // len(traces)
        for trace in traces:
            spans = max(len(trace), trace.attention_at)
            more = spans - trace.charged
            if more > 0:
                self._recharge(trace, spans, trace.charged_bytes + more * mean)

    def _recharge(self, trace: HeldTrace, spans: int, size: int) -> None:
        self._spans += spans - trace.charged
        self._bytes += size - trace.charged_bytes
        trace.charged, trace.charged_bytes = spans, size

    def forget(self, trace: HeldTrace) -> None:
        """Hold a trace no longer; one that is not held is nothing to it."""
        if self._open.pop(id(trace), None) is not None:
            self._recharge(trace, 0, 0)

    # What is due ------------------------------------------------------------------------

    def due(self, settings: TailSettings) -> list[Due]:
        """Return the traces that are over, too old or too large."""
        now = time.monotonic()
        return [*self._over(now), *self._old(now, settings), *self._large(settings)]

    def _over(self, now: float) -> Iterator[Due]:
        ending = self._ending
        while ending and ending[0][0] <= now:
            trace = ending.popleft()[1]
            if trace.verdict is None:
                yield trace, ""

    def _old(self, now: float, settings: TailSettings) -> Iterator[Due]:
        for trace in self._open.values():
            if now - trace.since_s < settings.max_age_s:
                return
            if not trace.is_ending:
                yield trace, "age"

    def _large(self, settings: TailSettings) -> Iterator[Due]:
        grown, self._grown = self._grown, []
        most_bytes = settings.max_bytes // LARGEST_SHARE
        for trace in grown:
            is_large = trace.charged >= settings.max_trace_spans or trace.charged_bytes > most_bytes
            if is_large and trace.verdict is None:
                yield trace, "size"

    def everything(self) -> list[Due]:
        """Return all traces; those whose root has not ended are cut short."""
        self._ending.clear()
        self._grown.clear()
        return [(trace, "" if trace.root is not None else "flush") for trace in self.traces]

    def excess(self, settings: TailSettings) -> Iterator[Due]:
        """Yield the oldest traces, which the caller decides about, while too much is held."""
        if not self._exceeds(settings, 1.0):
            return
        for trace in self.traces:
            # What is charged runs ahead of what is held.
            self._recharge(trace, len(trace), trace.charged_bytes)
        for trace in self.traces:
            if not self._exceeds(settings, RELIEVED):
                return
            yield trace, "spans" if self._spans > settings.max_spans * RELIEVED else "bytes"

    def _exceeds(self, settings: TailSettings, part: float) -> bool:
        return self._spans > settings.max_spans * part or self._bytes > settings.max_bytes * part

    def due_in(self, settings: TailSettings) -> float | None:
        """Return in how many seconds something is due; None while nothing is held."""
        if self._ending:
            at = self._ending[0][0]
        elif self._open:
            at = next(iter(self._open.values())).since_s + settings.max_age_s
        else:
            return None
        return max(SOONEST_S, at - time.monotonic())
