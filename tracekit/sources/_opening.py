"""A source by what users write: its name, a colon, and the address."""

from __future__ import annotations

from tracekit import discovery
from tracekit.sources._server import Server
from tracekit.sources._source import TraceSource

__all__ = ["source_names", "source_of"]


def source_names() -> list[str]:
    """Return the names of the sources that can be asked."""
    return discovery.own_names("source")


def source_of(given: str, where: str = "") -> TraceSource:
    """Return the source of ``jaeger:http://localhost:16686``. Asks nothing yet.

    Raises:
        UnknownNameError: There is no source of that name.
        SourceError: The address is none.
    """
    name, _, url = given.partition(":")
    made: type[TraceSource] = discovery.find("source", name, where)
    return made(Server(url))
