"""What a call of gRPC says: which method it calls, and where its channel leads."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from tracekit import semconv
from tracekit.instrumentation._grpc import method_of
from tracekit.instrumentation._said import Said

__all__ = ["Told", "told_of"]

_HERE = "localhost"  # where a socket in the file system leads


class Told(Said):
    """What the span of a call starts with; the same object for all that are alike."""

    __slots__ = ("host", "is_watched")

    def __init__(
        self, name: str, attributes: Mapping[str, Any], host: str, is_watched: bool
    ) -> None:
        super().__init__(name, attributes)
        self.host = host
        self.is_watched = is_watched


def told_of(
    excluded: Container[str], path: str | bytes, target: str | bytes, timeout: float | None
) -> Told:
    method = method_of(path)
    text = target if isinstance(target, str) else target.decode("utf-8", "replace")
    place = _place_of(text)
    attributes: dict[str, Any] = {
        semconv.RPC_SYSTEM_NAME: "grpc",
        semconv.RPC_METHOD: method.name,
    }
    if place.address:
        attributes[semconv.SERVER_ADDRESS] = place.address
    if place.port is not None:
        attributes[semconv.SERVER_PORT] = place.port
    if timeout is not None:
        attributes[semconv.TIMEOUT_TOTAL] = timeout
    host = _HERE if text.startswith("unix") else place.address
    return Told(method.name, attributes, host, method.service not in excluded)


class _Place(NamedTuple):
    address: str
    port: int | None


def _place_of(target: str) -> _Place:
    """Return where a target leads, as it is written: nothing is looked up.

    https://github.com/grpc/grpc/blob/master/doc/naming.md
    """
    scheme, separator, rest = target.partition(":")
    if separator and scheme in ("unix", "unix-abstract"):
        return _Place(rest.removeprefix("//"), None)
    if separator and scheme in ("dns", "ipv4", "ipv6", "xds", "passthrough"):
        # dns://authority/host:port, dns:host:port; of several addresses the first.
        target = rest.rpartition("/")[2].partition(",")[0]
    try:
        parts = urlsplit(f"//{target}")
        return _Place(parts.hostname or target, parts.port)
    except ValueError:
        return _Place(target, None)
