"""When to try again: delays that grow, a destination's own wishes, and when to leave it alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Breaker", "RetryPolicy", "retry_after_s"]


@dataclass(frozen=True)
class RetryPolicy:
    """How patiently a destination is treated; times in seconds.

    Attributes:
        first_delay_s: Before the first retry; doubled for each further one.
        failures_to_open: Failed attempts in a row after which the destination is left alone.
        first_pause_s: How long, before one request probes it; doubled while probes fail.
    """

    first_delay_s: float = 1.0
    max_delay_s: float = 30.0
    jitter: float = 0.2
    failures_to_open: int = 5
    first_pause_s: float = 5.0
    # What one probe costs a server is little, and what waits on the disk waits for it.
    max_pause_s: float = 15.0
    # A server may ask for a day. Until then no span would arrive, and nobody would know why.
    max_retry_after_s: float = 300.0

    def delays(self) -> Iterator[float]:
        """Yield the delay before each retry of one request, without end.

        Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/#retry
        """
        import random

        # From the operating system: the program's random sequence stays its own, and forked
        # workers do not come back at the same moment.
        uniform = random.SystemRandom().uniform
        delay = self.first_delay_s
        while True:
            yield delay * uniform(1 - self.jitter, 1 + self.jitter)
            delay = min(delay * 2, self.max_delay_s)


class Breaker:
    """Keep requests from a destination that failed several times in a row.

    Closed, it lets everything through. Opened by failures, it lets nothing through until the
    pause is over, and then single requests: the first that works closes it, the first that
    fails opens it for twice as long. A destination that asked to be left alone is, also
    across batches.

    Several requests may be under way. Those that a failure finds under way were sent before
    anybody knew of it: when they fail too it is the same failure, and when they work it says
    nothing of what comes after it.

    Concurrency: any thread; two that begin in the same moment may both probe, which harms nobody.
    """

    def __init__(self, policy: RetryPolicy) -> None:
        self._policy = policy
        # Reentrant: a signal handler that shuts down may interrupt its holder.
        self._lock = threading.RLock()
        self._failures = self._failures_so_far = 0
        self._pause_s = policy.first_pause_s
        self._closed_until = self._probing_until = 0.0
        self.is_open = False

    def lets_through(self) -> bool:
        return time.monotonic() >= max(self._closed_until, self._probing_until)

    def begin(self, timeout_s: float) -> int:
        """Note a request that is sent now; return what ``worked`` and ``failed`` ask for."""
        if self.is_open:
            # By time, and not until it is over: a request that hangs would keep it shut for good.
            self._probing_until = time.monotonic() + timeout_s
        return self._failures_so_far

    def worked(self, begun: int) -> None:
        with self._lock:
            if begun != self._failures_so_far:
                return
            self._failures = 0
            self._pause_s = self._policy.first_pause_s
            self._closed_until = self._probing_until = 0.0
            self.is_open = False

    def failed(self, begun: int, retry_after_s: float | None = None) -> None:
        with self._lock:
            pause = min(retry_after_s or 0.0, self._policy.max_retry_after_s)
            if begun == self._failures_so_far:
                pause = max(pause, self._count_failure())
                self._probing_until = 0.0
                self._closed_until = 0.0
            self._closed_until = max(self._closed_until, time.monotonic() + pause)

    def _count_failure(self) -> float:
        """Return for how long nothing must be sent."""
        self._failures_so_far += 1
        self._failures += 1
        if self._failures < self._policy.failures_to_open:
            return 0.0
        self.is_open = True
        pause, self._pause_s = self._pause_s, min(self._pause_s * 2, self._policy.max_pause_s)
        return pause


def retry_after_s(header: str | None) -> float | None:
    """Return the seconds that a ``Retry-After`` header asks for, in either of its forms.

    Source: https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
    """
    text = (header or "").strip()
    if not text or len(text) > 64:
        return None
    if text.isascii() and text.isdecimal():
        return float(text)
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError):
        return None
