"""Keeping for one destination what cannot be sent to it now, and sending it when that works.

Theory of operation. Whoever could not send hands requests to ``keep``. A thread then tries the
oldest of them, with pauses that grow, until nothing waits for this destination any more; it
also starts when another process has left something and a request of ours was taken. While
another process has the claim on the destination, the thread waits its turn. All attempts share
the breaker of the destination with the requests that come straight from the program.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any, Protocol

from tracekit._own_work import in_empty_context, suppressed
from tracekit.errors import StoreError
from tracekit.exporters._answer import Answer, Payload, Verdict
from tracekit.exporters._retry import RetryPolicy
from tracekit.store.spool import KeptRequest, Spool

__all__ = ["Spooling"]

_logger = logging.getLogger("tracekit")

LOOK_EVERY_S = 5.0
"""How often a process to which nothing happened looks for what others left."""
MOST_PER_REQUEST_S = 30.0
FLUSH_OTHERS_S = 1.0
"""What a flush, also that of an exit, spends on what other processes left."""
WATCH_S = 0.02
STOP_S = 0.5


class _Line(Protocol):
    """What is used of the delivery to the destination."""

    def obstacle(self) -> str: ...
    def attempt(self, payload: Payload, timeout_s: float) -> Answer: ...
    def settle_kept(self, answer: Answer, spans: int) -> int: ...


class _Left(Enum):
    """What a round of sending left behind."""

    NOTHING = 0
    SOME = 1
    CLAIMED = 2  # by another thread or process


class Spooling:
    """The spool as one delivery sees it.

    Concurrency: all methods may be called from any thread.
    """

    def __init__(
        self, spool: Spool, identity: str, policy: RetryPolicy, timeout_s: float, line: _Line
    ) -> None:
        self._spool = spool
        self._identity = identity
        self._policy = policy
        self._timeout_s = min(timeout_s, MOST_PER_REQUEST_S)
        self._line = line
        self.begin()

    def begin(self) -> None:
        """Start with nothing counted and no thread."""
        # Reentrant, as all locks here: a signal handler that shuts down may interrupt its holder.
        self._lock = threading.RLock()
        self._stopping, self._wake = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._look_at = 0.0
        self._seen: tuple[int, ...] = ()
        self.works = True
        self._said: set[str] = set()
        self._spooled = self._recovered = self._rejected = 0
        self._dropped: Counter[str] = Counter()

    # Putting in --------------------------------------------------------------------------

    def keep(self, requests: Sequence[KeptRequest]) -> bool:
        """Put requests into the spool, all or none; False when that was not possible."""
        try:
            dropped = self._spool.put(self._identity, requests)
        except StoreError as error:
            self._say(f"spans that cannot be sent cannot be kept either: {error}")
            self.works = False
            return False
        self.works = True
        with self._lock:
            self._spooled += sum(request.spans for request in requests)
        self._count_dropped(dropped)
        self._start()
        return True

    def _count_dropped(self, dropped: Counter[str]) -> None:
        if dropped:
            with self._lock:
                self._dropped += dropped
            for reason in dropped:
                self._say(
                    f"spool {self._spool.path}: the oldest spans were dropped ({reason}); "
                    "TRACEKIT_SPOOL_MAX_BYTES and TRACEKIT_SPOOL_MAX_AGE bound it"
                )

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            _logger.warning("%s", message)

    # Taking out --------------------------------------------------------------------------

    def look(self) -> None:
        """Go and send what waits, should there be anything; for who has just sent something.

        Cost: a look at the clock; every few seconds one at the folder, to see whether anything
        has changed since nothing was there.
        """
        # Whoever waits before the next attempt need not any more.
        self._wake.set()
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + LOOK_EVERY_S
            if self._spool.mark() != self._seen:
                self._start()

    def _start(self) -> None:
        with self._lock:
            if self._thread is not None or self._stopping.is_set():
                return
            thread = threading.Thread(
                target=in_empty_context(self._run), name="tracekit-spool", daemon=True
            )
            try:
                thread.start()
            except RuntimeError:  # the interpreter exits; another process will find it
                return
            self._thread = thread

    def _run(self) -> None:
        me = threading.current_thread()
        delays = self._policy.delays()
        try:
            with suppressed():
                while not self._stopping.is_set():
                    before = self._recovered
                    if self._send_all(self._stopping.is_set) is _Left.NOTHING:
                        return
                    if self._recovered > before:
                        delays = self._policy.delays()
                    self._wake.wait(min(next(delays), self._policy.max_pause_s))
                    self._wake.clear()
        finally:
            with self._lock:
                if self._thread is me:
                    self._thread = None

    def flush(self, timeout_s: float) -> bool:
        """Send what waits, within the time; False when something of this process is left."""
        if not self._spooled and not self._spool.exists():
            return True
        ends_at = time.monotonic() + (
            timeout_s if self._spooled else min(timeout_s, FLUSH_OTHERS_S)
        )
        with suppressed():
            left = self._send_all(lambda: time.monotonic() >= ends_at)
            while left is _Left.CLAIMED and time.monotonic() < ends_at and self.own():
                time.sleep(WATCH_S)
                left = self._send_all(lambda: time.monotonic() >= ends_at)
        return left is _Left.NOTHING or not self.own()

    def own(self) -> int:
        """Return how many spans of this process wait."""
        if not self._spooled:
            return 0
        try:
            return self._spool.own_spans(self._identity)
        except StoreError as error:
            self._say(str(error))
            return 0

    def _send_all(self, is_over: Callable[[], bool]) -> _Left:
        """Send what waits, the oldest first, until something fails or it is time to stop."""
        seen, before = self._spool.mark(), self._recovered
        try:
            with self._spool.claim(self._identity) as claim:
                if claim is None:
                    return _Left.CLAIMED if self._is_waiting() else _Left.NOTHING
                while not is_over() and not self._line.obstacle():
                    request, dropped = self._spool.take(self._identity)
                    self._count_dropped(dropped)
                    if request is None:
                        if self._recovered > before:
                            self._spool.give_back_room()
                        self._seen = seen
                        return _Left.NOTHING
                    if not self._send(request):
                        break
                return _Left.SOME
        except (StoreError, OSError) as error:
            # Nobody can send what nobody can read; the next look tries again.
            self._say(str(error))
            return _Left.NOTHING

    def _is_waiting(self) -> bool:
        return any(row.destination == self._identity for row in self._spool.waiting())

    def _send(self, request: KeptRequest) -> bool:
        payload = Payload(request.body, headers=request.headers)
        answer = self._line.attempt(payload, self._timeout_s)
        if answer.verdict is Verdict.TRY_AGAIN:
            self._spool.put_back(request)
            return False
        self._spool.remove(request)
        rejected = self._line.settle_kept(answer, request.spans)
        with self._lock:
            self._recovered += request.spans - rejected
            if answer.verdict is Verdict.TOO_LARGE:
                self._dropped["too_large"] += rejected
            else:
                self._rejected += rejected
        return True

    # The end, and the ledger -------------------------------------------------------------

    def stop(self) -> None:
        """Send nothing more; waits a moment for the answer to what is under way."""
        self._stopping.set()
        self._wake.set()
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_S)

    def stats(self) -> dict[str, Any]:
        with self._lock:
            found = {
                "spooled": self._spooled,
                "recovered": self._recovered,
                "spool": {"rejected": self._rejected, "dropped": dict(self._dropped)},
            }
        return {**found, "waiting": self.own()}
