"""httpx2, which carries httpx on: the same spans."""

from __future__ import annotations

from tracekit.instrumentation._httpx import HttpxApiInstrumentor
from tracekit.instrumentation._patch import LibraryInstrumentor

__all__ = ["Httpx2Instrumentor"]


class Httpx2Instrumentor(HttpxApiInstrumentor):
    """Watch httpx2. Options are those of :class:`HttpxApiInstrumentor`."""

    name = "httpx2"
    core = "httpcore2"
    distributions = ("httpx2",)
    supported = ">=2,<3"
    contrib = ("httpx2",)
    contrib_class = "HTTPX2ClientInstrumentor"


plugin: type[LibraryInstrumentor] = Httpx2Instrumentor
