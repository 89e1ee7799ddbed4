"""The drop stage: spans that a rule calls noise are not exported, and nothing refers to them.

Theory of operation
-------------------
Most rules are answered when a span starts, by the tracer, which asks ``drops`` before it asks
the sampler (see core/filtered.py). That is the only moment at which a span can go without
leaving a gap: children end before their parents, so when a parent has ended they may be
exported already, and a process that was called may have recorded its id long ago.

What a rule looks at may come later all the same: a status code, a name that was updated. So an
ended span is asked about once more, and goes if nothing refers to it: it has had no child, and
nobody has read its ids to send them somewhere. One that is referred to stays, which is said once.
"""

from __future__ import annotations

import logging
from typing import Any

from tracekit import _fork
from tracekit._ledger import Tally
from tracekit.interfaces import ReadableSpan, SpanProcessor
from tracekit.processors._drop_rules import DEFAULT, DropRules
from tracekit.processors._stage import Stage

__all__ = ["DropProcessor", "DropsAtStart"]

_logger = logging.getLogger("tracekit")


class DropProcessor(Stage):
    """Drop spans by rule, in front of whatever follows.

    Args:
        following: The next stage, or the processor that exports.
        rules: DropRules, or what they are made of; health checks of servers by default, and
            nothing with False.

    Raises:
        ConfigurationError: Which rule cannot work, where, and what to write instead.

    Concurrency: all methods may be called from any thread.
    Cost: with rules that are answered at the start alone, such as the default, nothing at the
    end of a span; see docs/reference/performance.md.
    """

    def __init__(self, following: Any, rules: Any = DEFAULT) -> None:
        super().__init__(following)
        self._said: set[str] = set()
        self._filtered = Tally()
        self._take(rules)
        _fork.on_fork_in_child(self)

    def after_fork_in_child(self) -> None:
        self._filtered.after_fork_in_child()

    def use(self, rules: Any) -> None:
        """Go by other rules from now on; what is wrong with them is raised, and changes nothing."""
        self._take(rules)
        self.when_changed()

    def _take(self, rules: Any) -> None:
        self._rules = rules if isinstance(rules, DropRules) else DropRules(rules)
        # Where nothing is asked at the end, a span goes straight to the next stage.
        vars(self).pop("on_end_sampled", None)
        if not self._rules.asks_at_end:
            self.on_end_sampled = self.pass_on  # type: ignore[assignment, method-assign]

    @property
    def drops(self) -> DropRules | None:
        return self._rules if self._rules.names else None

    @property
    def marks_parents(self) -> bool:
        return self._rules.asks_at_end or super().marks_parents

    def on_end_sampled(self, span: ReadableSpan) -> None:
        try:
            rule = self._rules.at_end(span)
        except Exception:
            rule = None
            _logger.debug("a drop rule could not be asked about %r", span, exc_info=True)
        if rule is None:
            self.pass_on(span)
        elif getattr(span, "is_referred_to", True):
            self._stays(span, rule)
        else:
            self._filtered.add(rule)

    def _stays(self, span: ReadableSpan, rule: str) -> None:
        if rule not in self._said:
            self._said.add(rule)
            _logger.warning(
                "%r matched %r only when it had ended, and other spans refer to it: it is kept. "
                "Name what is known at the start: name, kind, attributes given there; told once",
                rule,
                span.name,
            )
        self.pass_on(span)

    def kept_back(self) -> int:
        return sum(self._filtered.read().values())

    def stats(self) -> dict[str, Any]:
        return {**super().stats(), "filtered": self._filtered.read()}


class DropsAtStart(SpanProcessor):
    """Bring rules to a provider whose spans go nowhere that a stage could stand in front of."""

    def __init__(self, rules: DropRules) -> None:
        self.drops = rules


plugin: type[SpanProcessor] = DropProcessor
