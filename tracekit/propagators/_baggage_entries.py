"""Puts many baggage entries into a Context at once, and bounds what is carried of them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from opentelemetry import baggage
from opentelemetry.context import Context, get_current

from tracekit._otel_baggage import BAGGAGE_KEY

__all__ = [
    "MAX_BYTES",
    "MAX_ENTRIES",
    "MAX_ENTRY_BYTES",
    "bounded",
    "entry_values",
    "is_name",
    "is_token",
    "text_of",
    "texts",
    "with_entries",
]

# W3C demands at least 64 entries and 8192 bytes (https://www.w3.org/TR/baggage/#limits); the
# other two numbers are those of opentelemetry-api.
MAX_ENTRIES = 180
MAX_ENTRY_BYTES = 4096
MAX_BYTES = 8192

# https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
is_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+").fullmatch


def with_entries(context: Context, entries: Mapping[str, object]) -> Context:
    """Return the context with more baggage; an entry replaces an older one of its name."""
    return Context({**context, BAGGAGE_KEY: {**baggage.get_all(context), **entries}})


def entry_values(context: Context | None) -> Iterable[tuple[object, object]]:
    """List the baggage of a context, whatever types a program put there."""
    if BAGGAGE_KEY not in (get_current() if context is None else context):
        return ()  # as in most requests; asking for an empty mapping takes 0.5 µs
    return baggage.get_all(context).items()


def texts(context: Context | None) -> Iterator[tuple[str, str]]:
    """Yield the entries that a header can name and whose value has a text of bounded length."""
    for key, value in entry_values(context):
        text = text_of(value)
        if is_name(key) and text is not None and len(text) <= MAX_ENTRY_BYTES:
            yield str(key), text


def is_name(key: object) -> bool:
    """Tell whether a header can name an entry so."""
    return isinstance(key, str) and len(key) <= MAX_ENTRY_BYTES and is_token(key) is not None


def text_of(value: object) -> str | None:
    """Return the text of a value that a program put into its baggage; None if it has none."""
    try:
        return str(value)
    except Exception:  # whose __str__ it is we do not know
        return None


def bounded(pairs: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Yield encoded pairs within the limits; one that does not fit is left out."""
    # A pair costs its equals sign and the comma behind it; behind the last there is none.
    total, count = -1, 0
    for key, value in pairs:
        size = len(key) + len(value) + 1
        if size > MAX_ENTRY_BYTES or total + size + 1 > MAX_BYTES:
            continue
        if count == MAX_ENTRIES:
            return
        total += size + 1
        count += 1
        yield key, value
