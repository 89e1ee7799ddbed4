"""Callables that take the current context along: to another thread, or by value to another process.

Only the OpenTelemetry Context travels. The program's own ContextVars behave as they would
without us: a thread that starts with none of them must still start with none.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    get_current_span,
    set_span_in_context,
)

from tracekit._otel_context import attach, current_context, detach

__all__ = [
    "MACHINERY",
    "RemoteCall",
    "call_within",
    "carried",
    "current_headers",
    "is_machinery",
    "is_suppressed",
    "remote",
    "threads_inherit",
]

_logger = logging.getLogger(__name__)

# The API's private name, and what opentelemetry.instrumentation.utils sets beside it.
_SUPPRESS_PLAIN = "suppress_instrumentation"
_SUPPRESS = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", _SUPPRESS_PLAIN)

MACHINERY = (
    "concurrent.futures.",
    "grpc._cython.",  # serves all calls of a channel, begun by whoever made the first
    "multiprocessing.",
    "opentelemetry.",
    "tracekit.",
)
"""How the modules begin of pools, queues and exporters: they start their threads and processes in
the midst of whatever was first to need them, and keep them for everybody. Those belong to no
trace."""


def call_within(
    context: Context, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Call a function with a context that was current elsewhere.

    With ``partial`` in front this is what a thread is handed: an object of a class, whose
    ``__call__`` is looked up and bound, takes half as long again.
    """
    token = attach(context)
    try:
        return function(*args, **kwargs)
    finally:
        try:
            detach(token)
        except (ValueError, RuntimeError):  # left in another context than it was entered in
            pass
        # A future keeps the traceback of its exception, that keeps this frame: not the span.
        del context, function, token


class RemoteCall:
    """A function that runs in another process, below the span that was current in this one.

    A forked child finds the context in its memory. Anywhere else it arrives as the headers
    of the configured propagators, written by whichever thread does the pickling.
    """

    __slots__ = ("context", "function")

    def __init__(self, function: Callable[..., Any], context: Context) -> None:
        self.function = function
        self.context = _seen_from_another_process(context)

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return call_within(self.context, self.function, *args, **kwargs)
        finally:
            del self  # as in call_within()

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (self.function, _headers(self.context))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.function!r})"


def carried(function: Callable[..., Any]) -> Callable[..., Any]:
    """Bind a function to the current context, for a thread of this process.

    Cost: nothing is wrapped where no context is current, which is what a thread starts with.
    """
    context = current_context()
    if context or threads_inherit():
        return partial(call_within, context, function)
    return function


def remote(function: Callable[..., Any]) -> RemoteCall:
    """Bind a function to the current context, for another process.

    It is bound to an empty context too: a forked worker was born inside somebody's span.
    """
    return RemoteCall(function, current_context())


def current_headers() -> dict[str, str]:
    """Return what the configured propagators say of the current context; nothing if they fail."""
    return _headers(current_context())


def is_machinery(runner: object) -> bool:
    """Say whether a thread or process serves a pool, a queue or an exporter, not the program."""
    # What it will run: its target, a `run` set on the object itself, or that of its class.
    code = getattr(runner, "_target", None) or vars(runner).get("run") or type(runner)
    module = getattr(code, "__module__", None)
    return isinstance(module, str) and module.startswith(MACHINERY)


def is_suppressed(context: Context | None = None) -> bool:
    """Say whether instrumentation is switched off, by us or by anybody; here, or in `context`."""
    if context is None:
        context = current_context()
    return bool(context.get(_SUPPRESS) or context.get(_SUPPRESS_PLAIN))


def threads_inherit() -> bool:
    """Say whether Python itself copies all ContextVars into new threads.

    Source: https://docs.python.org/3.14/using/cmdline.html#cmdoption-X
    """
    return bool(getattr(sys.flags, "thread_inherit_context", 0))


def _seen_from_another_process(context: Context) -> Context:
    """Replace the current span by its address: the span itself is ended where it was started."""
    span_context = get_current_span(context).get_span_context()
    if not span_context.is_valid:
        return context
    address = SpanContext(
        span_context.trace_id,
        span_context.span_id,
        is_remote=True,
        trace_flags=span_context.trace_flags,
        trace_state=span_context.trace_state,
    )
    return set_span_in_context(NonRecordingSpan(address), context)


def _received(function: Callable[..., Any], headers: Mapping[str, str]) -> RemoteCall:
    return RemoteCall(function, _context_of(headers))


def _headers(context: Context) -> dict[str, str]:
    headers: dict[str, str] = {}
    try:
        # Importing it reads OTEL_PROPAGATORS and scans entry points.
        from opentelemetry import propagate

        propagate.inject(headers, context)
    except Exception:
        _logger.debug("the current context could not be written as headers", exc_info=True)
        return {}
    return headers


def _context_of(headers: Mapping[str, str]) -> Context:
    try:
        from opentelemetry import propagate

        return propagate.extract(headers, Context())
    except Exception:
        _logger.debug("the headers of another process could not be read", exc_info=True)
        return Context()
