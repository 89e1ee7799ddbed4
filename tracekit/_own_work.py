"""Keeping what tracekit itself does out of the program's traces and context variables."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from opentelemetry import context as context_api

__all__ = ["in_empty_context", "load_context_binding", "suppressed", "suppressed_context"]

_SUPPRESS = "suppress_instrumentation"

# OpenTelemetry's own instrumentations look for keys that have no public name.
_KEYS = ("_SUPPRESS_INSTRUMENTATION_KEY", "_SUPPRESS_HTTP_INSTRUMENTATION_KEY")


def suppressed_context(context: context_api.Context | None = None) -> context_api.Context:
    """Return a context, empty or as given, in which nobody's instrumentation traces anything."""
    context = context_api.Context() if context is None else context
    for key in (_SUPPRESS, *(getattr(context_api, name, "") for name in _KEYS)):
        context = context_api.set_value(key, True, context) if key else context
    return context


@contextmanager
def suppressed() -> Iterator[None]:
    """Keep everybody's instrumentation from tracing what happens in the block."""
    if context_api.get_value(_SUPPRESS):
        yield
        return
    token = context_api.attach(suppressed_context(context_api.get_current()))
    try:
        yield
    finally:
        context_api.detach(token)


def load_context_binding() -> None:
    """Import what ``in_empty_context`` uses, in the thread that sets tracing up.

    It imports asyncio. Left to the thread that ends the first span, that import could be under
    way while another thread forks, and the child would wait for its lock for ever; and an
    interpreter that already exits lets no thread import it.
    """
    import contextvars_extras.context_management  # noqa: F401


def in_empty_context(work: Callable[..., None]) -> Callable[..., None]:
    """Return a thread's work such that none of the program's context variables is set in it.

    A thread starts in whoever's context ended the first span, where threads inherit one
    (Python 3.14, or a library that makes them): the request's variables would live, and be
    seen by exporters, as long as the process.
    """
    from contextvars_extras.context_management import bind_to_empty_context

    bound: Callable[..., None] = bind_to_empty_context(work)
    return bound
