"""What is said of the values that travel beside a query: a hash always, themselves on request.

The hash tells that the same query was asked again with the same values within one trace, by
whichever service: its key is the trace's id, and a secret that the services share where they have
one. It says nothing across traces. Without a secret, whoever sees the trace can try out a value
that is easily guessed; the values themselves cannot be read from it.
"""

from __future__ import annotations

import datetime
import decimal
import uuid
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from typing import Any

from tracekit import semconv
from tracekit.instrumentation._http import truncated

__all__ = ["hash_of", "secret_of", "values_of"]

_LONGEST_HASHED = 4096
_MOST_HASHED = 256
_LONGEST_VALUE = 1024
_MOST_VALUES = 128

_TEXTS = frozenset((str, bytes, bytearray, memoryview))
_LIBRARIES = frozenset(("psycopg", "django", "numpy", "sqlalchemy"))
# What these say of themselves is short, tells all of the value, and runs no code of the program's.
_SCALARS = frozenset(
    (
        *(int, float, bool, type(None), complex, uuid.UUID, decimal.Decimal),
        *(datetime.date, datetime.datetime, datetime.time, datetime.timedelta),
    )
)


def secret_of(given: str | None, environ: Mapping[str, str]) -> bytes:
    """Return what of a secret goes into the key: ``TRACEKIT_DB_HASH_SECRET``; nothing for none."""
    text = given or environ.get("TRACEKIT_DB_HASH_SECRET") or ""
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest() if text else b""


def hash_of(parameters: Any, within: Any, secret: bytes = b"") -> str | None:
    """Return 16 hexadecimal digits that tell the same values again within a trace.

    Args:
        parameters: A tuple, list or mapping, as the program passed it.
        within: A span of the trace; None where there is none yet, so that nothing is repeated.
        secret: As made by ``secret_of``.

    Returns:
        None for values of a kind that cannot be told apart without running the program's code,
        for more of them than are worth it, and for none.

    Cost: 1.1 µs for a few; of a long value only the ends and the length are read.
    """
    if within is None:
        return None
    kind = type(parameters)
    if kind is tuple or kind is list:
        values: Any = parameters
    elif kind is dict:
        values = parameters.values()
    else:
        return None
    if not parameters or len(parameters) > _MOST_HASHED:
        return None
    plain = True
    for value in values:
        of = type(value)
        if of not in _SCALARS:
            if of not in _TEXTS and not _is_known(of):
                return None
            if of is memoryview or (of in _TEXTS and len(value) > _LONGEST_HASHED):
                plain = False
    shown = repr(parameters) if plain else "".join(_pieces(parameters))
    key = within.get_span_context().trace_id.to_bytes(16, "big") + secret
    text = shown.encode("utf-8", "surrogatepass")
    return blake2b(text, digest_size=8, key=key).hexdigest()


def _is_known(of: type) -> bool:
    """Tell whether it is a number or text that a library made its own class of: ``Int8(5)``."""
    if of.__module__.partition(".")[0] not in _LIBRARIES:
        return False
    return issubclass(of, (int, float, str, decimal.Decimal))


def _pieces(parameters: Any) -> Iterator[str]:
    named = parameters.items() if type(parameters) is dict else enumerate(parameters)
    for name, value in named:
        yield f"{name}:"
        if type(value) in _TEXTS:
            yield f"{_ends(value)!r},"
        else:
            yield f"{value!r},"


def _ends(value: Any) -> Any:
    if type(value) is memoryview:
        value = value.cast("B")
    half = _LONGEST_HASHED // 2
    first, last = value[:half], value[half:][-half:]
    if type(value) is memoryview:
        first, last = first.tobytes(), last.tobytes()
    return len(value), first, last


def values_of(parameters: Any) -> dict[str, str]:
    """Return the values themselves as attributes, each bounded; on request only."""
    if isinstance(parameters, Mapping):
        named: Any = parameters.items()
    elif isinstance(parameters, (tuple, list)):
        named = enumerate(parameters)
    else:
        return {}
    found: dict[str, str] = {}
    for name, value in named:
        if len(found) >= _MOST_VALUES:
            break
        found[f"{semconv.DB_QUERY_PARAMETER}{name}"] = _shown(value)
    return found


def _shown(value: Any) -> str:
    if isinstance(value, str):
        text = value[: _LONGEST_VALUE + 1]
    elif isinstance(value, (bytes, bytearray, memoryview)):
        text = repr(bytes(value[:_LONGEST_VALUE]))
    else:
        text = str(value)
    return truncated(text, _LONGEST_VALUE).encode("utf-8", "replace").decode()
