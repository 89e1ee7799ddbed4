"""Why a trace is kept, and which share of those for which there is no reason."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tracekit._ot_state import RANDOM_MASK, OtState, threshold_of, with_threshold
from tracekit._rules import matches
from tracekit.processors._bounded_questions import Question, Questions
from tracekit.processors._durations import Durations
from tracekit.processors._held_trace import BY_CHANCE, HeldTrace, Verdict
from tracekit.processors._share_rules import ShareRule, share_rules
from tracekit.processors._tail_settings import TailSettings

__all__ = ["Reasons", "weigh"]

ERROR_CODE = 2

MakeVerdict = Callable[..., Verdict]


class Reasons:
    """Judge local traces by one set of settings.

    Args:
        verdict: Returns the verdict of a kind.
        before: What judged until now; what it learned of durations is used on.

    Raises:
        ConfigurationError: Which rule cannot work, where, and what to write instead.

    Concurrency: ``so_far`` is called by any thread, all else by one at a time.
    """

    def __init__(
        self, settings: TailSettings, verdict: MakeVerdict, before: Reasons | None = None
    ) -> None:
        self.settings = settings
        self._verdict = verdict
        self._rules = share_rules(settings.rules)
        self._otherwise = ShareRule((), threshold_of(settings.share), BY_CHANCE)
        # Most traces get one of these.
        shares = (*self._rules, self._otherwise)
        self._kept = {rule.label: verdict(True, rule.label, rule.threshold) for rule in shares}
        self._dropped = {rule.label: verdict(False, rule.label) for rule in shares}
        self._slow_ns = None if settings.slow_s is None else round(settings.slow_s * 1e9)
        self._durations = _durations(settings.slow_percentile, before)
        self.questions = Questions(_questions(settings))

    def reason(self, trace: HeldTrace) -> str:
        """Return why a trace is kept, or nothing; asked once of each, for what is learned of it.

        Cost: 0.6 µs of most traces.
        """
        root = trace.root
        # First, also where there is another reason: the percentile learns from each.
        if root is None:
            is_slow = self._is_overdue(trace)
        else:
            taken_ns: int = root.taken_ns
            durations, slow_ns = self._durations, self._slow_ns
            is_slow = durations is not None and durations.is_slow(root.name, taken_ns)
            is_slow = is_slow or (slow_ns is not None and taken_ns >= slow_ns)
        if trace.asked:
            return trace.asked
        if trace.may_have_failed and _has_failed(trace):
            return "error"
        return "slow" if is_slow else ""

    def needs_answers(self, trace: HeldTrace, reason: str) -> bool:
        """Whether functions of other people must be asked before a trace is decided about."""
        return bool(self.questions) and not reason and self._share(trace).threshold != 0

    def verdict(self, trace: HeldTrace, reason: str, answer: str = "") -> Verdict:
        """Decide about a trace; what follows it is treated alike.

        Args:
            reason: What ``reason()`` said of it.
            answer: What the functions said that were asked about it.
        """
        reason = reason or trace.asked
        if not reason and trace.may_have_failed and _has_failed(trace):
            reason = "error"  # of a span that ended while others were asked
        if reason:
            return self._verdict(True, reason)
        share = self._share(trace) if self._rules else self._otherwise
        if share.threshold == 0:
            return self._kept[share.label]
        if answer:
            return self._verdict(True, answer)
        # Where nothing has ended, there is nothing to tell by; what comes is judged by itself.
        if trace and _randomness(trace[0]) >= share.threshold:
            return self._kept[share.label]
        return self._dropped[share.label]

    def so_far(self, trace: HeldTrace, span: Any) -> str:
        """Return why a trace is kept, from what is known while ``span`` of it is under way."""
        if trace.asked:
            return trace.asked
        if trace.may_have_failed and (span.status_code == ERROR_CODE or _has_failed(trace)):
            return "error"
        root = span if span.is_local_root else trace.root
        if root is not None and self._is_slow_by_now(root):
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

    def _is_overdue(self, trace: HeldTrace) -> bool:
        """Whether a root that is open still will have taken too long whenever it ends."""
        if self._slow_ns is None or not trace:
            return False
        # The root began before any of them.
        return bool(trace[0].age_ns >= self._slow_ns)

    def _share(self, spans: Sequence[Any]) -> ShareRule:
        for rule in self._rules:
            for span in tuple(spans):
                if matches(rule.conditions, span.name, span.kind, span.attributes):
                    return rule
        return self._otherwise


def _has_failed(trace: HeldTrace) -> bool:
    return any(span.status_code == ERROR_CODE for span in tuple(trace))


def _randomness(span: Any) -> int:
    """Return the bits that every service has of this trace: the same ones keep it everywhere."""
    state = span.trace_state
    trace_id: int = span.trace_id
    return trace_id & RANDOM_MASK if state is None else OtState.of(state).randomness_of(trace_id)


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
