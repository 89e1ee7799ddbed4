"""httpx: one CLIENT span for each request through a transport, sync and async."""

from __future__ import annotations

from tracekit.instrumentation._httpx import HttpxApiInstrumentor
from tracekit.instrumentation._patch import LibraryInstrumentor

__all__ = ["HttpxInstrumentor"]


class HttpxInstrumentor(HttpxApiInstrumentor):
    """Watch httpx. Options are those of :class:`HttpxApiInstrumentor`."""

    name = "httpx"
    core = "httpcore"
    distributions = ("httpx",)
    supported = ">=0.23,<1"
    contrib = ("httpx",)
    contrib_class = "HTTPXClientInstrumentor"


plugin: type[LibraryInstrumentor] = HttpxInstrumentor
