"""Which spans are dropped: rules of one's own, and two that are known by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from opentelemetry.trace import SpanKind

from tracekit import semconv
from tracekit._rule_text import InvalidRuleError, RuleText, invalid_rule, read_rules
from tracekit._rules import Conditions, conditions_of, matches, refuse_unreachable
from tracekit.errors import ConfigurationError
from tracekit.interfaces import ReadableSpan
from tracekit.settings import placed

__all__ = ["DEFAULT", "DropRules"]

Attributes = Mapping[str, Any]

EXAMPLE = "keep route=/health/deep; drop name=PING kind=client; pings"
LONGEST_NAME = 80
MOST_KNOWN = 2048
"""Names of spans for which it is remembered which rules may match; a program has dozens."""

# Exactly these: a word in a path may as well be what the service is about.
_PATHS = (
    *("/health", "/healthz", "/healthcheck", "/health-check", "/health_check", "/_health"),
    *("/health/live", "/health/liveness", "/health/ready", "/health/readiness", "/_healthz"),
    *("/livez", "/live", "/liveness", "/alive", "/readyz", "/ready", "/readiness", "/startupz"),
    *("/ping", "/_ping", "/heartbeat", "/__heartbeat__", "/__lbheartbeat__", "/ht"),
    *("/-/healthy", "/-/ready", "/actuator/health"),
    *("/actuator/health/liveness", "/actuator/health/readiness"),
)
_HEALTH_PATHS = frozenset((*_PATHS, *(f"{path}/" for path in _PATHS)))
# What checks for a living, whatever path it was told to ask for.
_CHECKERS = (
    "kube-probe/",
    "ELB-HealthChecker/",
    "GoogleHC/",
    "Amazon-Route53-Health-Check-Service",
    "Consul Health Check",
)
_GRPC_HEALTH = "grpc.health.v1.Health/"
_OLD_RPC_SERVICE = "rpc.service"
_READING = frozenset(("GET", "HEAD", "OPTIONS", None))
# One lookup less each on the path of a request.
URL_PATH, USER_AGENT_ORIGINAL = semconv.URL_PATH, semconv.USER_AGENT_ORIGINAL
HTTP_REQUEST_METHOD = semconv.HTTP_REQUEST_METHOD
RPC_SYSTEM_NAME, RPC_METHOD = semconv.RPC_SYSTEM_NAME, semconv.RPC_METHOD


def _is_health_check(attributes: Attributes) -> bool:
    """Whether a server was asked whether it lives."""
    path = attributes.get(URL_PATH)
    if path is None:
        if RPC_SYSTEM_NAME in attributes:
            return str(attributes.get(RPC_METHOD, "")).startswith(_GRPC_HEALTH)
        return _is_older_health_check(attributes)
    if path in _HEALTH_PATHS and attributes.get(HTTP_REQUEST_METHOD) in _READING:
        return True
    agent = attributes.get(USER_AGENT_ORIGINAL)
    return agent is not None and _is_checker(agent)


def _is_checker(agent: Any) -> bool:
    return isinstance(agent, str) and agent.startswith(_CHECKERS)


def _is_older_health_check(attributes: Attributes) -> bool:
    """Look at what is said by the names that the conventions replaced."""
    target = attributes.get(semconv.OLD_HTTP_TARGET)
    if isinstance(target, str) and target.partition("?")[0] in _HEALTH_PATHS:
        return attributes.get(semconv.OLD_HTTP_METHOD) in _READING
    # Older conventions split what newer ones write in one.
    service = f"{attributes.get(_OLD_RPC_SERVICE, '')}/"
    method = str(attributes.get(RPC_METHOD, ""))
    if service == _GRPC_HEALTH or method.startswith(_GRPC_HEALTH):
        return True
    return _is_checker(attributes.get(semconv.OLD_HTTP_USER_AGENT))


def _maybe(_attributes: Attributes) -> bool:
    """Have the rules asked."""
    return True


def _is_ping(attributes: Attributes) -> bool:
    """Whether a database is asked for nothing but whether it is there."""
    asked = attributes.get(semconv.DB_OPERATION_NAME)
    return attributes.get(semconv.PING) is True or asked in ("PING", "ping")


class _Rule(NamedTuple):
    """One rule: what name and kind say about it, and what takes the attributes.

    Attributes:
        only_incoming: It is about requests from outside; one that this process makes to itself,
            as tests do, is of interest to whoever makes it.
        is_final: What it looks at is known at the start, and does not change.
    """

    name: str
    drops: bool
    matches: Callable[[Attributes], bool]
    by_name: Conditions = ()
    only_kind: SpanKind | None = None
    only_incoming: bool = False
    is_final: bool = False

    def is_about(self, name: str, kind: SpanKind) -> bool:
        is_kind = self.only_kind is None or self.only_kind is kind
        return is_kind and matches(self.by_name, name, kind, {})


_NAMED = {
    "health": _Rule(
        "health",
        True,
        matches=_is_health_check,
        only_kind=SpanKind.SERVER,
        only_incoming=True,
        is_final=True,
    ),
    "pings": _Rule("pings", True, matches=_is_ping, only_kind=SpanKind.CLIENT, is_final=True),
}
_Rules = tuple[_Rule, ...]
DEFAULT = ("health",)
_OFF = frozenset(("none", "false", "0", "off"))
_ON = frozenset(("true", "1", "on"))


class DropRules:
    """Say which rule drops a span; the first that matches decides, and one may say ``keep``.

    Args:
        given: True for the default, False or ``"none"`` for no rules; in text, ``"keep
            route=/health/deep; drop name=PING kind=client; pings"``, the same as JSON, or as a
            list. ``health`` and ``pings`` are rules that are known by name. ``health`` comes
            last unless it is named: a ``keep`` without conditions ends the list before it.

    Raises:
        ConfigurationError: Which rule cannot work, where, and what to write instead.

    Concurrency: may be asked from any thread; what it remembers of names is dictionaries.
    Cost: 0.5 µs for a span whose name and kind no rule is about; 0.6 µs more for each condition
    on an attribute that is looked at.
    """

    def __init__(self, given: Any = DEFAULT) -> None:
        try:
            self._rules = _rules(given)
        except InvalidRuleError as error:
            said = f"drop rules, {error.complaint}. Write {error.expected}, as in: {EXAMPLE}"
            raise ConfigurationError(said) from None
        self.names = tuple(rule.name for rule in self._rules if rule.drops)
        self.only_incoming = all(rule.only_incoming for rule in self._rules)
        # For those: what to say of a span, and whether to. A plain pair is taken apart in half the
        # time that a rule's attribute takes.
        self._verdicts = tuple(
            (rule.name if rule.drops else None, rule.matches) for rule in self._rules
        )
        # Of several rules, whose order matters, none is asked beforehand.
        self.may_drop: Callable[[Attributes], bool] = (
            self._rules[0].matches if self.only_incoming and len(self._rules) == 1 else _maybe
        )
        # What a span says of itself at its start, a rule that looks no further has seen.
        self.asks_at_end = any(not rule.is_final for rule in self._rules)
        # By name and kind: the rules that may match, at the start and at the end.
        self._known: dict[tuple[str, int], tuple[_Rules, _Rules]] = {}

    @classmethod
    def from_setting(cls, given: Any, source: str) -> DropRules:
        """Make what ``configure(drop=...)``, a variable or a table says.

        Raises:
            ConfigurationError: As above, with the source in front.
        """
        if isinstance(given, cls):
            return given
        with placed("drop" if source == "argument" else source):
            return cls(given)

    def at_start(
        self, name: str, kind: SpanKind, attributes: Attributes, has_local_parent: bool
    ) -> str | None:
        """Return the name of the rule that drops a span that is about to start."""
        if self.only_incoming:  # the default, on the path of every request
            if not has_local_parent:
                for verdict, is_met in self._verdicts:
                    if is_met(attributes):
                        return verdict
            return None
        key = (name, kind._value_)
        for rule in (self._known.get(key) or self._learn(key, kind))[0]:
            if not (has_local_parent and rule.only_incoming) and rule.matches(attributes):
                return rule.name if rule.drops else None
        return None

    def at_end(self, span: ReadableSpan) -> str | None:
        """Return the name of the rule that drops a span for what it said since its start."""
        kind = span.kind
        key = (span.name, kind._value_)
        rules = (self._known.get(key) or self._learn(key, kind))[1]
        if rules:
            attributes = span.attributes
            for rule in rules:
                if rule.matches(attributes):
                    return rule.name if rule.drops else None
        return None

    def _learn(self, key: tuple[str, int], kind: SpanKind) -> tuple[_Rules, _Rules]:
        rules = tuple(rule for rule in self._rules if rule.is_about(key[0], kind))
        found = rules, tuple(rule for rule in rules if not rule.is_final)
        if len(self._known) < MOST_KNOWN:
            self._known[key] = found
        return found


def _rules(given: Any) -> tuple[_Rule, ...]:
    word = str(given).strip().lower() if isinstance(given, (str, bool, int)) else ""
    if word in _OFF:
        return ()
    written = [_named(rule) for rule in read_rules(DEFAULT if word in _ON else given)]
    refuse_unreachable(written)
    rules = [_rule(rule) for rule in written]
    named = {rule.name for rule in rules}
    return (*rules, *(_NAMED[name] for name in DEFAULT if name not in named))


def _named(rule: RuleText) -> RuleText:
    """Check what a rule says to do, and write one that is known by its name as a condition."""
    word = str(rule.keep).strip().lower()
    if word in _NAMED and not rule.conditions and rule.burst is None:
        return rule._replace(keep="drop", conditions=((word, ""),))
    if word not in _VERBS or rule.burst is not None:
        what = f"{rule.keep!r} neither keeps nor drops" if word not in _VERBS else "it has a burst"
        raise invalid_rule(
            rule.place, what, f"keep, drop, {' or '.join(_NAMED)}; shares go into rules="
        )
    if _VERBS[word] and not rule.conditions:
        expected = "a condition, or sampler='always_off'"
        raise invalid_rule(rule.place, "it drops every span", expected)
    return rule._replace(keep=word)


_VERBS = {"keep": False, "true": False, "1": False, "drop": True, "false": True, "0": True}


def _rule(written: RuleText) -> _Rule:
    (first, *_) = written.conditions or (("", ""),)
    if first[0] in _NAMED and not first[1]:
        return _NAMED[first[0]]
    conditions = conditions_of(written)
    by_name = tuple(pair for pair in conditions if pair[0] in ("name", "kind"))
    by_attributes = tuple(pair for pair in conditions if pair not in by_name)
    drops = _VERBS[written.keep]
    said = " ".join(f"{field}={pattern}" for field, pattern in written.conditions)
    name = f"{'drop' if drops else 'keep'} {said}"[:LONGEST_NAME]
    return _Rule(name, drops, _all_of(by_attributes), by_name)


def _all_of(conditions: Conditions) -> Callable[[Attributes], bool]:
    return lambda attributes: matches(conditions, "", None, attributes)
