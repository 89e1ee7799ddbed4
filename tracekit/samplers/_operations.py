"""How much of each operation is kept, so that together it is so many traces a second.

Theory of operation
-------------------
Time is cut into windows of about a second. When one is over, the first trace of the next counts
what came of each operation and works out its *share*: in proportion to the inverse square root of
its rate, so that an operation that comes a hundred times as often is kept ten times as often, not
a hundred times. That lies between equal parts, which tell most about rare operations and little
about the whole, and a common share, which is best for the whole and never sees what is rare.

Two things are put on top. An operation that was not kept for a while is *due*: its next trace is
kept for sure; this may take half of what there is. And what is *spent*, the sum of the shares that
were used, is watched: once a window's worth is gone, each further eighth costs four times as many
traces as the one before, so that a thousandfold surge keeps less than twice the target in the
second that it takes to notice.

Counting stays right. A share depends on traces that came before and never on the randomness of
the trace that it is for, so the inverse of it is an unbiased weight at any moment, surges included
(Horvitz and Thompson, 1952).

Concurrency: no lock is taken on the path of a span, as a signal handler that makes one may
interrupt another at any place. An increment that is lost between two threads makes an estimate a
little too small, never a weight wrong, since what is written down is the threshold that was used.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Hashable

from opentelemetry.trace import TraceState

from tracekit import _fork
from tracekit._ot_state import threshold_of, with_threshold
from tracekit.errors import InvalidValueError

__all__ = ["Operation", "OperationShares"]

WINDOW_S = 1.0
LEAST_BUDGET = 2.0
"""Traces of a window, at least: with a target below that, windows are longer."""
SETTLE_S = 5.0
"""Over what time rates are averaged."""
CLEARLY = 10
"""Traces of a window from which twice as many, or half, is a change and not chance."""
FORGET_S = 600.0
"""When an operation that does not come any more makes room for others."""
LEAST_SHARE = 2.0**-40


class Operation:
    """What is known of one operation.

    Attributes:
        share: Which part of its traces is kept; ``threshold`` says the same.
        due_s: When it has not been kept for so long that its next trace is, for sure.
    """

    __slots__ = ("_state", "active_s", "arrived", "due_s", "rate", "share", "threshold", "window")

    def __init__(self, now: float) -> None:
        self.arrived = 0
        self.rate: float | None = None
        self.share = 1.0
        self.threshold = 0
        self.window = 0
        self.due_s = self.active_s = now
        self._state: tuple[int, TraceState] | None = None

    def state_of(self, threshold: int) -> TraceState:
        """Return the trace state of a root that was kept; the same object while it is the same."""
        known = self._state
        if known is None or known[0] != threshold:
            self._state = known = (threshold, with_threshold(None, threshold))
        return known[1]

    def settle(self, elapsed_s: float, now: float) -> None:
        """Take over what was counted in a window."""
        arrived, self.arrived = self.arrived, 0
        measured = arrived / elapsed_s
        if arrived:
            self.active_s = now
        if self.rate is None or self._has_changed(arrived, self.rate * elapsed_s):
            self.rate = measured
        else:
            self.rate += (measured - self.rate) * -math.expm1(-elapsed_s / SETTLE_S)

    @staticmethod
    def _has_changed(arrived: int, expected: float) -> bool:
        return max(arrived, expected) >= CLEARLY and not expected / 2 <= arrived <= expected * 2


class OperationShares:
    """Spread ``per_second`` traces over operations.

    Args:
        max_operations: So many are told apart; what else comes is one operation together.
        clock: Seconds that never go back.

    Raises:
        InvalidValueError: ``per_second`` is not above 0, or ``max_operations`` is below 1.

    Concurrency: from any thread. A forked child begins anew, so that every worker has the whole
    target.
    Cost: about half a microsecond a trace. The trace that ends a window looks at all operations:
    0.6 ms for a thousand.
    """

    def __init__(self, per_second: float, max_operations: int, clock: Callable[[], float]) -> None:
        if not 0 < per_second < math.inf:
            raise InvalidValueError("traces per second", per_second, "a number above 0")
        if max_operations < 1:
            raise InvalidValueError("max_operations", max_operations, "a number from 1 on")
        self.per_second = float(per_second)
        self._max_operations = max_operations
        self._clock = clock
        self._window_s = max(WINDOW_S, LEAST_BUDGET / self.per_second)
        self._budget = self.per_second * self._window_s
        self.after_fork_in_child()
        _fork.on_fork_in_child(self)

    def after_fork_in_child(self) -> None:
        self._turning = threading.Lock()
        self._operations: dict[Hashable, Operation] = {}
        self._window = 0
        self._began = self._clock()
        self._ends = self._began + self._window_s
        self._spent = self._spent_on_due = 0.0
        self._due_per_s = 0.0
        self._level = math.inf
        self._others = Operation(self._began)
        self._due_after_s = self._window_s

    def __len__(self) -> int:
        return len(self._operations)

    def decide(self, key: Hashable, randomness: int) -> tuple[Operation, int]:
        """Return the operation, and the threshold for a trace of it that is starting now.

        Args:
            randomness: Of the trace; looked at when the threshold is settled, to know whether the
                operation has been seen.
        """
        now = self._clock()
        if now >= self._ends:
            self._turn(now)
        operation = self._operations.get(key) or self._new(key, now)
        return operation, self._threshold(operation, randomness, now)

    def _new(self, key: Hashable, now: float) -> Operation:
        if len(self._operations) >= self._max_operations:
            return self._others
        return self._operations.setdefault(key, Operation(now))

    def _threshold(self, operation: Operation, randomness: int, now: float) -> int:
        if now >= operation.due_s and self._spent_on_due < max(1.0, self._budget / 2):
            operation.due_s = now + self._due_after_s
            self._spent += 1.0
            self._spent_on_due += 1.0
            return 0
        operation.arrived += 1
        if operation.window != self._window:
            self._share(operation)
        share, threshold = operation.share, operation.threshold
        if self._spent >= self._budget:
            share = max(LEAST_SHARE, share * self._scarcity())
            threshold = threshold_of(share)
        self._spent += share
        if randomness >= threshold:
            operation.due_s = now + self._due_after_s
        return threshold

    def _scarcity(self) -> float:
        eighths = (self._spent - self._budget) / (self._budget / 8)
        return float(0.25 ** (1 + min(64, int(eighths))))

    def _share(self, operation: Operation) -> None:
        """Work out an operation's share when it first comes in a window."""
        rate = 1 / self._window_s if operation.rate is None else operation.rate
        share = min(1.0, self._level / math.sqrt(rate)) if rate else 1.0
        operation.threshold = threshold_of(share)
        operation.share = share
        operation.window = self._window

    # When a window is over -------------------------------------------------------------

    def _turn(self, now: float) -> None:
        # Whoever comes while another thread counts goes on with the shares of before.
        if not self._turning.acquire(blocking=False):
            return
        try:
            if now >= self._ends:
                self._settle(now, now - self._began)
        finally:
            self._turning.release()

    def _settle(self, now: float, elapsed_s: float) -> None:
        operations = list(self._operations.items())
        rates = []
        for key, operation in (*operations, (None, self._others)):
            operation.settle(elapsed_s, now)
            if operation.rate:
                rates.append(operation.rate)
            if now - operation.active_s > FORGET_S:
                self._operations.pop(key, None)
        due_per_s = self._spent_on_due / elapsed_s
        self._due_per_s += (due_per_s - self._due_per_s) * -math.expm1(-elapsed_s / SETTLE_S)
        self._level = _level(rates, max(self.per_second / 2, self.per_second - self._due_per_s))
        self._due_after_s = max(self._window_s, 2 * (len(operations) + 1) / self.per_second)
        self._spent = self._spent_on_due = 0.0
        self._began, self._ends = now, now + self._window_s
        self._window += 1


def _level(rates: list[float], available: float) -> float:
    """Return what each rate's square root is multiplied by, so that ``available`` is kept.

    Of no operation more than all is kept; what that leaves over goes to the others, and so on.
    """
    while rates:
        roots = sum(map(math.sqrt, rates))
        level = max(0.0, available) / roots
        whole = [rate for rate in rates if math.sqrt(rate) <= level]
        if not whole:
            return level
        available -= sum(whole)
        rates = [rate for rate in rates if math.sqrt(rate) > level]
    return math.inf
