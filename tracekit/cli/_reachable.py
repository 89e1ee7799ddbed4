"""Whether an exporter can deliver: asked of the exporter itself, else tried from outside."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

__all__ = ["Reach", "reach"]

TIMEOUT_S = 2.0
_PORTS = {"http": 80, "https": 443, "grpc": 4317}


class Reach:
    """Where an exporter sends to, and what stands in the way: nothing when ``hindrance`` is empty.

    ``checked`` is False for destinations that cannot be tried, such as the console.
    """

    def __init__(self, destination: str = "", hindrance: str = "", checked: bool = True) -> None:
        self.destination, self.hindrance, self.checked = destination, hindrance, checked


def reach(exporter: Any) -> Reach:
    """Try an exporter's destination, for two seconds at most, and send no span.

    An exporter may offer ``probe()``, which returns None or what is wrong. Otherwise an
    attribute that is a URL is connected to, and one that is a path is looked at.
    """
    path, url = _path(exporter), _url(exporter)
    destination = url or (str(path) if path else "")
    probe = getattr(exporter, "probe", None)
    if callable(probe):
        return Reach(destination, _asked(probe))
    if url:
        return Reach(destination, _connect(url))
    if path:
        return Reach(destination, _unwritable(path))
    return Reach(checked=False)


def _asked(probe: Any) -> str:
    try:
        return str(probe() or "")
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _attribute(exporter: Any, *names: str) -> Any:
    values = (getattr(exporter, name, None) for name in names)
    return next((value for value in values if isinstance(value, (str, Path))), None)


def _url(exporter: Any) -> str:
    found = _attribute(exporter, "endpoint", "_endpoint", "url")
    return _without_secrets(found) if isinstance(found, str) else ""


def _without_secrets(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


def _path(exporter: Any) -> Path | None:
    found = _attribute(exporter, "path") or _attribute(getattr(exporter, "_writer", None), "path")
    return Path(found) if found and str(found) not in ("-", "stdout") else None


def _connect(url: str) -> str:
    parts = urlsplit(url if "://" in url else f"grpc://{url}")
    try:
        port = parts.port or _PORTS.get(parts.scheme, 4318)
        socket.create_connection((parts.hostname or "localhost", port), TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        reason = "no answer within 2 s" if isinstance(error, TimeoutError) else str(error)
        return f"cannot connect: {reason}"
    return ""


def _unwritable(path: Path) -> str:
    if path.is_dir():
        return "is a folder"
    if path.exists():
        return "" if os.access(path, os.W_OK) else "may not be written"
    folder = next((part for part in path.parents if part.exists()), path.parent)
    if not folder.is_dir():
        return f"{folder} is not a folder"
    return "" if os.access(folder, os.W_OK | os.X_OK) else f"{folder} may not be written"
