"""Settings of network exporters as they were given: each with its source, checked once."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from tracekit.errors import ConfigurationError
from tracekit.settings import ignored

__all__ = [
    "NO_LIMIT_S",
    "Given",
    "checked_file",
    "checked_headers",
    "checked_timeout_s",
    "checked_url",
    "from_environment",
    "known_value",
    "listed_headers",
    "shown_url",
    "timeout_from_environment",
]

_logger = logging.getLogger("tracekit")

NO_LIMIT_S = 3600.0
"""What a timeout of 0, which the specification calls no limit, becomes: sockets want a number."""

# A timeout this short cannot be meant: opentelemetry-sdk reads the same variables in seconds.
_SUSPICIOUS_MILLIS = 100

# https://www.rfc-editor.org/rfc/rfc9110#name-tokens
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch
_NOT_IN_VALUES = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search


class Given(NamedTuple):
    """A value and where it came from: ``endpoint (argument)`` or the variable's name."""

    value: Any
    source: str

    def refused(self, expected: str, shown: str | None = None) -> ConfigurationError:
        """Return the error that says what is wrong; ``shown`` stands for a value with secrets."""
        text = repr(self.value) if shown is None else shown
        return ConfigurationError(f"{self.source}={text} is not valid: expected {expected}.")


def from_environment(*names: str) -> Given | None:
    """Return the first variable that is set; an empty one counts as not set.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    for name in names:
        if text := os.environ.get(name, "").strip():
            return Given(text, name)
    return None


def shown_url(url: str) -> str:
    """Return a URL as it may be shown to anybody: without user, password and query."""
    try:
        parts = urlsplit(url)
        return parts._replace(
            netloc=parts.netloc.rpartition("@")[2], query="", fragment=""
        ).geturl()
    except ValueError:
        return "[unreadable URL]"


def checked_url(given: Given, example: str = "http://localhost:4318") -> SplitResult:
    """Return the parts of an http or https URL.

    Args:
        example: One that would do, for the error message.

    Raises:
        ConfigurationError: It has no host, another scheme, or a port that is none.
    """
    expected = f"a URL such as {example}"
    if not isinstance(given.value, str):
        raise given.refused(expected)
    shown = repr(shown_url(given.value))
    try:
        parts = urlsplit(given.value.strip())
        port = parts.port
    except ValueError:
        raise given.refused(expected, shown) from None
    if parts.scheme not in ("http", "https"):
        raise given.refused(f"{expected}, with the scheme http or https", shown)
    if not parts.hostname or port == 0 or re.search(r"\s", given.value.strip()):
        raise given.refused(expected, shown)
    return parts


def checked_file(given: Given | None, holds: str) -> str | None:
    """Return the path of a PEM file.

    Args:
        holds: What must be in it, by the name that it has there, such as ``CERTIFICATE``.

    Raises:
        ConfigurationError: It cannot be read, or holds something else, or a key that only who
            types its passphrase could use.
    """
    if given is None:
        return None
    path = os.fspath(given.value)
    try:
        with open(path, "rb") as file:
            content = file.read()
    except OSError as error:
        raise given.refused(f"a file that can be read ({error.strerror})") from error
    if not re.search(rb"-----BEGIN [A-Z0-9 ]*" + holds.encode(), content):
        raise given.refused(f"a PEM file that holds a {holds.lower()}")
    if b"ENCRYPTED" in content:
        raise given.refused("a key without a passphrase")
    return str(path)


def checked_timeout_s(given: Given) -> float:
    """Return a timeout that was given in seconds; 0 is no limit.

    Raises:
        ConfigurationError: It is negative or no number.
    """
    value = given.value
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not 0 <= value < float("inf"):
        raise given.refused("a number of seconds, 0 for no limit")
    return float(value) or NO_LIMIT_S


def timeout_from_environment(*names: str) -> float | None:
    """Return a timeout given in milliseconds by a variable, in seconds; None without a usable one.

    A value that is no number is reported and ignored, as the specification asks.
    """
    given = from_environment(*names)
    if given is None:
        return None
    if not (given.value.isascii() and given.value.isdecimal()) or len(given.value) > 12:
        _logger.warning(
            "%s=%r is ignored: expected a number of milliseconds", given.source, given.value
        )
        return None
    millis = int(given.value)
    if 0 < millis < _SUSPICIOUS_MILLIS:
        _logger.warning(
            "%s=%d is %d milliseconds, as OpenTelemetry specifies (opentelemetry-sdk reads "
            "seconds); hardly any answer comes so soon",
            given.source,
            millis,
            millis,
        )
    return millis / 1000 or NO_LIMIT_S


def known_value(variable: Given | None, values: Sequence[str]) -> str | None:
    """Return a variable's value if it is one of a set; others are reported and ignored.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#enum
    """
    if variable is None:
        return None
    value = str(variable.value).lower()
    if value in values:
        return value
    ignored(variable.source, f"={variable.value!r}", f"one of {', '.join(values)}")
    return None


def checked_headers(given: Given) -> tuple[tuple[str, str], ...]:
    """Return headers given in code, as a mapping, as pairs or as ``key=value,key=value``.

    Raises:
        ConfigurationError: A name or value cannot be sent. Values may be secrets and are not
            repeated in the message.
    """
    if isinstance(given.value, str):
        return tuple(_listed(given, _raise_refused))
    return tuple(_checked_pair(given, pair) for pair in _pairs(given))


def _pairs(given: Given) -> list[Any]:
    value = given.value
    try:
        return list(value.items() if isinstance(value, Mapping) else value)
    except TypeError:
        raise given.refused("a mapping of header names to values", "[not a mapping]") from None


def _checked_pair(given: Given, pair: Any) -> tuple[str, str]:
    try:
        name, value = (_decoded(part) for part in pair)
    except (TypeError, ValueError, UnicodeDecodeError):
        raise given.refused("pairs of a header's name and value", "[not a pair]") from None
    if reason := _wrong_header(name, value):
        raise given.refused(reason, f"[header {name!r}]")
    return name.lower(), value.strip()


def _decoded(part: object) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, bytes):
        return part.decode("ascii")
    raise TypeError("neither str nor bytes")


def listed_headers(given: Given) -> tuple[tuple[str, str], ...]:
    """Return headers from a variable; a malformed one is reported and left out."""
    return tuple(_listed(given, _say_ignored))


def _listed(given: Given, on_wrong: Any) -> Iterable[tuple[str, str]]:
    """Read ``key=value,key=value``, percent-decoded.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
        #specifying-headers-via-environment-variables
    """
    for number, member in enumerate(given.value.split(","), 1):
        if not member.strip():
            continue
        name, equals, value = member.partition("=")
        name, value = unquote(name.strip()), unquote(value.strip())
        reason = _wrong_header(name, value) if equals else "key=value"
        if reason:
            on_wrong(given, number, reason)
        else:
            yield name.lower(), value


def _wrong_header(name: str, value: str) -> str:
    if not _TOKEN(name):
        return "a header name of letters, digits and dashes"
    if _NOT_IN_VALUES(value):
        return "a header value without control characters"
    try:
        value.encode("latin-1")  # what http.client sends
    except UnicodeEncodeError:
        return "a header value in ISO-8859-1"
    return ""


def _raise_refused(given: Given, number: int, reason: str) -> None:
    raise given.refused(f"{reason} in entry {number}", "[headers]")


def _say_ignored(given: Given, number: int, reason: str) -> None:
    # What it says may be a secret.
    ignored(f"entry {number} of {given.source}", "", reason)
