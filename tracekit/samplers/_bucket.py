"""A bucket of tokens: so many a second, and some at once."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tracekit import _fork
from tracekit.errors import InvalidValueError
from tracekit.samplers._clock import clock_in_use

__all__ = ["TokenBucket"]


class TokenBucket:
    """Give out ``per_second`` tokens a second on average, and up to ``burst`` at once.

    Args:
        burst: What a bucket that was not touched for long holds; by default what a second
            brings, and at least one.
        clock: Seconds that never go back; the machine's by default.

    Raises:
        InvalidValueError: ``per_second`` is not above 0, or ``burst`` is below 1.

    Concurrency: from any thread; a lock is held for some arithmetic. A forked child begins with
    a bucket of its own, so that every worker has the whole rate.
    """

    def __init__(
        self,
        per_second: float,
        burst: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> None:
        if not 0 < per_second < float("inf"):
            raise InvalidValueError("traces per second", per_second, "a number above 0")
        if burst is not None and not 1 <= burst < float("inf"):
            raise InvalidValueError("burst", burst, "a number from 1 on")
        self.per_second = per_second
        self.burst = max(1.0, per_second) if burst is None else float(burst)
        self._clock = clock or clock_in_use()
        self.after_fork_in_child()
        _fork.on_fork_in_child(self)

    def after_fork_in_child(self) -> None:
        # Reentrant: a signal handler that makes a span may interrupt a take of the same thread.
        self._lock = threading.RLock()
        self._tokens = self.burst
        self._filled = self._clock()

    def take(self) -> bool:
        """Take a token; False when there is none."""
        with self._lock:
            now = self._clock()
            gained = max(0.0, now - self._filled) * self.per_second
            self._filled = now
            self._tokens = min(self.burst, self._tokens + gained)
            if self._tokens < 1.0:
                return False
            self._tokens -= 1.0
            return True
