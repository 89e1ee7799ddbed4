"""Baggage that travels in one header per entry, behind a prefix."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote

from opentelemetry.context import Context

from tracekit.propagators._baggage_entries import bounded, is_token, texts, with_entries
from tracekit.propagators._headers import Headers

__all__ = ["read_prefixed", "written_prefixed"]


def written_prefixed(prefix: str, context: Context | None) -> Iterator[tuple[str, str]]:
    """Yield a header for each baggage entry, its value percent-encoded."""
    encoded = ((key, quote(text, errors="replace")) for key, text in texts(context))
    for key, value in bounded(encoded):
        yield prefix + key, value


def read_prefixed(prefix: str, headers: Headers[Any], context: Context) -> Context:
    """Return the context with the baggage of the headers that have the prefix."""
    found = ((key, value) for key, value in headers.named(prefix) if is_token(key))
    entries = {key: unquote(value).strip() for key, value in bounded(found)}
    return with_entries(context, entries) if entries else context
