"""Search terms: four bytes for a name or an attribute, so that a search reads little.

An index on key and value costs 20 µs a span, because its rows land all over the file. Instead
each segment carries the terms of its spans one after the other; a search scans those with
``instr`` and looks into the segments that match. A term that is there by chance (two texts
with one CRC) costs a look, never a wrong answer.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable
from typing import Any

from tracekit.store.values import MAX_KEY_CHARS, MAX_VALUE_CHARS

__all__ = ["NAME", "Pair", "TermCache", "pack_terms", "term", "wanted_terms"]

Pair = tuple[Any, Any]

NAME = "\0name"
"""The key under which span names are searched; no attribute has it."""

UNCLEAN = -1
"""In place of a term: the pair must be cleaned before it can be stored."""

_CACHED = 4096
_NO_TERM = frozenset({"nan", "inf", "-inf"})
_INT64 = 1 << 63
_NUMBERS = frozenset({bool, float, int})


def term(pair: Pair) -> int:
    """Return the term of a key with a text, number, truth value or None.

    Text goes by CRC, for its hash differs from process to process. Numbers go by their hash,
    which does not, and which is the same for those that are equal (1, 1.0, True).
    Source: https://docs.python.org/3/library/stdtypes.html#hashing-of-numeric-types
    """
    key, value = pair
    seed = _seed(key)
    if isinstance(value, str):
        return zlib.crc32(value.encode("utf-8", "surrogatepass"), seed)
    return seed if value is None else (hash(value) ^ seed) & 0xFFFFFFFF


def _seed(key: str) -> int:
    return zlib.crc32(f"{key}=".encode("utf-8", "surrogatepass"))


def pack_terms(terms: Iterable[int]) -> bytes:
    values = list(terms)
    return struct.pack(f"<{len(values)}I", *values)


def wanted_terms(key: str, value: Any) -> list[bytes]:
    """Return the terms that a span with the wanted attribute may have; none when any may match.

    Text stands for a number as well (``status=200``), as it comes from a command line. An
    integer beyond 64 bits is stored as text.
    """
    if not isinstance(value, (str, int, float)) or repr(value) in _NO_TERM:
        return []
    if isinstance(value, int) and not -_INT64 <= value < _INT64:
        value = str(value)
    candidates = {value, _number(value)} - {None}
    return [pack_terms([term((key, candidate))]) for candidate in candidates]


def _number(value: str | float) -> float | None:
    if not isinstance(value, str):
        return None
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return int(value) if value.isdecimal() else float(value)
    except ValueError:
        return None


class TermCache(dict[Pair, int]):
    """Terms as they are met, ``UNCLEAN`` for what cannot be stored as it is.

    Most pairs come again from span to span; those of a span are looked up by
    ``map(cache.__getitem__, attributes.items())``, in which nothing but a new one runs Python.

    Concurrency: one thread at a time; its writer holds a lock.
    Cost: 0.1 µs for a pair that is known, 0.4 for a new one.
    """

    def __init__(self) -> None:
        self._seeds: dict[Any, int | None] = {}

    def bound(self) -> None:
        """Forget everything, if it has become much."""
        if len(self) > _CACHED:
            self.clear()
            self._seeds.clear()

    def __missing__(self, pair: Pair) -> int:
        # ``term`` once more, without its calls: this is on the path of many spans.
        key, value = pair
        seed = self._seeds.get(key, UNCLEAN)
        if seed == UNCLEAN:
            usable = type(key) is str and len(key) <= MAX_KEY_CHARS
            seed = self._seeds[key] = _seed(key) if usable else None
        kind = type(value)
        code = UNCLEAN
        if seed is None:
            pass
        elif kind is str:
            if len(value) <= MAX_VALUE_CHARS:
                try:
                    code = zlib.crc32(value.encode(), seed)
                except UnicodeEncodeError:  # a lone surrogate
                    pass
        elif kind in _NUMBERS:
            if kind is not int or -_INT64 <= value < _INT64:
                code = (hash(value) ^ seed) & 0xFFFFFFFF
        elif value is None:
            code = seed
        self[pair] = code
        return code
