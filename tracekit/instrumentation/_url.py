"""URLs as attributes: length bounded, split into parts; never an exception."""

from __future__ import annotations

import functools
from typing import NamedTuple

from tracekit._url_secrets import LONGEST_URL, split_authority

__all__ = [
    "Origin",
    "UrlParts",
    "default_port",
    "origin_of",
    "split_url",
]

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}


class UrlParts(NamedTuple):
    """A URL for attributes; `port` is the scheme's default where none is given."""

    scheme: str
    host: str
    port: int | None
    path: str
    query: str


class Origin(NamedTuple):
    """Whom a request goes to."""

    scheme: str
    host: str
    port: int | None


def default_port(scheme: str) -> int | None:
    """Return the port of a scheme that an HTTP client or server speaks."""
    return _DEFAULT_PORTS.get(scheme)


def origin_of(url: str) -> Origin:
    """Return scheme, host and port of an absolute URL; cheap for an origin seen lately."""
    start = url.find("://") + 3
    end = url.find("/", start) if start > 2 else -1
    # Up to the path there is nothing that varies from call to call, so the cache stays small.
    # More than 300 characters are no host name, and must not be kept; nor must a password.
    if 0 < end <= 300 and "@" not in url[:end]:
        return _parse_origin(url[:end])
    parts = split_url(url)
    return Origin(parts.scheme, parts.host, parts.port)


@functools.lru_cache(maxsize=256)
def _parse_origin(url: str) -> Origin:
    parts = split_url(url)
    return Origin(parts.scheme, parts.host, parts.port)


def split_url(url: str) -> UrlParts:
    """Split any text as a URL; what is not there is empty, a port that is none is None."""
    url = url if len(url) <= LONGEST_URL else url[:LONGEST_URL]
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url.removeprefix("//") if url.startswith("//") else "/" + url.lstrip("/")
    rest = rest.partition("#")[0]
    rest, _, query = rest.partition("?")
    authority, slash, path = rest.partition("/")
    host, port = split_authority(authority.rpartition("@")[2])
    scheme = scheme.lower()
    if port == "":
        return UrlParts(scheme, host, _DEFAULT_PORTS.get(scheme), slash + path, query)
    return UrlParts(scheme, host, _port(port), slash + path, query)


def _port(text: str) -> int | None:
    if not (text.isascii() and text.isdigit()) or len(text) > 5:
        return None
    port = int(text)
    return port if port <= 65535 else None
