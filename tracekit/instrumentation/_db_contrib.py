"""OpenTelemetry's instrumentations of databases, beside ours: a call of both has one span."""

from __future__ import annotations

import functools
from typing import Any

import wrapt
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.context import Context

from tracekit import semconv

__all__ = ["contrib", "contrib_speaks", "silencing", "watch_contrib"]

# They know nothing of spans above them but this one key.
_SUPPRESS = getattr(otel_context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")


class _Contrib:
    """Whether any was imported; asked at each query, so not looked for among modules then."""

    __slots__ = ("is_loaded",)

    def __init__(self) -> None:
        self.is_loaded = False

    def note(self, _module: object) -> None:
        self.is_loaded = True


contrib = _Contrib()


@functools.cache
def watch_contrib() -> None:
    """Learn of them as soon as they are imported; the first call does it."""
    for name in ("dbapi", "asyncpg", "sqlalchemy"):
        wrapt.register_post_import_hook(contrib.note, f"opentelemetry.instrumentation.{name}")


def silencing(context: Context) -> Context:
    """Return a context in which those of what is further down make no spans of their own."""
    return otel_context.set_value(_SUPPRESS, True, context)


def contrib_speaks() -> bool:
    """Tell whether one that was put on over ours has a span for this call."""
    span: Any = trace.get_current_span()
    scope = getattr(getattr(span, "instrumentation_scope", None), "name", "")
    attributes = getattr(span, "attributes", None) or {}
    return scope.startswith("opentelemetry.instrumentation.") and (
        semconv.OLD_DB_SYSTEM in attributes or semconv.DB_SYSTEM_NAME in attributes
    )
