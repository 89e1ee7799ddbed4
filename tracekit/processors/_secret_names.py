"""Which names of attributes, arguments, headers and parameters hold secrets."""

from __future__ import annotations

import enum
import functools
import re
from typing import Any

from tracekit._url_secrets import SECRET_KEYS

__all__ = ["Verdict", "holds_secret", "verdict_on"]


class Verdict(enum.Enum):
    """What a name says about its value."""

    HARMLESS = "harmless"
    SECRET = "secret"
    TEXT = "text"
    """A secret if it is a text: ``token`` is also what language models are counted in."""
    LOOK = "look"
    """The value decides: ``key`` names a harmless thing far more often than a secret."""


_SECRET_WORDS = frozenset(
    (
        *("password", "passwd", "pwd", "passphrase", "passcode", "secret", "jwt", "bearer"),
        *("credential", "credentials", "authorization", "cookie", "cookies", "cvv", "cvc", "ssn"),
        *("phpsessid", "jsessionid", "sessionid"),
    )
)
# The last two or three words, written together.
_SECRET_ENDINGS = frozenset(
    (
        *SECRET_KEYS,
        *("secretaccesskey", "awsaccesskeyid", "accesskeyid", "signingkey", "encryptionkey"),
        *("masterkey", "sharedkey", "accountkey", "storagekey", "sessionkey", "deploykey"),
        *("csrftoken", "xsrftoken", "csrfmiddlewaretoken", "jwtassertion"),
        *("sessionid", "passwordhash", "cardnumber", "creditcard", "securitycode"),
    )
) - {"signature", "sig", "auth", "token"}
_LOOKS = frozenset(("key", "signature", "sig", "auth"))
# Tokens that say where a list goes on, or what a language model reads.
_HARMLESS_TOKENS = frozenset(
    (
        *("page", "next", "prev", "previous", "continuation", "cursor", "sync", "resume"),
        *("start", "end", "stop", "first", "last", "max", "min", "per", "scroll", "change"),
        *("pad", "eos", "bos", "unk", "cls", "sep", "mask", "special", "unexpected"),
    )
)
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_GAPS = re.compile(r"[-_\s]+")
# A key of Google's, a long hexadecimal number, or base64 with digits and both cases.
_OPAQUE = re.compile(
    r"AIza[\w-]{20,}|[0-9A-Fa-f]{32,}"
    r"|(?=[^\d]*\d)(?=[^a-z]*[a-z])(?=[^A-Z]*[A-Z])[\w+/%=~-]{20,}"
)


@functools.lru_cache(maxsize=2048)
def verdict_on(name: str) -> Verdict:
    """Say what a name tells of its value; the last part of a dotted one decides.

    Cost: 4 µs for a name that was not seen lately.
    """
    if len(name) > 256:
        return Verdict.HARMLESS
    last = name.rpartition(".")[2]
    words = [word for word in _GAPS.split(_HUMP.sub("_", last).lower()) if word]
    if not words:
        return Verdict.HARMLESS
    if words[-1] in _SECRET_WORDS:
        return Verdict.SECRET
    if any("".join(words[-count:]) in _SECRET_ENDINGS for count in (1, 2, 3)):
        return Verdict.SECRET
    if words[-1] == "token":
        is_harmless = len(words) > 1 and words[-2] in _HARMLESS_TOKENS
        return Verdict.HARMLESS if is_harmless else Verdict.TEXT
    return Verdict.LOOK if words[-1] in _LOOKS else Verdict.HARMLESS


def holds_secret(name: str, value: Any) -> bool:
    """Whether a value is a secret because of the name that it goes by."""
    verdict = verdict_on(name)
    if verdict is Verdict.HARMLESS or value is None or value == "" or isinstance(value, bool):
        return False
    if verdict is Verdict.SECRET:
        return True
    if verdict is Verdict.TEXT:
        return not isinstance(value, (int, float))
    return isinstance(value, str) and _OPAQUE.fullmatch(value) is not None
