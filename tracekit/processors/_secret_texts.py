"""Secrets inside texts: tokens by their shape, headers, assignments and URLs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from tracekit._url_secrets import REDACTED, redact_text
from tracekit.processors._secret_names import Verdict, holds_secret, verdict_on

__all__ = ["KNOWN", "without_secrets"]

# Shapes that whoever issues the tokens made to be recognised. Sources:
# https://docs.github.com/en/code-security/secret-scanning/introduction/supported-secret-scanning-patterns
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html#identifiers-unique-ids
# https://www.rfc-editor.org/rfc/rfc7519 (a JSON object in base64url begins with eyJ)
_SHAPES = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
    r".*?(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----|\Z)"
    r"|(?<![\w-])(?:"
    r"eyJ[\w-]{6,}\.[\w-]{6,}(?:\.[\w-]*){1,3}"
    r"|(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}(?!\w)"
    r"|gh[opsru]_[A-Za-z0-9]{36,}|github_pat_\w{22,}|glpat-[\w-]{20,}"
    r"|xox[abceoprs]-[\w-]{10,}|xapp-\d-[\w-]{10,}"
    r"|[prs]k_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[\w+/=]{20,}"
    r"|AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}"
    r"|sk-(?=[\w-]*\d)(?=[\w-]*[A-Z])[\w-]{20,}"
    r"|SG\.[\w-]{16,}\.[\w-]{16,}|npm_[A-Za-z0-9]{36}|pypi-AgE[\w-]{40,}"
    r"|hf_[A-Za-z]{34}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|dop_v1_[0-9a-f]{64}"
    r"|gl(?:rt|ptt|dt|cbt)-[\w-]{20,}|dckr_[op]at_[\w-]{20,}"
    r"|AT(?:ATT|CTT)3x[\w=-]{50,}|lin_(?:api|oauth)_[A-Za-z0-9]{32,}|rubygems_[0-9a-f]{48}"
    r"|PMAK-[0-9a-f]{24}-[0-9a-f]{34}|NRAK-[A-Z0-9]{27}|hv[bs]\.[\w-]{24,}|dapi[0-9a-f]{32}"
    r"|AGE-SECRET-KEY-1[A-Z0-9]{50,}|sntry[su]_[\w+/=-]{40,}|figd_[\w-]{36,}|r8_[A-Za-z0-9]{36,}"
    r"|gsk_[A-Za-z0-9]{48,}|tskey-[a-z]+-[\w-]{16,}|glsa_[A-Za-z0-9]{32}_[0-9a-f]{8}"
    r"|glc_[\w+/=]{32,}|eyJrIjoi[\w+/=]{40,}|sq0(?:atp|csp)-[\w-]{22,}|xkeysib-[0-9a-f]{64}"
    r"|sk\.eyJ[\w-]{20,}\.[\w-]{16,}"
    r")",
    re.DOTALL,
)
_SLACK_HOOK = re.compile(r"(hooks\.slack\.com/services/)[\w/]+")
# Words follow "basic" and "bearer" in prose; a credential has a digit, humps or padding.
_SCHEME = re.compile(
    r"(?i:\b(bearer|basic|digest)\s+)(?=[^\s\"',;]*(?:\d|[a-z][A-Z]|=))[\w.~+/=-]{8,}"
)
_HEADER = re.compile(
    r"(?im)((?:^|(?<=[\s{,(\[\"'-]))(?:proxy-)?authorization[\"']?\s{0,4}[:=]\s{0,4}[\"']?)[^\s\"',;][^\"'\r\n,;]*"
)
_COOKIES = re.compile(
    r"(?im)(?<![\w-])((?:set-)?cookie[\"']?\s{0,4}[:=]\s{0,4}[\"']?)[^\s\"'=;]{1,128}=[^\"'\r\n]*"
)
_NAME = re.compile(r"(?<![\w.-])([\w.-]{1,64})[\"']?\s{0,2}[:=]\s{0,2}")
_VALUE = re.compile(
    r"[bBrRuU]?(?:\"[^\"\\]*(?:\\.[^\"\\]*)*(?:\"|\\?\Z)|'[^'\\]*(?:\\.[^'\\]*)*(?:'|\\?\Z))"
    r"|[^\s\"'&,;(){}\[\]<>]+",
    re.DOTALL,
)
# `--password x` of a command line, also where it is shown as a list of arguments.
_OPTION = re.compile(r"(?<![\w-])(--([\w-]{1,64})[\"']?,?\s{1,4}[\"']?)((?!-)[^\s\"',]{3,256})")
_ELEMENT = re.compile(
    r"(<(?:[\w-]{1,32}:)?([\w.-]{1,64})(?:\s[^<>]{0,256})?>)([^<>]{3,4096})(?=</)"
)
_QUOTED = re.compile(r"[bBrRuU]?([\"'])")
_SHORTEST_VALUE = 3
_LONGEST_KEY = 256
# What stands behind a colon in a message or an annotation, and is nobody's password.
_NO_VALUES = frozenset(
    (
        *("none", "null", "true", "false", "str", "string", "bytes", "int", "any", "optional"),
        *("required", "missing", "invalid", "expired", "wrong", "empty", "unknown", "expected"),
        *("redacted", "[redacted]", "value", "eof", "text", "changed", "reset", "not", "yes"),
    )
)
# Without one of these nothing above can match; most texts have none.
_HINTS = (
    *("tok", "key", "sig", "auth", "pass", "pwd", "secret", "jwt", "bear", "cred", "cookie"),
    *("github_", "eyj", "akia", "asia", "abia", "acca", "gh", "glpat", "xox", "xapp"),
    *("k_live", "k_test", "glrt-", "glptt-", "gldt-", "glcbt-", "dckr_", "att3x", "ctt3x"),
    *("lin_", "rubygems_", "pmak-", "nrak-", "hvs.", "hvb.", "dapi", "sntry", "figd_"),
    *("r8_", "gsk_", "glsa_", "glc_", "sq0"),
    *("whsec", "aiza", "ya29", "gocspx", "sk-", "sg.", "npm_", "pypi-", "hf_", "shp", "dop_"),
    *("private", "hooks.", "basic", "digest", "://", "session", "sessid", "cvv", "cvc", "ssn"),
    *("card", "hash", "security", "%", "otp", "assertion"),
)
_SHORTEST = 7
_LONGEST_KNOWN = 128
_MOST_KNOWN = 4096

KNOWN: set[str] = set()
"""Short texts in which no secret was found: methods, routes and hosts come again and again."""


def without_secrets(text: str, patterns: Sequence[re.Pattern[str]] = ()) -> str:
    """Return ``text`` with its secrets replaced; the same object when there are none.

    Cost: 0.1 µs for a text that was seen lately, else about 1 µs, or 10 µs where it has a word
    that often stands beside secrets; linear in the length of the text.
    """
    if not patterns and text in KNOWN:
        return text
    found = text
    if len(text) >= _SHORTEST and _is_suspect(text.lower()):
        found = _searched(text)
    for pattern in patterns:
        found = pattern.sub(REDACTED, found)
    if found == text:
        if len(text) <= _LONGEST_KNOWN and not patterns:
            _remember(text)
        return text
    return found


def _is_suspect(lowered: str) -> bool:
    for hint in _HINTS:  # noqa: SIM110 - any() with a generator takes three times as long
        if hint in lowered:
            return True
    return False


def _remember(text: str) -> None:
    if len(KNOWN) >= _MOST_KNOWN:
        KNOWN.clear()
    KNOWN.add(text)


def _searched(text: str) -> str:
    text = redact_text(text)
    text = _SHAPES.sub(REDACTED, text)
    text = _SLACK_HOOK.sub(rf"\1{REDACTED}", text)
    text = _HEADER.sub(rf"\1{REDACTED}", text)
    text = _COOKIES.sub(rf"\1{REDACTED}", text)
    text = _SCHEME.sub(rf"\1 {REDACTED}", text)
    text = _OPTION.sub(_without_option, text)
    text = _ELEMENT.sub(_without_content, text)
    return _without_assigned(text)


def _without_option(found: re.Match[str]) -> str:
    before, name, value = found.groups()
    # `--password option` of a help text.
    is_word = value.isalpha() and value.islower()
    return found[0] if is_word or not _is_given(name, value) else before + REDACTED


def _without_content(found: re.Match[str]) -> str:
    before, name, value = found.groups()
    return before + REDACTED if _is_given(name, value) else found[0]


def _without_assigned(text: str) -> str:
    """Replace what is given to a name of a secret.

    A value is read only behind such a name, and the search goes on behind the name where the
    value is none: `ValueError: password=...` has two names. Values that are read and stay are
    short, so that the time is linear.
    """
    kept: list[str] = []
    done = 0
    named = _NAME.search(text)
    while named is not None:
        value = _value_of(named[1], text, named.end())
        if value is not None:
            quoted = _QUOTED.match(value[0])
            quote = quoted[1] if quoted else ""
            kept += [text[done : value.start()], f"{quote}{REDACTED}{quote}"]
            done = value.end()
        named = _NAME.search(text, named.end() if value is None else value.end())
    return "".join([*kept, text[done:]]) if kept else text


def _value_of(name: str, text: str, start: int) -> re.Match[str] | None:
    verdict = verdict_on(name)
    if verdict is Verdict.HARMLESS:
        return None
    end = start + _LONGEST_KEY if verdict is Verdict.LOOK else len(text)
    value = _VALUE.match(text, start, end)
    if value is None:
        return None
    quoted = _QUOTED.match(value[0])
    bare = value[0][quoted.end() :].rstrip(quoted[1]) if quoted else value[0]
    return value if _is_given(name, bare) else None


def _is_given(name: str, value: str) -> bool:
    if len(value) < _SHORTEST_VALUE or value.lower().rstrip(".!") in _NO_VALUES:
        return False
    if not holds_secret(name, value):
        return False
    # `unexpected token: identifier` of a parser.
    is_token = verdict_on(name) is Verdict.TEXT
    return not is_token or len(value) >= 16 or any(letter.isdigit() for letter in value)
