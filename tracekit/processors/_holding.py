"""Which local traces are held, what they weigh, and which of them is due."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import repeat, starmap
from typing import NamedTuple

from tracekit.processors._held_trace import HeldTrace
from tracekit.processors._queued import size_of
from tracekit.processors._tail_settings import TailSettings

__all__ = ["Due", "Holding", "Intake"]

RELIEVED = 0.9
"""Of a bound that was reached: room is made until so much is left, not for one trace at a time."""
LARGEST_SHARE = 8
"""The part of the bytes that one trace may have."""
SOONEST_S = 0.01

Due = tuple[HeldTrace, str]
"""A trace that is to be decided about, and why that is early; nothing for one that is over."""


class Intake:
    """What threads that start and end spans leave for the worker: traces begun, grown, ended."""

    def __init__(self) -> None:
        self.begun: deque[HeldTrace] = deque()
        self.grown: deque[HeldTrace] = deque()
        self.ended: deque[HeldTrace] = deque()

    def traces(self) -> list[HeldTrace]:
        return [*self.begun, *self.grown, *self.ended]


class _Ending(NamedTuple):
    """Traces whose roots have ended and whose late spans are waited for, with what they weigh."""

    due_s: float
    traces: Sequence[HeldTrace]
    spans: int
    size: int


class Holding:
    """The traces that are held: those under way, oldest first, and those that are ending.

    Concurrency: none; under the lock of the stage.
    """

    def __init__(self) -> None:
        self._open: dict[int, HeldTrace] = {}
        self._ending: deque[_Ending] = deque()
        self._large: list[HeldTrace] = []
        self._spans = self._bytes = 0

    @property
    def traces(self) -> list[HeldTrace]:
        ending = [trace for each in self._ending for trace in each.traces]
        return [*self._open.values(), *ending]

    # Taking in --------------------------------------------------------------------------

    def take_in(self, intake: Intake, settings: TailSettings) -> None:
        """Note what has begun and is under way still, has grown, or has ended."""
        now = time.monotonic()
        found = self._open
        begun, grown, ended = intake.begun, intake.grown, intake.ended
        # Most have ended by now, and are looked at once only.
        for trace in [each for each in _drained(begun) if each.root is None]:
            if trace.verdict is None:
                trace.since_s = now
                found[id(trace)] = trace
                self._recharge(trace, trace.attention_at, 0)
        if grown:
            self._charge(
                [trace for trace in _drained(grown) if trace.verdict is None], now, settings
            )
        if ended:
            self._end([trace for trace in _drained(ended) if trace.verdict is None], now, settings)

    def _charge(self, traces: Sequence[HeldTrace], now: float, settings: TailSettings) -> None:
        """Count the spans and bytes of traces; the newest spans stand for what came with them."""
        if not traces:
            return
        mean = size_of([trace[-1] for trace in traces]) // len(traces)
        most_bytes = settings.max_bytes // LARGEST_SHARE
        for trace in traces:
            if self._open.setdefault(id(trace), trace).charged == 0:
                trace.since_s = now
            more = trace.attention_at - trace.charged
            self._recharge(trace, trace.attention_at, trace.charged_bytes + more * mean)
            if len(trace) >= settings.max_trace_spans or trace.charged_bytes > most_bytes:
                self._large.append(trace)

    def _recharge(self, trace: HeldTrace, spans: int, size: int) -> None:
        self._spans += spans - trace.charged
        self._bytes += size - trace.charged_bytes
        trace.charged, trace.charged_bytes = spans, size

    def _end(self, traces: Sequence[HeldTrace], now: float, settings: TailSettings) -> None:
        """Let traces wait for late spans, together."""
        for trace in traces if self._open else ():
            self.forget(trace)
        spans = sum(map(len, traces))
        size = size_of([trace[-1] for trace in traces]) * spans // (len(traces) or 1)
        self._spans += spans
        self._bytes += size
        self._ending.append(_Ending(now + settings.linger_s, traces, spans, size))

    def forget(self, trace: HeldTrace) -> None:
        """Hold a trace under way no longer; one that is not held is nothing to it."""
        if self._open.pop(id(trace), None) is not None:
            self._recharge(trace, 0, 0)

    # What is due ------------------------------------------------------------------------

    def over(self, at_once: bool = False) -> Iterator[Sequence[HeldTrace]]:
        """Yield traces whose late spans were waited for, or are not waited for any longer."""
        now = time.monotonic()
        while self._ending and (at_once or self._ending[0].due_s <= now):
            ending = self._ending.popleft()
            self._spans -= ending.spans
            self._bytes -= ending.size
            yield ending.traces

    def early(self, settings: TailSettings) -> list[Due]:
        """Return the traces under way that are too old or too large."""
        now = time.monotonic()
        large, self._large = self._large, []
        found = [(trace, "size") for trace in large if trace.verdict is None]
        for trace in tuple(self._open.values()):
            if trace.root is None:
                if now - trace.since_s < settings.max_age_s:
                    break
                if trace or self._is_given_up(trace):
                    found.append((trace, "age"))
        return found

    def _is_given_up(self, trace: HeldTrace) -> bool:
        """Wait no longer for a trace of which nothing has ended: its first span will tell of it.

        Returns:
            False; True where a span has ended meanwhile.
        """
        trace.attention_at = 1
        if not trace:
            self.forget(trace)
        return bool(trace)

    def under_way(self) -> list[Due]:
        """Return the traces whose root has not ended, to be cut short."""
        self._large.clear()
        return [(trace, "flush") for trace in self._open.values() if trace]

    def exceeds(self, settings: TailSettings, part: float = 1.0) -> bool:
        return self._spans > settings.max_spans * part or self._bytes > settings.max_bytes * part

    def excess(self, settings: TailSettings) -> Iterator[Due]:
        """Yield the oldest traces, which the caller decides about, while too much is held."""
        for trace in self._open.values():
            # What is charged runs ahead of what is held.
            self._recharge(trace, len(trace) + 1, trace.charged_bytes)
        for trace in tuple(self._open.values()):
            if not self.exceeds(settings, RELIEVED):
                return
            yield trace, "spans" if self._spans > settings.max_spans * RELIEVED else "bytes"

    def due_in(self, settings: TailSettings) -> float | None:
        """Return in how many seconds something is due; None while nothing is held."""
        if self._ending:
            at = self._ending[0].due_s
        elif self._open:
            at = next(iter(self._open.values())).since_s + settings.max_age_s
        else:
            return None
        return max(SOONEST_S, at - time.monotonic())


def _drained(traces: deque[HeldTrace]) -> list[HeldTrace]:
    # Others append meanwhile, and nobody else takes out. In C throughout: it is of every trace.
    return list(starmap(traces.popleft, repeat((), len(traces))))
