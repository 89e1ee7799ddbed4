"""Rules of a tail sampler: what share is kept of the traces in which a span matches."""

from __future__ import annotations

from typing import Any, NamedTuple

from tracekit._ot_state import MAX_THRESHOLD, threshold_of
from tracekit._rule_text import RuleText, invalid_rule, read_rules
from tracekit._rules import Conditions, conditions_of, refuse_unreachable

__all__ = ["ShareRule", "share_rules"]

_SHARES = "keep, drop, or a share such as 0.1 or 10%"


class ShareRule(NamedTuple):
    """A rule: of the traces in which a span meets the conditions, so many are kept."""

    conditions: Conditions
    threshold: int
    label: str


def share_rules(given: Any) -> tuple[ShareRule, ...]:
    """Return the rules, ready to be tried; none for None.

    Raises:
        ConfigurationError: Which rule cannot work, where, and what to write instead.
    """
    if given is None:
        return ()
    written = read_rules(given)
    refuse_unreachable(written)
    return tuple(
        ShareRule(conditions_of(rule), _threshold(rule), f"rule {rule.number}") for rule in written
    )


def _threshold(rule: RuleText) -> int:
    word = str(rule.keep).strip().lower()
    if word.endswith("/s") or rule.burst is not None:
        what = "traces per second cannot be counted on when a trace is over"
        raise invalid_rule(rule.place, what, _SHARES)
    if word in ("keep", "true"):
        return 0
    if word in ("drop", "false"):
        return MAX_THRESHOLD
    try:
        share = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0.0 <= share <= 1.0:
        raise invalid_rule(rule.place, f"{rule.keep!r} is no share", _SHARES)
    return threshold_of(share)
