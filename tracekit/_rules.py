"""Matching spans against rules: one language for what is kept and what is dropped."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from opentelemetry.trace import SpanKind

from tracekit import semconv
from tracekit._rule_text import RuleText, invalid_rule

__all__ = ["Conditions", "conditions_of", "matches", "refuse_unreachable"]

_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    # A server that routes later than it starts its span knows the path alone by then.
    "route": (semconv.HTTP_ROUTE, semconv.URL_TEMPLATE, semconv.URL_PATH, semconv.OLD_HTTP_TARGET),
    "method": (semconv.HTTP_REQUEST_METHOD, semconv.OLD_HTTP_METHOD),
    "host": (semconv.SERVER_ADDRESS, semconv.OLD_HTTP_HOST),
}
"""The short names of fields; every other one is the key of an attribute."""

_PATTERN = re.compile(r"[*?\[]|^/.+/$")

Match = Callable[[str], Any]
Conditions = tuple[tuple[str, Match], ...]


def conditions_of(written: RuleText) -> Conditions:
    """Return the conditions of a rule, ready to be tried.

    Raises:
        ConfigurationError: Which pattern cannot work, where, and what to write instead.
    """
    _refuse_contradiction(written)
    return tuple((field, _match(written, field, text)) for field, text in written.conditions)


def _refuse_contradiction(written: RuleText) -> None:
    exact: dict[str, str] = {}
    for field, text in written.conditions:
        if _PATTERN.search(text):
            continue
        if exact.setdefault(field, text) != text:
            what = f"{field} cannot be both {exact[field]!r} and {text!r}"
            raise invalid_rule(written.place, what, "one of them, or a pattern for both: /a|b/")


def matches(
    conditions: Conditions, name: str, kind: SpanKind | None, attributes: Mapping[str, Any]
) -> bool:
    """Whether all conditions hold; one about something that is not known does not.

    Cost: for each condition that is looked at about 0.6 µs.
    """
    for field, match in conditions:
        value = _value(field, name, kind, attributes)
        if value is None or not match(value):
            return False
    return True


def refuse_unreachable(written: Sequence[RuleText]) -> None:
    """Refuse a rule that a rule before it leaves nothing for.

    Raises:
        ConfigurationError: Which one, and which one is before it.
    """
    for place, rule in enumerate(written):
        for earlier in written[:place]:
            if set(earlier.conditions) <= set(rule.conditions):
                what = f"rule {earlier.number} already matches all that it could"
                raise invalid_rule(rule.place, what, "the narrower rule first, the first one wins")


def _value(
    field: str, name: str, kind: SpanKind | None, attributes: Mapping[str, Any]
) -> str | None:
    """Return what a condition looks at, as text; None when it is not known."""
    if field == "name":
        return name
    if field == "kind":
        return (kind or SpanKind.INTERNAL).name.lower()
    for key in _ATTRIBUTES.get(field, (field,)):
        value: Any = attributes.get(key)
        if value is not None:
            return str(value).lower() if isinstance(value, bool) else str(value)
    return None


def _match(written: RuleText, field: str, pattern: str) -> Match:
    """Return the test of a pattern: a glob of the whole value, or /a regular expression/ in it."""
    if field == "kind" and pattern.lower() not in _KINDS:
        raise invalid_rule(written.place, f"unknown kind {pattern!r}", f"one of {_NAMED_KINDS}")
    if field == "kind":
        pattern = pattern.lower()
    if field == "method" and not pattern.startswith("/"):
        pattern = pattern.upper()
    if len(pattern) > 2 and pattern[0] == "/" == pattern[-1]:
        try:
            return re.compile(pattern[1:-1]).search
        except re.error as error:
            what = f"{field}={pattern} is no regular expression ({error})"
            raise invalid_rule(written.place, what, "one that Python reads, or a glob") from None
    return re.compile(fnmatch.translate(pattern)).match


_KINDS = frozenset(kind.name.lower() for kind in SpanKind)
_NAMED_KINDS = ", ".join(sorted(_KINDS))
