"""In-process distributed tracing: make spans, carry them on, see them on your own machine."""

from tracekit._version import __version__
from tracekit.configure import (
    configure,
    flush,
    instrument,
    set_sampling,
    shutdown,
    stats,
    uninstrument,
)
from tracekit.core.face import (
    attributes,
    continue_trace,
    current_span,
    extract,
    get_tracer,
    inject,
    keep,
    span,
)
from tracekit.core.traced import traced

__all__ = [
    "__version__",
    "attributes",
    "configure",
    "continue_trace",
    "current_span",
    "extract",
    "flush",
    "get_tracer",
    "inject",
    "instrument",
    "keep",
    "set_sampling",
    "shutdown",
    "span",
    "stats",
    "traced",
    "uninstrument",
]
