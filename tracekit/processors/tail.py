"""The tail sampler: holds a local trace until it is over, and then decides whether it is kept.

Theory of operation
-------------------
A local root hands a *local trace* down to every span below it, an empty list at first, and leaves
it in the *intake*. A span that ends is appended to it, and two things are compared: that is what
the thread which ends it pays, and no more than what the batch processor would have cost it. The
local root, and a span now and then as the trace grows, also put it into the intake again. All else
happens in the batch processor's worker, before it hands out batches:

1. It takes the intake in, and counts what is held: spans, and bytes by estimate.
2. Where the root has ended, and the linger for late spans is over, it decides. Kept is what has
   a reason (asked for, error, slow, a rule, a predicate, a finding), otherwise what the random
   bits of the trace id say. It goes to the next stage, with its weight; the rest is counted.
3. What is too old, too large, or too much is decided early, the oldest first.

After the decision the local trace stays empty: its later spans ask for attention each, and
follow the decision. It is remembered as long as a span is open that knows it, and no longer.
One that was decided early goes on, so an error or a call of ``keep()`` turns its decision.

Bounds. Held are at most ``max_spans`` spans and ``max_bytes`` bytes, of one trace at most
``max_trace_spans``, and for ``max_age_s`` where the root does not end. When the worker cannot
keep up, the thread that ends spans does its work, but for asking other people's functions.

Fork. What is held is the parent's. In the child, a local trace that was under way is decided at
once from what is known, since its root will not end there.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tracekit import _fork
from tracekit.interfaces import ReadableSpan, SpanProcessor
from tracekit.processors._held_trace import HeldTrace, Verdict
from tracekit.processors._holding import Due, Holding, Intake
from tracekit.processors._own_worker import OwnWorker
from tracekit.processors._reasons import Reasons, weigh
from tracekit.processors._stage import Stage
from tracekit.processors._tail_ledger import TailLedger
from tracekit.processors._tail_settings import TailSettings

__all__ = ["TailSampler", "TailSettings"]

WAKE_EVERY = 256
"""Entries of the intake that wake the worker."""
TOO_MANY_WAITING = 2048
"""Entries at which the worker is taken for starved."""


class TailSampler(Stage):
    """Keep the local traces that matter and a fair share of the rest; decide when they are over.

    Args:
        following: The next stage, or the processor that exports.
        settings: What is kept, and how much is held.

    Raises:
        ConfigurationError: A setting cannot work, or ``following`` keeps no ledger.

    Concurrency: all methods may be called from any thread.
    Cost: see docs/how-to/sample.md.
    """

    def __init__(self, following: Any, settings: TailSettings | None = None) -> None:
        super().__init__(following)
        self._ledger = TailLedger()
        self._reasons = Reasons(settings or TailSettings(), self._ledger.verdict)
        self._pass_all_on = getattr(following, "on_end_all", self._pass_each_on)
        self._is_closed = False
        self._wake = self._worker_of(following)
        self._begin()
        _fork.on_fork_in_child(self)

    def _worker_of(self, following: Any) -> Callable[[], None]:
        """Have somebody do the work that is due; return what wakes them."""
        self._own_worker: OwnWorker | None = None
        employ: Callable[[Any], Callable[[], None]] | None = getattr(following, "employ", None)
        if employ is not None:
            return employ(self._sweep)
        self._own_worker = OwnWorker(self._sweep)
        return self._own_worker.wake

    def _begin(self) -> None:
        """Start with nothing held."""
        self._intake = Intake()
        # Each stage, and each process, has a class of its own: a local trace says whose it is.
        own = {"keeper": self, "begun": self._intake.begun.append, "__slots__": ()}
        self._own: type[HeldTrace] = type("HeldTrace", (HeldTrace,), own)
        self._wake_at = 1
        # Reentrant: a signal handler that ends spans may interrupt the work of the same thread.
        self.settling = threading.RLock()
        self._holding = Holding()

    def after_fork_in_child(self) -> None:
        inherited = self._all_held()
        self._begin()
        self._ledger.forget()
        for trace in inherited:
            trace.clear()
            trace.attention_at = 1 if trace.verdict is None else 0

    def _all_held(self) -> list[HeldTrace]:
        found = (*self._holding.traces, *self._intake.traces())
        # Once each, though one may be in several places; lists compare by their items.
        return [*{id(trace): trace for trace in found if trace.verdict is None}.values()]

    @property
    def new_local_trace(self) -> type[HeldTrace]:
        return self._own

    @property
    def settings(self) -> TailSettings:
        return self._reasons.settings

    def use(self, settings: TailSettings) -> None:
        """Decide by other settings from now on, also about what is held already.

        Raises:
            ConfigurationError: A rule cannot work; the previous settings stay.
        """
        self._reasons = Reasons(settings, self._ledger.verdict, self._reasons)

    # The caller's side ------------------------------------------------------------------

    def on_end(self, span: ReadableSpan) -> None:
        if getattr(span, "local_trace", None) is None:
            # It was started before this stage was there, is not sampled, or is somebody else's.
            self.next.on_end(span)
        else:
            super().on_end(span)

    def on_end_sampled(self, span: Any) -> None:
        # The span's own fields: its properties would cost 0.1 µs more.
        trace = span._anchor[3]
        if trace is None:
            self.pass_on(span)
            return
        trace.append(span)
        if type(span._parent) is not int:
            if type(trace) is self._own and trace.verdict is None and span.is_local_root:
                trace.root = span
                ended = self._intake.ended
                ended.append(trace)
                if len(ended) >= self._wake_at:
                    self._call_worker(len(ended))
                if trace.verdict is None:
                    return
            self._attend(trace)
        elif len(trace) >= trace.attention_at:
            self._attend(trace)

    def _attend(self, trace: HeldTrace) -> None:
        """Let the worker know of a trace that has grown, or follow its decision."""
        if trace.verdict is None:
            if type(trace) is not self._own:
                self._adopt(trace)
                return
            trace.look_later()
            grown = self._intake.grown
            grown.append(trace)
            if len(grown) >= self._wake_at:
                self._call_worker(len(grown))
        if trace.verdict is not None:
            self._follow(trace)

    def _call_worker(self, waiting: int) -> None:
        _fork.check_pid()
        if self._is_closed:
            self._settle_all()
        elif waiting >= TOO_MANY_WAITING:
            self._do_what_is_clear()
        else:
            self._wake_at = TOO_MANY_WAITING
            self._wake()

    def _follow(self, trace: HeldTrace) -> None:
        """Do with late spans what was decided about their trace."""
        with trace.lock:
            spans = trace.take_all()
            verdict = trace.verdict
            if not spans or verdict is None:
                return
            if trace.is_early and not verdict.is_kept:
                verdict = self._turned(trace, spans) or verdict
            verdict.spans += len(spans)
            self._hand_on(spans, verdict)

    def _turned(self, trace: HeldTrace, spans: Sequence[Any]) -> Verdict | None:
        """Keep the rest of a trace that was decided early, once there is a reason to."""
        found = (self._reasons.so_far(trace, span) for span in spans)
        reason = next(filter(None, found), "")
        if not reason:
            return None
        trace.verdict = verdict = self._ledger.verdict(True, reason)
        self._ledger.count_early("turned")
        return verdict

    def _adopt(self, trace: HeldTrace) -> None:
        """Decide about a trace that was started before a fork, or under a stage that went."""
        with trace.lock:
            if trace.verdict is None and trace:
                self._settle(trace, "inherited")
        self._follow(trace)

    def has_reason(self, trace: HeldTrace, span: Any) -> bool:
        """Whether a trace is kept for a reason, as far as that is known; see ``Span.kept``."""
        verdict = trace.verdict
        if verdict is None or (trace.is_early and not verdict.is_kept):
            return bool(self._reasons.so_far(trace, span))
        return verdict.has_reason

    # The worker's side ------------------------------------------------------------------

    def _sweep(self) -> float | None:
        """Do all that is due; return in how many seconds more will be, if it will."""
        self._ask_about(self._do_what_is_clear())
        with self.settling:
            return self._holding.due_in(self.settings)

    def _do_what_is_clear(self) -> list[Due]:
        """Decide what can be decided; return the traces that somebody must be asked about."""
        with self.settling:
            settings, holding = self.settings, self._holding
            self._wake_at = self._next_wake_at()
            holding.take_in(self._intake, settings)
            unclear = self._settle_ended(holding.exceeds(settings))
            unclear += self._settle_each(holding.early(settings))
            if holding.exceeds(settings):
                for trace, why in holding.excess(settings):
                    self._settle(trace, why)
            return unclear

    def _settle_all(self) -> None:
        """Decide about all that is held, whether it is over or not."""
        with self.settling:
            self._wake_at = self._next_wake_at()
            self._holding.take_in(self._intake, self.settings)
            unclear = self._settle_ended(at_once=True)
            unclear += self._settle_each(self._holding.under_way())
        self._ask_about(unclear)

    def _next_wake_at(self) -> int:
        # After shutdown nobody waits: each root that still ends settles its trace.
        return 1 if self._is_closed else WAKE_EVERY

    def _settle_ended(self, at_once: bool) -> list[Due]:
        """Decide about traces that are over; this is the way of nearly all."""
        unclear: list[Due] = []
        kept: list[Any] = []
        reasons = self._reasons
        for traces in self._holding.over(at_once):
            for trace in traces:
                if trace.verdict is not None:
                    continue
                reason = reasons.reason(trace)
                if reasons.questions and reasons.needs_answers(trace, reason):
                    unclear.append((trace, ""))
                    continue
                verdict = reasons.verdict(trace, reason)
                spans = trace.decide(verdict)
                if verdict.threshold:
                    weigh(spans, verdict.threshold)
                if verdict.is_kept:
                    kept += spans
        self._pass_all_on(kept)
        return unclear

    def _settle_each(self, due: Iterable[Due]) -> list[Due]:
        """Decide about traces early; return those that somebody must be asked about."""
        unclear = []
        for trace, why in due:
            if self._reasons.questions and self._reasons.needs_answers(trace, ""):
                unclear.append((trace, why))
            else:
                self._settle(trace, why)
        return unclear

    def _ask_about(self, unclear: Sequence[Due]) -> None:
        """Settle traces by what other people's functions say, which run without the lock."""
        if not unclear:
            return
        answers = self._reasons.questions.ask([list(trace) for trace, _ in unclear])
        with self.settling:
            for (trace, why), answer in zip(unclear, answers, strict=True):
                self._settle(trace, why, answer)

    def _settle(self, trace: HeldTrace, why_early: str, answer: str = "") -> None:
        """Decide about a trace, under its lock; from now on its spans are not held."""
        if trace.verdict is not None:
            return
        # What an ended root teaches about durations was learned before somebody was asked.
        reason = self._reasons.reason(trace) if why_early else ""
        verdict = self._reasons.verdict(trace, reason, answer)
        trace.is_early = bool(why_early)
        if why_early:
            self._ledger.count_early(why_early)
        trace.keeper.forget(trace)
        self._hand_on(trace.decide(verdict), verdict)

    def forget(self, trace: HeldTrace) -> None:
        """Hold a trace no longer that was decided about."""
        self._holding.forget(trace)

    def _hand_on(self, spans: Sequence[Any], verdict: Verdict) -> None:
        if verdict.threshold:
            weigh(spans, verdict.threshold)
        if verdict.is_kept:
            self._pass_all_on(spans)

    def _pass_each_on(self, spans: Sequence[Any]) -> None:
        for span in spans:
            self.pass_on(span)

    # Flushing and stopping --------------------------------------------------------------

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Decide about all that is held, hand it on, and have it exported."""
        return super().force_flush(self._left_after_settling(timeout_millis))

    def flush_or_keep(self, timeout_millis: int) -> bool:
        return super().flush_or_keep(self._left_after_settling(timeout_millis))

    def shutdown(self, timeout_millis: int = 5_000) -> None:
        left = self._left_after_settling(timeout_millis)
        self._is_closed = True
        # What came in meanwhile; and from now on nothing is held.
        self._settle_all()
        if self._own_worker:
            self._own_worker.stop()
        super().shutdown(left)

    def _left_after_settling(self, timeout_millis: int) -> int:
        begun = time.monotonic()
        self._settle_all()
        return max(0, timeout_millis - round((time.monotonic() - begun) * 1000))

    # The ledger -------------------------------------------------------------------------

    def kept_back(self) -> int:
        return sum(map(len, self._all_held())) + self._ledger.sampled_out()

    def received(self) -> int:
        # What is handed on, is so under the lock: no span is counted twice, or not at all.
        with self.settling:
            return super().received()

    def stats(self) -> dict[str, Any]:
        with self.settling:
            traces = [trace for trace in self._all_held() if trace]
            held = {"held": sum(map(len, traces)), "traces_held": len(traces)}
            return {**super().stats(), "tail": {**held, **self._ledger.stats()}}


plugin: type[SpanProcessor] = TailSampler
