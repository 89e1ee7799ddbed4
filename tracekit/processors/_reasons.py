"""Why a trace is kept, and which share of those for which there is no reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracekit._ot_state import OtState, threshold_of, with_threshold
from tracekit._rules import matches
from tracekit.processors._bounded_questions import Question, Questions
from tracekit.processors._durations import Durations
from tracekit.processors._held_trace import BY_CHANCE, HeldTrace, Verdict
from tracekit.processors._share_rules import ShareRule, share_rules
from tracekit.processors._tail_settings import TailSettings

__all__ = ["Reasons", "weigh"]

ERROR_CODE = 2


class Reasons:
    """Judge local traces by one set of settings.

    Args:
        before: What judged until now; what it learned of durations is used on.

    Raises:
        ConfigurationError: Which rule cannot work, where, and what to write instead.

    Concurrency: ``verdict`` is called by one thread at a time, ``so_far`` by any.
    """

    def __init__(self, settings: TailSettings, before: Reasons | None = None) -> None:
        self.settings = settings
        self._rules = share_rules(settings.rules)
        self._otherwise = ShareRule((), threshold_of(settings.share), BY_CHANCE)
        self._slow_ns = None if settings.slow_s is None else round(settings.slow_s * 1e9)
        self._durations = _durations(settings.slow_percentile, before)
        self.questions = Questions(_questions(settings))

    def needs_answers(self, trace: HeldTrace) -> bool:
        """Whether functions of other people must be asked before a trace is decided about."""
        if not self.questions:
            return False
        return not self._reason(trace) and self._share(trace).threshold != 0

    def verdict(self, trace: HeldTrace, answer: str = "") -> Verdict:
        """Decide about a trace; what follows it is treated alike.

        Args:
            answer: What the functions said that were asked about it.
        """
        reason = self._reason(trace)
        if reason:
            return Verdict(True, reason)
        share = self._share(trace)
        if share.threshold == 0:
            return Verdict(True, share.label)
        if answer:
            return Verdict(True, answer)
        if _randomness(trace) >= share.threshold:
            return Verdict(True, share.label, share.threshold)
        return Verdict(False, share.label)

    def so_far(self, trace: HeldTrace, span: Any) -> str:
        """Return why a trace is kept, from what is known while ``span`` of it is under way."""
        if trace.asked:
            return trace.asked
        if trace.may_have_failed and (span.status_code == ERROR_CODE or _has_failed(trace)):
            return "error"
        if trace.is_slow or (span.is_local_root and self._is_slow_by_now(span)):
            return "slow"
        if self._rules:
            share = self._share([*trace, span])
            return share.label if share.threshold == 0 else ""
        return ""

    def _is_slow_by_now(self, root: Any) -> bool:
        taken_ns: int = root.taken_ns
        if self._slow_ns is not None and taken_ns >= self._slow_ns:
            return True
        limit = None if self._durations is None else self._durations.limit_ns(root.name)
        return limit is not None and taken_ns > limit

    def _reason(self, trace: HeldTrace) -> str:
        if trace.is_slow is None and trace.root is not None:
            trace.is_slow = self._was_slow(trace.root)
        if trace.asked:
            return trace.asked
        if trace.may_have_failed and _has_failed(trace):
            return "error"
        return "slow" if trace.is_slow or self._is_overdue(trace) else ""

    def _is_overdue(self, trace: HeldTrace) -> bool:
        """Whether a root that is open still will have taken too long whenever it ends."""
        if trace.root is not None or self._slow_ns is None:
            return False
        # The root began before any of them.
        return bool(trace[0].age_ns >= self._slow_ns)

    def _was_slow(self, root: Any) -> bool:
        taken_ns: int = root.taken_ns
        # Both are asked: the percentile learns from each.
        unusual = self._durations is not None and self._durations.is_slow(root.name, taken_ns)
        return unusual or (self._slow_ns is not None and taken_ns >= self._slow_ns)

    def _share(self, spans: Sequence[Any]) -> ShareRule:
        for rule in self._rules:
            for span in tuple(spans):
                if matches(rule.conditions, span.name, span.kind, span.attributes):
                    return rule
        return self._otherwise


def _has_failed(trace: HeldTrace) -> bool:
    return any(span.status_code == ERROR_CODE for span in tuple(trace))


def _randomness(trace: HeldTrace) -> int:
    """Return the bits that every service has of this trace: the same ones keep it everywhere."""
    span = trace[0]
    return OtState.of(span.trace_state).randomness_of(span.trace_id)


def weigh(spans: Sequence[Any], threshold: int) -> None:
    """Say in the trace state of spans that were kept by chance how many each stands for.

    What a sampler wrote at the start stays where it kept less: whoever passed it passes this one
    with certainty, as both look at the same bits.
    """
    known: Any = spans
    stated: Any = None
    for span in spans:
        state = span.trace_state
        if state is not known:  # mostly all have the same object
            before = OtState.of(state).threshold or 0
            known, stated = state, with_threshold(state, max(before, threshold))
        span.restate(stated)


def _durations(percentile: float | None, before: Reasons | None) -> Durations | None:
    if percentile is None:
        return None
    learned = None if before is None else before._durations
    return learned if learned and learned.percentile == percentile else Durations(percentile)


def _questions(settings: TailSettings) -> list[Question]:
    found: list[Question] = []
    predicate: Callable[[Sequence[Any]], object] | None = settings.predicate
    if predicate is not None:
        asked = predicate
        found.append(lambda spans: "predicate" if asked(spans) else "")
    if settings.find is not None:
        found.append(settings.find)
    return found
