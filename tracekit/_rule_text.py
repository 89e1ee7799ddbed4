"""Reading rules: compact text, JSON, and the tables of code and pyproject.toml, into one form.

A rule is a mapping: what it keeps under ``keep`` (and ``burst``), and a condition under every
other key. The compact text says the same with the share in front::

    drop route=/health; keep name=/^pay/; 5/s route=/search burst=20; 10%
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from tracekit.errors import ConfigurationError

__all__ = ["InvalidRuleError", "RuleText", "invalid_rule", "read_rules"]

EXAMPLE = "drop route=/health; 5/s route=/search burst=20; 10%"


class RuleText(NamedTuple):
    """One rule as it was written.

    Attributes:
        number: From 1 on.
        keep: What its ``keep`` says, unchecked.
        conditions: Field and pattern of each.
        place: Where it stands, for messages.
    """

    number: int
    keep: Any
    burst: Any
    conditions: tuple[tuple[str, str], ...]
    place: str


class InvalidRuleError(ConfigurationError):
    """A rule cannot work.

    Attributes:
        complaint: Which rule, where in it, and why; without what to write instead.
        expected: What to write instead.
    """

    def __init__(self, complaint: str, expected: str) -> None:
        self.complaint, self.expected = complaint, expected
        super().__init__(f"sampling rules, {complaint}. Write {expected}, as in: {EXAMPLE}")


def invalid_rule(place: str, what: str, expected: str) -> InvalidRuleError:
    """Return the error that says which rule is wrong, where, and what to write instead."""
    return InvalidRuleError(f"{place}: {what}", expected)


def read_rules(given: Any) -> list[RuleText]:
    """Return the rules of a text, of JSON in a text, or of a list of mappings and texts.

    Raises:
        ConfigurationError: The rule, the position in it, and what to write instead.
    """
    if isinstance(given, str):
        given = _from_json(given) if given.lstrip().startswith(("[", "{")) else given
    if isinstance(given, Mapping):
        given = [given]
    if isinstance(given, str):
        parts = list(_split(given))
        return [_from_text(number, *part) for number, part in enumerate(parts, 1)]
    if not isinstance(given, (list, tuple)):
        raise invalid_rule("all of them", f"{given!r} is no list of rules", "a text or a list")
    return [_from_member(number, rule) for number, rule in enumerate(given, 1)]


def _from_json(text: str) -> Any:
    import json  # only rules that are JSON need it

    try:
        return json.loads(text)
    except ValueError as error:
        raise invalid_rule("as JSON", str(error), 'a list such as [{"keep": 0.1}]') from None


def _from_member(number: int, rule: Any) -> RuleText:
    if isinstance(rule, str):
        parts = list(_split(rule))
        if len(parts) != 1:
            raise invalid_rule(f"rule {number}", f"{rule!r} is not one rule", "one rule a text")
        return _from_text(number, *parts[0])
    if not isinstance(rule, Mapping):
        raise invalid_rule(f"rule {number}", f"{rule!r} is no rule", "a text or a mapping")
    place = f"rule {number}"
    if "keep" not in rule:
        raise invalid_rule(place, "it does not say what it keeps", 'a "keep" of 0 to 1 or "5/s"')
    conditions = [(str(field), _text_of(pattern)) for field, pattern in rule.items()]
    return RuleText(
        number,
        rule["keep"],
        rule.get("burst"),
        tuple(pair for pair in conditions if pair[0] not in ("keep", "burst")),
        place,
    )


def _text_of(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


# A pattern in quotes may hold spaces and semicolons.
_SPLIT = re.compile(r'"[^"]*"|[^;\n"]')
_WORD = re.compile(r'(?:"[^"]*"|\S)+')


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Yield each rule with the position, from 1 on, at which it begins."""
    begin = position = 0
    while position <= len(text):
        piece = _SPLIT.match(text, position)
        if piece is not None:
            position = piece.end()
            continue
        rule = text[begin:position]
        if position < len(text) and text[position] == '"':
            raise invalid_rule(f"position {position + 1}", "a quote is not closed", 'a second "')
        if rule.strip():
            yield begin + len(rule) - len(rule.lstrip()) + 1, rule.strip()
        position += 1
        begin = position


def _from_text(number: int, position: int, rule: str) -> RuleText:
    words = list(_WORD.finditer(rule))
    place = f"rule {number} ({rule!r} at position {position})"
    first = words[0][0]
    if "=" in first:
        raise invalid_rule(place, f"it begins with {first!r}", "keep, drop, 10% or 5/s first")
    burst = None
    conditions: list[tuple[str, str]] = []
    for word in words[1:]:
        field, equals, pattern = word[0].partition("=")
        if not (field and equals and pattern):
            at = f"rule {number}, position {position + word.start()}"
            raise invalid_rule(at, f"{word[0]!r} is no condition", "field=pattern")
        if pattern[0] == '"' == pattern[-1]:
            pattern = pattern[1:-1]
        if field == "burst":
            burst = pattern
        else:
            conditions.append((field, pattern))
    return RuleText(number, first, burst, tuple(conditions), place)
