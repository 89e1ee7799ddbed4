"""``rules``: the first rule that matches a span decides how many of its kind are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.trace import Link, SpanKind

from tracekit import _fork
from tracekit._ledger import Counter
from tracekit._rule_text import RuleText, invalid_rule, read_rules
from tracekit._rules import Conditions, conditions_of, matches, refuse_unreachable
from tracekit.errors import ConfigurationError
from tracekit.interfaces import Sampler
from tracekit.model import Attributes, SamplingResult
from tracekit.samplers.adaptive import AdaptiveSampler
from tracekit.samplers.always_off import AlwaysOffSampler
from tracekit.samplers.always_on import AlwaysOnSampler
from tracekit.samplers.ratelimiting import RateLimitingSampler
from tracekit.samplers.traceidratio import TraceIdRatioBased

__all__ = ["RuleSampler"]


OTHERWISE = "otherwise"
LONGEST_NAME = 80


class _Rule(NamedTuple):
    said: str
    conditions: Conditions
    sampler: Sampler
    kept: Counter
    dropped: Counter


class RuleSampler:
    """Ask the sampler of the first rule that matches, or ``otherwise`` when none does.

    Args:
        rules: In text, ``"drop route=/health; 5/s route=/search burst=20; 10%"``; the same as
            JSON; or a list of mappings, ``[{"keep": 0, "route": "/health"}]``.
        otherwise: Decides about spans that no rule matches; keeps them by default.

    Raises:
        ConfigurationError: Which rule cannot work, where, and what to write instead.

    Cost: for each condition that is looked at about 0.6 µs, on the path of a root span.
    """

    def __init__(self, rules: Any, otherwise: Sampler | None = None) -> None:
        written = read_rules(rules)
        refuse_unreachable(written)
        self._rules = tuple(map(_rule, written))
        self._otherwise = _Rule(OTHERWISE, (), otherwise or AlwaysOnSampler(), Counter(), Counter())
        _fork.on_fork_in_child(self)

    def after_fork_in_child(self) -> None:
        for rule in (*self._rules, self._otherwise):
            rule.kept.after_fork_in_child()
            rule.dropped.after_fork_in_child()

    @classmethod
    def from_argument(cls, argument: Any) -> Sampler:
        return cls([] if argument is None else argument)

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes | None = None,
        links: Sequence[Link] | None = None,
    ) -> SamplingResult:
        rule = self._rule_for(name, kind, attributes or {})
        result = rule.sampler.should_sample(parent_context, trace_id, name, kind, attributes, links)
        (rule.kept if result.decision.is_sampled() else rule.dropped).add()
        return result

    def _rule_for(self, name: str, kind: SpanKind | None, attributes: Attributes) -> _Rule:
        for rule in self._rules:
            if matches(rule.conditions, name, kind, attributes):
                return rule
        return self._otherwise

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how many spans it was asked about, by rule and by what became of them."""
        return {
            rule.said: {"kept": rule.kept.read(), "sampled_out": rule.dropped.read()}
            for rule in (*self._rules, self._otherwise)
        }

    def get_description(self) -> str:
        inner = ",".join(rule.sampler.get_description() for rule in self._rules)
        return f"RuleSampler{{{inner};otherwise:{self._otherwise.sampler.get_description()}}}"

    def __repr__(self) -> str:
        return self.get_description()


def _rule(written: RuleText) -> _Rule:
    conditions = (f"{field}={pattern}" for field, pattern in written.conditions)
    # The number tells rules apart whose beginnings are the same.
    said = f"{written.number}: {' '.join((str(written.keep), *conditions))}"
    return _Rule(
        said[:LONGEST_NAME], conditions_of(written), _sampler(written), Counter(), Counter()
    )


_SHARES = (
    "keep, drop, a share such as 0.1 or 10%, traces per second such as 5/s, "
    "or those spread over operations, such as adaptive:5/s"
)
_ADAPTIVE = "adaptive:"


def _sampler(written: RuleText) -> Sampler:
    keep = written.keep
    word = str(keep).strip().lower()
    if word.endswith("/s") and not word.startswith(_ADAPTIVE):
        return _rate_limiting(written, word.removesuffix("/s"))
    if written.burst is not None:
        raise invalid_rule(written.place, "a burst needs a rate", "traces per second such as 5/s")
    if word in ("keep", "true"):
        return AlwaysOnSampler()
    if word in ("drop", "false"):
        return AlwaysOffSampler()
    if word.startswith(_ADAPTIVE):
        return _adaptive(written, word.removeprefix(_ADAPTIVE).removesuffix("/s"))
    try:
        share = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
        return TraceIdRatioBased(share) if share < 1 else _all_or_refused(share)
    except ValueError:
        raise invalid_rule(written.place, f"{keep!r} is no share", _SHARES) from None


def _all_or_refused(share: float) -> Sampler:
    return AlwaysOnSampler() if share == 1 else TraceIdRatioBased(share)


def _rate_limiting(written: RuleText, per_second: str) -> Sampler:
    try:
        burst = None if written.burst is None else float(written.burst)
        return RateLimitingSampler(float(per_second), burst)
    except (TypeError, ValueError) as error:
        is_told = isinstance(error, ConfigurationError)
        said = str(error).rstrip(".") if is_told else f"{written.keep!r} is no rate"
        raise invalid_rule(written.place, said, "5/s, and burst=20") from None


def _adaptive(written: RuleText, per_second: str) -> Sampler:
    try:
        return AdaptiveSampler(float(per_second))
    except ValueError:
        raise invalid_rule(written.place, f"{written.keep!r} is no target", _SHARES) from None


plugin: type[RuleSampler] = RuleSampler
