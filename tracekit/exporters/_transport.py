"""Delivering a batch to a destination: retrying, splitting, giving up in time, keeping count.

Theory of operation
-------------------
A batch is encoded into requests of a bounded size. Each is sent until the destination says
something final or the batch's deadline is reached: one deadline covers encoding, sockets,
retries and the pauses between them. A request that is too large is split in halves; a span that
is too large by itself is lost. After several failures in a row a breaker lets nothing through,
so that a dead destination costs the next batches no time. What could not be sent is kept in the
spool, if there is one, and sent from there when the destination is back.

Several batches may be on their way at once. They are encoded one at a time: encoding needs the
interpreter, which the traced program needs too, and only the waiting for answers is worth sharing.

Every span of a batch ends in exactly one counter: sent, rejected (the destination's final word),
spooled, or dropped, by reason. A batch has one owner at a time: the thread that delivers it,
until another one takes it over with ``put_aside`` because there is no time to wait any longer.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from tracekit import _fork
from tracekit._own_work import suppressed
from tracekit.exporters._answer import Answer, Encode, Payload, Sender, Verdict
from tracekit.exporters._reports import MAX_REASONS, Reports
from tracekit.exporters._retry import Breaker, RetryPolicy
from tracekit.exporters._spooling import Spooling
from tracekit.exporters._tally import Tally
from tracekit.interfaces import ExportOutcome, ReadableSpan
from tracekit.store.spool import KeptRequest, Spool

__all__ = ["Delivery"]

LEAST_REQUEST_BYTES = 64 * 1024
"""A destination that finds requests too large makes later ones smaller, down to this."""

NOTHING_KEPT: dict[str, Any] = {
    "spooled": 0,
    "recovered": 0,
    "spool": {"rejected": 0, "dropped": {}},
    "waiting": 0,
}
"""What a delivery without a spool has to say of it."""

RETRYING_S = 3.0
"""How long a batch is tried again before it is kept on the disk instead."""

KEEPING_S = 2.0
"""How long whoever ends the process waits for a batch that another thread is keeping."""

ENCODING_S = 1.0
"""How long a batch waits for another one that is being encoded; what hangs must not hang all."""

KEPT_REQUEST_BYTES = 1024 * 1024
"""Requests are kept in pieces of this size at most: they cannot be split any more later."""


class Delivery:
    """Bring batches to one destination, and know what became of each span.

    Args:
        timeout_s: For one batch with everything that it takes.
        max_request_bytes: Size that requests are split to.
        spool: Where to keep what cannot be sent; None to drop it.

    Concurrency: ``deliver`` may be called from several threads; the other methods from any.
    """

    def __init__(
        self,
        sender: Sender,
        encode: Encode,
        timeout_s: float,
        max_request_bytes: int,
        policy: RetryPolicy | None = None,
        spool: Spool | None = None,
    ) -> None:
        self.sender = sender
        self._encode = encode
        self._timeout_s = timeout_s
        self._max_request_bytes = max_request_bytes
        self._policy = policy or RetryPolicy()
        self._spooling: Spooling | None = None
        if spool is not None:
            self._spooling = Spooling(spool, sender.identity, self._policy, timeout_s, self)
        self._begin()
        _fork.on_fork_in_child(self)

    def _begin(self) -> None:
        self._stopping = threading.Event()
        self._hurrying = threading.Event()
        self._breaker = Breaker(self._policy)
        self._reports = Reports(self.sender)
        self._lock = threading.RLock()
        self._encoding = threading.RLock()
        self._under_way: list[Tally] = []
        self._counts: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._rejected_for: Counter[str] = Counter()
        self._limit = self._max_request_bytes

    def after_fork_in_child(self) -> None:
        """Begin anew: counts, connections and what is known of the destination are the parent's."""
        was_stopped = self._stopping.is_set()
        self.sender.after_fork_in_child()
        self._begin()
        if self._spooling is not None:
            self._spooling.begin()
        if was_stopped:
            self._stopping.set()

    @property
    def is_stopped(self) -> bool:
        return self._stopping.is_set()

    @property
    def keeps_spans(self) -> bool:
        """Whether there is a spool, and nothing is known to be wrong with it."""
        return self._spooling is not None and self._spooling.works

    def hurry(self) -> None:
        """Try each batch once from now on, and keep what fails: the process is about to end."""
        if self._spooling is not None:
            self._hurrying.set()

    def stop(self) -> None:
        """End pauses at once, send no more, and let go of connections."""
        self._stopping.set()
        self._hurrying.set()
        if self._spooling is not None:
            self._spooling.stop()
        self.sender.close()

    def deliver(self, spans: Sequence[ReadableSpan]) -> ExportOutcome:
        """Send all of a batch, within the time, or keep what could not be sent.

        Raises:
            Nothing that a destination or a span can cause.
        """
        _fork.check_pid()
        tally = Tally(spans)
        with self._lock:
            self._under_way.append(tally)
        try:
            with suppressed():
                is_mine = self._deliver(tally, time.monotonic() + self._timeout_s)
            if is_mine:
                self._count(tally)
        finally:
            tally.is_over.set()
            with self._lock:
                self._under_way.remove(tally)
        return tally.outcome()

    def put_aside(self, spans: Sequence[ReadableSpan]) -> ExportOutcome | None:
        """Keep a batch without sending it; of one that is being delivered, what is not settled.

        Returns:
            What became of the whole batch; None where nothing can be kept.
        """
        if self._spooling is None:
            return None
        with self._lock:
            under_way = [part for part in self._under_way if part.spans[0] is spans[0]]
        if under_way and not under_way[0].close():
            # It has just been settled, or is being kept.
            under_way[0].is_over.wait(KEEPING_S)
            return under_way[0].outcome()
        tally = under_way[0].rest() if under_way else Tally(spans)
        with suppressed():
            payloads = self._encode(tally.spans, KEPT_REQUEST_BYTES, tally.skip)
            self._keep(payloads, tally, "exit")
        self._count(tally)
        return tally.outcome()

    def flush(self, timeout_s: float) -> bool:
        """Send what this process kept, within the time; True when nothing of it is left."""
        if self._spooling is None:
            return True
        if self._hurrying.is_set() and self._reports.is_failing:
            return not self._spooling.own()
        return self._spooling.flush(timeout_s)

    def _deliver(self, tally: Tally, deadline: float) -> bool:
        """Return whether all was settled or kept here; else another thread has taken it over."""
        payloads = self._in_turn(self._encode(tally.spans, self._limit, tally.skip))
        while (payload := next(payloads, None)) is not None:
            reason, answer = self.obstacle(), None
            if not reason:
                answer = self._insist(payload, tally, deadline)
                if answer.verdict is Verdict.TRY_AGAIN:
                    reason = self.obstacle() or _reason(answer)
            if reason:
                if tally.close():
                    self._keep(chain([payload], payloads), tally, reason)
                    return True
                return False
            if answer is None:  # pyright and mypy cannot know that there is one without a reason
                continue
            if answer.verdict is Verdict.OTHER_FORM:
                anew = self._encode(payload.spans, self._limit, tally.skip)
                payloads = chain(self._in_turn(anew), payloads)
                continue
            if answer.verdict is Verdict.TOO_LARGE and len(payload.spans) > 1:
                payloads = chain(self._in_turn(self._halves(payload, tally)), payloads)
                continue
            with tally.lock:
                if tally.is_closed:
                    return False
                self._settle(payload, answer, tally)
        return tally.close()

    def _in_turn(self, payloads: Iterator[Payload]) -> Iterator[Payload]:
        while True:
            is_my_turn = self._encoding.acquire(timeout=ENCODING_S)
            try:
                payload = next(payloads, None)
            finally:
                if is_my_turn:
                    self._encoding.release()
            if payload is None:
                return
            yield payload

    def obstacle(self) -> str:
        """Return why nothing may be sent now."""
        if self._stopping.is_set():
            return "shutdown"
        if self._breaker.lets_through():
            return ""
        return "destination_down" if self._breaker.is_open else "throttled"

    def _insist(self, payload: Payload, tally: Tally, deadline: float) -> Answer:
        """Send until the answer is final or trying again would come too late."""
        delays = self._policy.delays()
        patient_until = self._patient_until(deadline)
        while True:
            answer = self.attempt(payload, max(deadline - time.monotonic(), 0.001))
            if answer.verdict is not Verdict.TRY_AGAIN or self._breaker.is_open:
                return answer
            delay = self._delay(next(delays), answer)
            if time.monotonic() + delay >= patient_until or self._hurrying.wait(delay):
                return answer
            if tally.is_closed:
                return answer
            tally.retried += 1

    def _patient_until(self, deadline: float) -> float:
        """Return when trying again ends: what can be kept waits on the disk, not in memory.

        Spans queue up behind a batch that is being tried again, and a process that is killed
        takes them with it. Of a destination that is failing already, the spool's thread finds
        out when it is back.
        """
        if not self.keeps_spans:
            return deadline
        return 0.0 if self._reports.is_failing else min(deadline, time.monotonic() + RETRYING_S)

    def attempt(self, payload: Payload, timeout_s: float) -> Answer:
        """Send a request once, and draw the conclusions for the next ones."""
        begun = self._breaker.begin(timeout_s)
        answer = self.sender.send(payload, timeout_s)
        if answer.verdict is not Verdict.TRY_AGAIN:
            # Whoever refuses is alive: what the next batches hold may be welcome.
            self._breaker.worked(begun)
        elif not self._stopping.is_set():
            self._breaker.failed(begun, answer.retry_after_s)
            self._reports.failing(answer.said)
        return answer

    def _delay(self, own: float, answer: Answer) -> float:
        if answer.retry_after_s is None:
            return own
        return max(answer.retry_after_s, self._policy.first_delay_s)

    def _halves(self, payload: Payload, tally: Tally) -> Iterator[Payload]:
        size, spans = len(payload.body), payload.spans
        # The next batches are split to what this destination takes before they are sent.
        self._limit = min(self._limit, max(size // 2, LEAST_REQUEST_BYTES))
        tally.split += 1
        middle = len(spans) // 2
        for half in (spans[:middle], spans[middle:]):
            yield from self._encode(half, self._max_request_bytes, tally.skip)

    def _settle(self, payload: Payload, answer: Answer, tally: Tally) -> None:
        count = len(payload.spans)
        tally.settled.append(payload.spans)
        refused = self._refused(answer, count, f" (a single span of {len(payload.body)} bytes)")
        tally.sent += count - refused
        if answer.verdict is Verdict.TOO_LARGE:
            tally.dropped["too_large"] += refused
        elif refused:
            tally.rejected += refused
            tally.rejected_for[answer.said] += refused

    def settle_kept(self, answer: Answer, spans: int) -> int:
        """Draw the conclusions of what a destination said for good; return how many it refused."""
        refused = self._refused(answer, spans, " (a request from the spool)")
        if refused and answer.verdict is not Verdict.TOO_LARGE:
            with self._lock:
                self._note_rejected(answer.said, refused)
        return refused

    def _refused(self, answer: Answer, count: int, what: str) -> int:
        """Say what is to be said of a final answer, and return how many spans were not taken."""
        if answer.verdict is Verdict.TAKEN:
            rejected = min(max(answer.rejected, 0), count)
            self._reports.working()
            if answer.said:
                self._reports.remark(answer.said, rejected, count)
            return rejected
        is_too_large = answer.verdict is Verdict.TOO_LARGE
        self._reports.failing(f"{answer.said}{what}" if is_too_large else answer.said)
        return count

    def _keep(self, payloads: Iterable[Payload], tally: Tally, reason: str) -> None:
        """Keep what has not been settled, or count it as dropped; it is the end of the batch."""
        tally.reason = reason
        if self._spooling is None:
            settled = tally.sent + tally.rejected + sum(tally.dropped.values())
            tally.dropped[reason] += len(tally.spans) - settled
            return
        requests = [
            KeptRequest(part.body, len(part.spans), part.headers)
            for payload in payloads
            for part in self._small_enough(payload, tally)
        ]
        spans = sum(request.spans for request in requests)
        if not spans or self._spooling.keep(requests):
            tally.spooled += spans
        else:
            tally.dropped["spool_failed"] += spans

    def _small_enough(self, payload: Payload, tally: Tally) -> Iterable[Payload]:
        if len(payload.body) <= KEPT_REQUEST_BYTES or len(payload.spans) == 1:
            return (payload,)
        return self._encode(payload.spans, KEPT_REQUEST_BYTES, tally.skip)

    def _count(self, tally: Tally) -> None:
        with self._lock:
            for name in ("sent", "rejected", "retried", "split"):
                self._counts[name] += getattr(tally, name)
            self._dropped.update(tally.dropped)
            for said, count in tally.rejected_for.items():
                self._note_rejected(said, count)
        if tally.sent and self._spooling is not None:
            self._spooling.look()

    def _note_rejected(self, said: str, count: int) -> None:
        known = said in self._rejected_for or len(self._rejected_for) < MAX_REASONS
        self._rejected_for[said if known else "other reasons"] += count

    def stats(self) -> dict[str, Any]:
        """Return what became of everything so far.

        ``sent`` and ``rejected`` count spans, ``rejected_for`` and ``dropped`` spans by reason;
        ``retried`` and ``split`` count requests. ``spooled`` counts the spans of this process that
        were put into the spool, ``waiting`` those that are still there; ``recovered`` those that
        this process sent from it, whoever put them there, and ``spool`` those that it had to
        give up.
        """
        with self._lock:
            counts = {name: self._counts[name] for name in ("sent", "retried", "split", "rejected")}
            dropped, rejected_for = dict(self._dropped), dict(self._rejected_for)
        kept = self._spooling.stats() if self._spooling is not None else NOTHING_KEPT
        return {
            "destination": self.sender.destination,
            **counts,
            "rejected_for": rejected_for,
            "dropped": dropped,
            **kept,
            "is_down": self._breaker.is_open,
            "last_failure": self._reports.last_failure,
        }

    def probe(self, payload: Payload, timeout_s: float) -> str | None:
        """Send an empty request; return None when it is taken, or a sentence why not."""
        with suppressed():
            answer = self.sender.send(payload, timeout_s)
        if answer.verdict is Verdict.TAKEN:
            return None
        verb = "does not take spans" if answer.was_reached else "cannot be reached"
        return f"{self.sender.destination} {verb}: {answer.said}"


def _reason(answer: Answer) -> str:
    return "unavailable" if answer.was_reached else "unreachable"
