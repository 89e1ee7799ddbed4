"""Secrets in URLs: which keys hold them, and texts without them; never an exception."""

from __future__ import annotations

import re
from urllib.parse import unquote

__all__ = [
    "LONGEST_URL",
    "MARK",
    "REDACTED",
    "SECRET_KEYS",
    "is_secret",
    "redact_query",
    "redact_text",
    "redact_url",
    "split_authority",
]

LONGEST_URL = 4096
MARK = "…"
REDACTED = "REDACTED"

# Query keys whose values are secrets, in lower case without dashes and underscores. Whole names,
# never parts of one: `page_token`, `author` and `tokens` are none.
# The first two lines are those of the conventions:
# https://opentelemetry.io/docs/specs/semconv/registry/attributes/url/#url-full
SECRET_KEYS = {
    *("xamzsignature", "xamzcredential", "xamzsecuritytoken", "awsaccesskeyid"),
    *("signature", "sig", "xgoogsignature", "xgoogcredential"),
    *("token", "accesstoken", "refreshtoken", "idtoken", "authtoken", "sessiontoken"),
    *("apikey", "apitoken", "apisecret", "accesskey", "secretkey", "privatekey"),
    *("auth", "authorization", "bearer", "jwt"),
    *("password", "passwd", "pwd", "secret", "clientsecret"),
    *("clientassertion", "samlresponse", "otp", "totp"),
}
# Each of them has one of these; a query without any, as most are, is not taken apart. An escape
# may hide a letter.
_HINTS = (
    *("%", "tok", "key", "sig", "auth", "pass", "pwd", "sec", "jwt", "bear", "cred"),
    *("otp", "assertion", "samlresponse"),
)
# `key` names a harmless thing far more often than an API key, so there the value decides: a key
# of Google's, or a long hexadecimal number.
_KEY_VALUE = re.compile(r"AIza[\w-]{20,}|[0-9A-Fa-f]{32,}")
# The same inside a sentence, such as the message of an exception that quotes the URL.
_IN_TEXT = re.compile(r"(?<=[?&;#])([\w.%\[\]-]{1,64})=([^&;#\s'\")>]+)")
_USERINFO_IN_TEXT = re.compile(r"(?<=://)[^\s/?#@'\"]{1,1024}@")


def redact_url(url: str) -> str:
    """Return `url` without credentials and secret query values, at most LONGEST_URL long.

    Userinfo goes first, from the whole URL: cut before, what is left of it would not be
    recognised. The query is searched after the cut; a value that was cut still has its key.
    """
    if "@" in url:
        url = _without_userinfo(url)
    cut = len(url) > LONGEST_URL
    if cut:
        url = url[: LONGEST_URL - 1]
    if "?" in url or "#" in url:
        url = _without_secrets(url)
    return url + MARK if cut else url


def redact_query(query: str) -> str:
    """Return a query string, without its question mark, with secret values replaced."""
    cut = len(query) > LONGEST_URL
    if cut:
        query = query[: LONGEST_URL - 1]
    if _is_suspect(query.lower()):
        query = _redact_pairs(query)
    return query + MARK if cut else query


def redact_text(text: str) -> str:
    """Replace the secrets of URLs quoted in a sentence or a stack trace."""
    text = _USERINFO_IN_TEXT.sub(f"{REDACTED}:{REDACTED}@", text)
    return _IN_TEXT.sub(_redact_match, text)


def split_authority(authority: str) -> tuple[str, str]:
    if authority.startswith("["):  # IPv6
        host, _, rest = authority[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = authority.partition(":")
    return host, port


def _without_userinfo(url: str) -> str:
    start = url.find("://") + 3
    if start < 3:
        start = 2 if url.startswith("//") else -1
    if start < 0:
        return url
    end = _authority_end(url, start)
    at = url.rfind("@", start, end)
    if at < 0 and _has_broken_port(url[start : min(end, start + 1024)]):
        # `http://user:pa/ss@host`: the password ends the authority for every parser, but it was
        # meant as one, and is a secret all the same.
        at = url.rfind("@", start)
    return url if at < 0 else f"{url[:start]}{REDACTED}:{REDACTED}{url[at:]}"


def _authority_end(url: str, start: int) -> int:
    ends = [url.find(mark, start) for mark in "/?#"]
    return min((end for end in ends if end >= 0), default=len(url))


def _has_broken_port(authority: str) -> bool:
    port = split_authority(authority)[1]
    return bool(port) and not port.isdigit()


def _without_secrets(url: str) -> str:
    # A fragment is redacted like a query: implicit grants put the token there.
    if not _is_suspect(url.lower()):
        return url
    head, hash_, fragment = url.partition("#")
    head, mark, query = head.partition("?")
    if "=" in query:
        query = _redact_pairs(query)
    if "=" in fragment:
        fragment = _redact_pairs(fragment)
    return f"{head}{mark}{query}{hash_}{fragment}"


def _is_suspect(lowered: str) -> bool:
    for hint in _HINTS:  # noqa: SIM110 - any() with a generator takes three times as long
        if hint in lowered:
            return True
    return False


def _redact_pairs(query: str) -> str:
    if ";" in query and "&" not in query:
        return ";".join(map(_redact_pair, query.split(";")))
    return "&".join(map(_redact_pair, query.split("&")))


def _redact_pair(pair: str) -> str:
    key, _, value = pair.partition("=")
    return f"{key}={REDACTED}" if value and is_secret(key, value) else pair


def _redact_match(match: re.Match[str]) -> str:
    return f"{match[1]}={REDACTED}" if is_secret(match[1], match[2]) else match[0]


def is_secret(key: str, value: str) -> bool:
    if len(key) > 64:
        return False
    plain = unquote(key) if "%" in key else key
    if plain.endswith("]"):  # `user[password]` of forms in PHP and Rails
        plain = plain[plain.rfind("[") + 1 : -1]
    plain = plain.lower().replace("-", "").replace("_", "")
    if plain == "key":
        return _KEY_VALUE.fullmatch(value) is not None
    return plain in SECRET_KEYS
