"""Delivering a batch to a destination: retrying, splitting, giving up in time, keeping count.

Theory of operation
-------------------
A batch is encoded into requests of a bounded size. Each is sent until the destination says
something final or the batch's deadline is reached: one deadline covers encoding, sockets,
retries and the pauses between them. A request that is too large is split in halves; a span that
is too large by itself is lost. After several failures in a row a breaker lets nothing through,
so that a dead destination costs the next batches no time.

Every span of a batch ends in exactly one counter: sent, rejected (the destination's final word),
or dropped, by reason. Whoever wants to do more with the spans than count them does so where
``_give_up`` does: it is told which ones they are.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any, NamedTuple

from opentelemetry import context as context_api

from tracekit import _fork
from tracekit.exporters._answer import Answer, Encode, Payload, Sender, Verdict, printable
from tracekit.exporters._retry import Breaker, RetryPolicy
from tracekit.interfaces import ReadableSpan

__all__ = ["Delivery", "ExportOutcome"]

_logger = logging.getLogger("tracekit")

LEAST_REQUEST_BYTES = 64 * 1024
"""A destination that finds requests too large makes later ones smaller, down to this."""

SAY_AGAIN_S = 60.0
"""A destination that fails now and then is not said to fail more often than this."""

MAX_REASONS = 32


class ExportOutcome(NamedTuple):
    """What became of the spans of one batch; the numbers add up to its size."""

    sent: int
    rejected: int
    dropped: dict[str, int]

    @property
    def lost(self) -> int:
        return self.rejected + sum(self.dropped.values())


class _Tally:
    """The outcome of one batch while it is being delivered."""

    def __init__(self, spans: Sequence[ReadableSpan]) -> None:
        self.spans = spans
        self.sent = self.rejected = self.retried = self.split = 0
        self.dropped: Counter[str] = Counter()

    def skip(self, span: ReadableSpan, error: Exception) -> None:
        self.dropped["unreadable"] += 1

    def outcome(self) -> ExportOutcome:
        return ExportOutcome(self.sent, self.rejected, dict(self.dropped))


class Delivery:
    """Bring batches to one destination, and know what became of each span.

    Args:
        timeout_s: For one batch with everything that it takes.
        max_request_bytes: Size that requests are split to.

    Concurrency: ``deliver`` may be called from several threads; ``stop`` from any.
    """

    def __init__(
        self,
        sender: Sender,
        encode: Encode,
        timeout_s: float,
        max_request_bytes: int,
        policy: RetryPolicy | None = None,
    ) -> None:
        self.sender = sender
        self._encode = encode
        self._timeout_s = timeout_s
        self._max_request_bytes = max_request_bytes
        self._policy = policy or RetryPolicy()
        self._begin()
        _fork.on_fork_in_child(self)

    def _begin(self) -> None:
        self._stopping = threading.Event()
        self._breaker = Breaker(self._policy)
        self._reports = _Reports(self.sender)
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._limit = self._max_request_bytes

    def after_fork_in_child(self) -> None:
        """Begin anew: counts, connections and what is known of the destination are the parent's."""
        was_stopped = self._stopping.is_set()
        self.sender.after_fork_in_child()
        self._begin()
        if was_stopped:
            self._stopping.set()

    @property
    def is_stopped(self) -> bool:
        return self._stopping.is_set()

    def stop(self) -> None:
        """End pauses at once, send no more, and let go of connections."""
        self._stopping.set()
        self.sender.close()

    def deliver(self, spans: Sequence[ReadableSpan]) -> ExportOutcome:
        """Send all of a batch, within the time.

        Raises:
            Nothing that a destination or a span can cause.
        """
        _fork.check_pid()
        tally = _Tally(spans)
        with _suppressed_instrumentation():
            self._deliver(tally, time.monotonic() + self._timeout_s)
        self._count(tally)
        return tally.outcome()

    def _deliver(self, tally: _Tally, deadline: float) -> None:
        payloads = self._encode(tally.spans, self._limit, tally.skip)
        while (payload := next(payloads, None)) is not None:
            if reason := self._obstacle():
                return self._give_up(tally, reason)
            answer = self._insist(payload, tally, deadline)
            if answer.verdict is Verdict.TRY_AGAIN:
                return self._give_up(tally, self._obstacle() or _reason(answer))
            if answer.verdict is Verdict.TOO_LARGE and len(payload.spans) > 1:
                payloads = chain(self._halves(payload, tally), payloads)
            else:
                self._settle(payload, answer, tally)
        return None

    def _obstacle(self) -> str:
        """Return why nothing may be sent now."""
        if self._stopping.is_set():
            return "shutdown"
        if self._breaker.lets_through():
            return ""
        return "destination_down" if self._breaker.is_open else "throttled"

    def _insist(self, payload: Payload, tally: _Tally, deadline: float) -> Answer:
        """Send until the answer is final or trying again would come too late."""
        delays = self._policy.delays()
        while True:
            answer = self._attempt(payload, max(deadline - time.monotonic(), 0.001))
            if answer.verdict is not Verdict.TRY_AGAIN or self._breaker.is_open:
                return answer
            delay = self._delay(next(delays), answer)
            if time.monotonic() + delay >= deadline or self._stopping.wait(delay):
                return answer
            tally.retried += 1

    def _attempt(self, payload: Payload, timeout_s: float) -> Answer:
        answer = self.sender.send(payload, timeout_s)
        if answer.verdict is not Verdict.TRY_AGAIN:
            # Whoever refuses is alive: what the next batches hold may be welcome.
            self._breaker.worked()
        elif not self._stopping.is_set():
            self._breaker.failed(answer.retry_after_s)
            self._reports.failing(answer.said)
        return answer

    def _delay(self, own: float, answer: Answer) -> float:
        if answer.retry_after_s is None:
            return own
        return max(answer.retry_after_s, self._policy.first_delay_s)

    def _halves(self, payload: Payload, tally: _Tally) -> Iterator[Payload]:
        size, spans = len(payload.body), payload.spans
        # The next batches are split to what this destination takes before they are sent.
        self._limit = min(self._limit, max(size // 2, LEAST_REQUEST_BYTES))
        tally.split += 1
        middle = len(spans) // 2
        for half in (spans[:middle], spans[middle:]):
            yield from self._encode(half, self._max_request_bytes, tally.skip)

    def _settle(self, payload: Payload, answer: Answer, tally: _Tally) -> None:
        count = len(payload.spans)
        if answer.verdict is Verdict.TAKEN:
            rejected = min(max(answer.rejected, 0), count)
            tally.sent += count - rejected
            tally.rejected += rejected
            self._reports.working()
            if answer.said:
                self._reports.remark(answer.said, rejected, count)
        elif answer.verdict is Verdict.TOO_LARGE:
            tally.dropped["too_large"] += count
            self._reports.failing(f"{answer.said} (a single span of {len(payload.body)} bytes)")
        else:
            tally.rejected += count
            self._reports.failing(answer.said)

    def _give_up(self, tally: _Tally, reason: str) -> None:
        """Count as dropped what has not been settled; it is the end of the batch."""
        settled = tally.sent + tally.rejected + sum(tally.dropped.values())
        tally.dropped[reason] += len(tally.spans) - settled

    def _count(self, tally: _Tally) -> None:
        with self._lock:
            for name in ("sent", "rejected", "retried", "split"):
                self._counts[name] += getattr(tally, name)
            self._dropped.update(tally.dropped)

    def stats(self) -> dict[str, Any]:
        """Return what became of everything so far.

        ``sent`` and ``rejected`` count spans, ``dropped`` spans by reason; ``retried`` and
        ``split`` count requests.
        """
        with self._lock:
            counts = {name: self._counts[name] for name in ("sent", "retried", "split", "rejected")}
            dropped = dict(self._dropped)
        return {
            "destination": self.sender.destination,
            **counts,
            "dropped": dropped,
            "is_down": self._breaker.is_open,
            "last_failure": self._reports.last_failure,
        }

    def probe(self, payload: Payload, timeout_s: float) -> str | None:
        """Send an empty request; return None when it is taken, or a sentence why not."""
        with _suppressed_instrumentation():
            answer = self.sender.send(payload, timeout_s)
        if answer.verdict is Verdict.TAKEN:
            return None
        verb = "does not take spans" if answer.was_reached else "cannot be reached"
        return f"{self.sender.destination} {verb}: {answer.said}"


def _reason(answer: Answer) -> str:
    return "unavailable" if answer.was_reached else "unreachable"


class _Reports:
    """Say once that a destination fails, and once that it works again."""

    def __init__(self, sender: Sender) -> None:
        self._sender = sender
        self._is_failing = self._was_said = False
        self._said_at = float("-inf")
        self._remarks: set[str] = set()
        self.last_failure = ""

    def failing(self, said: str) -> None:
        self.last_failure = said
        if self._is_failing:
            return
        self._is_failing = True
        self._was_said = time.monotonic() - self._said_at >= SAY_AGAIN_S
        if self._was_said:
            self._said_at = time.monotonic()
            _logger.warning(
                "spans cannot be sent to %s: %s; trying on", self._sender.destination, said
            )

    def working(self) -> None:
        if not self._is_failing:
            return
        self._is_failing = False
        if self._was_said:
            _logger.warning("spans are sent to %s again", self._sender.destination)

    def remark(self, said: str, rejected: int, count: int) -> None:
        """Say what a destination remarked while taking a request, once for each text."""
        text = printable(said)
        if text in self._remarks or len(self._remarks) >= MAX_REASONS:
            return
        self._remarks.add(text)
        where = self._sender.destination
        if rejected:
            self.last_failure = text
            _logger.warning("%s rejected %d of %d spans: %s", where, rejected, count, text)
        else:
            _logger.warning("%s took %d spans and says: %s", where, count, text)


_SUPPRESS = "suppress_instrumentation"


@contextmanager
def _suppressed_instrumentation() -> Iterator[None]:
    """Keep everybody's instrumentation from tracing what an exporter does."""
    if context_api.get_value(_SUPPRESS):
        yield
        return
    # OpenTelemetry's own instrumentations look for keys that have no public name.
    names = ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY")
    context = context_api.get_current()
    for key in (_SUPPRESS, *(getattr(context_api, name, "") for name in names)):
        context = context_api.set_value(key, True, context) if key else context
    token = context_api.attach(context)
    try:
        yield
    finally:
        context_api.detach(token)
