"""Callers whose trace is continued, and those who begin a new one here.

Whoever can reach a server can send it a traceparent: one with the sampled flag on each request
fills somebody's storage, one with the id of another trace spoils that. Rules say whose context is
continued, in the language of the sampling rules and about what a server's span starts with::

    trust network.peer.address=10.*; link route=/public/*; ignore

The first that matches counts, and where none does, the caller is trusted. Any header of the request
is a field: ``http.request.header.x-edge=yes``.
https://www.w3.org/TR/trace-context-2/#mutating-the-traceparent-field
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, default_getter
from opentelemetry.trace import Link, SpanKind, get_current_span

from tracekit import semconv
from tracekit._otel_context import OnlySpan
from tracekit._rule_text import InvalidRuleError, RuleText, invalid_rule, read_rules
from tracekit._rules import Conditions, conditions_of, matches, refuse_unreachable
from tracekit.errors import ConfigurationError

__all__ = ["Caller", "Trust", "caller_of", "trust_of"]

TRUST, LINK, IGNORE = "trust", "link", "ignore"
_VARIABLE = "TRACEKIT_TRUST"
_REMEDY = (
    "Write trust, link or ignore, and conditions behind it, "
    "as in: trust network.peer.address=10.*; link"
)

# Where a propagator with a TrustPolicy leaves the span context of a caller that it does not trust;
# written out there too, for an instrumentation imports no propagator.
_UNTRUSTED_KEY = "tracekit-untrusted-span-context"


class _Rule(NamedTuple):
    verdict: str
    conditions: Conditions


class Caller(NamedTuple):
    """What the context of a caller became: where to start from, and what to link to."""

    context: Context
    links: Sequence[Link]


class Trust:
    """Says whose context is continued.

    Concurrency: from any thread. Cost: 0.6 µs for each condition that is looked at.
    """

    def __init__(self, rules: Sequence[_Rule]) -> None:
        self._rules = tuple(rules)

    def verdict(self, known: Any) -> str:
        """Return what becomes of the context of a caller that this is known of."""
        for verdict, conditions in self._rules:
            if matches(conditions, "", SpanKind.SERVER, known):
                return verdict
        return TRUST


class _Known:
    """The attributes of a span, and headers by the names that they would have among them."""

    __slots__ = ("_attributes", "_carrier", "_getter")

    def __init__(self, attributes: Mapping[str, Any], carrier: Any, getter: Getter[Any]) -> None:
        self._attributes = attributes
        self._carrier = carrier
        self._getter = getter

    def get(self, key: str) -> Any:
        if not key.startswith(semconv.HTTP_REQUEST_HEADER):
            return self._attributes.get(key)
        values = self._getter.get(self._carrier, key.removeprefix(semconv.HTTP_REQUEST_HEADER))
        # One that is there twice is none that a proxy of ours has set.
        return values[0] if values and len(values) == 1 else None


def trust_of(option: Any, environ: Mapping[str, str]) -> Trust | None:
    """Read the rules of an option, or else of ``TRACEKIT_TRUST``; None where everybody is trusted.

    Raises:
        ConfigurationError: Which rule cannot work, where, and what to write instead.
    """
    given = environ.get(_VARIABLE, "").strip() or None if option is None else option
    if given is None:
        return None
    try:
        written = read_rules(given)
        refuse_unreachable(written)
        return Trust([_Rule(_verdict_of(rule), conditions_of(rule)) for rule in written])
    except InvalidRuleError as error:
        raise ConfigurationError(f"{_VARIABLE}, {error.complaint}. {_REMEDY}") from None


def _verdict_of(rule: RuleText) -> str:
    if rule.keep not in (TRUST, LINK, IGNORE):
        raise invalid_rule(rule.place, f"{rule.keep!r} is no verdict", "trust, link or ignore")
    return str(rule.keep)


def caller_of(
    trust: Trust | None,
    context: Context,
    around: Context,
    attributes: Mapping[str, Any],
    carrier: Any,
    getter: Getter[Any] = default_getter,
) -> Caller:
    """Return what is taken over of the context that was extracted.

    Args:
        around: The context that there was before, and comes back where nothing was sent; all that
            an untrusted caller starts from.
        attributes: What the server's span starts with.
    """
    if context is around:
        return Caller(context, ())
    if trust is None:
        return _left_by_policy(context)
    verdict = trust.verdict(_Known(attributes, carrier, getter))
    if verdict == TRUST:
        return Caller(context, ())
    span_context = get_current_span(context).get_span_context()
    is_link = verdict == LINK and span_context.is_valid and span_context.is_remote
    return Caller(around, (Link(span_context),) if is_link else ())


def _left_by_policy(context: Context) -> Caller:
    """Return the context without what a TrustPolicy left in it, and a link to that."""
    if type(context) is OnlySpan or _UNTRUSTED_KEY not in context:
        return Caller(context, ())
    rest = Context({key: value for key, value in context.items() if key != _UNTRUSTED_KEY})
    left: Any = context[_UNTRUSTED_KEY]
    return Caller(rest, (Link(left),))
