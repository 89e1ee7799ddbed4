"""Who asked and whom they meant to reach: Host, Forwarded and X-Forwarded-* headers."""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

__all__ = ["NOT_FORWARDED", "Forwarded", "forwarded", "split_authority"]

# A host name has at most 253 characters (RFC 1035); a longer one is no host name.
_LONGEST_AUTHORITY = 300
# The first element is all that is read; proxies append theirs behind it.
_LONGEST_HEADER = 1024
_SCHEMES = frozenset(("http", "https", "ws", "wss"))
# https://www.rfc-editor.org/rfc/rfc7239#section-4: token "=" (token / quoted-string)
_PAIR = re.compile(r'[ \t]*([A-Za-z]+)=(?:"([^"\\]*)"|([^\s;,"]+))[ \t]*')


class Forwarded(NamedTuple):
    """What the first proxy says of the original request; None where it says nothing."""

    client: str | None
    host: str | None
    scheme: str | None


NOT_FORWARDED = Forwarded(None, None, None)


def forwarded(
    standard: str | None, x_for: str | None, x_host: str | None, x_proto: str | None
) -> Forwarded:
    """Read the headers of the proxies in between; ``Forwarded`` precedes its ancestors.

    Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/#http-server-span
    """
    said = _first_element(standard) if standard else {}
    client, _ = split_authority(said.get("for") or _first(x_for))
    scheme = (said.get("proto") or _first(x_proto)).lower()
    return Forwarded(
        client,
        said.get("host") or _first(x_host) or None,
        scheme if scheme in _SCHEMES else None,
    )


def split_authority(authority: str) -> tuple[str | None, int | None]:
    """Return the host and the port of ``example.org:8080`` or ``[::1]:8080``; None if not given."""
    if not authority or len(authority) > _LONGEST_AUTHORITY:
        return None, None
    return _split(authority)


# A server has few names; what a hostile client makes up pushes itself out again.
@functools.lru_cache(maxsize=128)
def _split(authority: str) -> tuple[str | None, int | None]:
    if authority[0] == "[":
        host, _, rest = authority[1:].partition("]")
        return host or None, _port(rest[1:])
    host, _, port = authority.partition(":")
    if ":" in port:  # an IPv6 address without its brackets
        return authority, None
    return host or None, _port(port) if port else None


def _port(text: str) -> int | None:
    if not text.isdecimal() or not text.isascii() or len(text) > 5:
        return None
    port = int(text)
    return port if 0 < port < 65536 else None


def _first(header: str | None) -> str:
    return header[:_LONGEST_HEADER].partition(",")[0].strip() if header else ""


def _first_element(header: str) -> dict[str, str]:
    said: dict[str, str] = {}
    header = header[:_LONGEST_HEADER]
    position = 0
    while match := _PAIR.match(header, position):
        said.setdefault(match[1].lower(), match[2] if match[3] is None else match[3])
        position = match.end() + 1
        if header[match.end() : position] != ";":
            break
    return said
