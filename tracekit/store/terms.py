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

from tracekit.store.values import MAX_VALUE_CHARS

__all__ = ["NAME", "Pair", "TermCache", "pack_terms", "term", "wanted_terms"]

Pair = tuple[Any, Any]

NAME = "\0name"
"""The key under which span names are searched; no attribute has it."""

UNCLEAN = -1
"""In place of a term: the pair must be cleaned before it can be stored."""

_CACHED = 4096
_INT64 = 1 << 63
_PLAIN = frozenset({bool, float, type(None)})


def term(pair: Pair) -> int:
    """Return the term of a key with a text, number or truth value."""
    key, value = pair
    return zlib.crc32(str(value).encode("utf-8", "surrogatepass"), _seed(key))


def _seed(key: str) -> int:
    return zlib.crc32(f"{key}=".encode("utf-8", "surrogatepass"))


def pack_terms(terms: Iterable[int]) -> bytes:
    values = list(terms)
    return struct.pack(f"<{len(values)}I", *values)


def wanted_terms(key: str, value: Any) -> list[bytes]:
    """Return the terms that a span with the wanted attribute may have; none when any may match.

    Text stands for a number as well (``status=200``), as it comes from a command line; and
    numbers that are equal (1, 1.0, True) are one value in the sets that terms are made from.
    """
    texts = {str(value)} if isinstance(value, (str, int, float)) else set()
    number = _number(value)
    if number is not None:
        texts |= {str(number), str(float(number))}
        texts |= {str(int(number))} if number == int(number) else set()
        texts |= {str(bool(number))} if number in (0, 1) else set()
    return [pack_terms([term((key, text))]) for text in sorted(texts)]


def _number(value: Any) -> float | None:
    if isinstance(value, str):
        if value.lower() in ("true", "false"):
            return int(value.lower() == "true")
        try:
            value = int(value) if value.isdecimal() else float(value)
        except ValueError:
            return None
    if not isinstance(value, (int, float)):
        return None
    return value if -_INT64 <= value < _INT64 else None


class TermCache:
    """Terms by (key, value) as they are met; most pairs repeat from span to span.

    Concurrency: one thread at a time; its writer holds a lock.
    """

    def __init__(self) -> None:
        self._known: dict[Pair, int] = {}
        self._seeds: dict[Any, int] = {}

    def terms(self, pairs: set[Pair]) -> set[int]:
        """Return the terms of all pairs, with ``UNCLEAN`` among them if any needs cleaning.

        Cost: 0.3 µs for each new pair, 0.1 for a known one.
        """
        known, seeds = self._known, self._seeds
        if len(known) > _CACHED:
            known.clear()
            seeds.clear()
        for pair in pairs.difference(known):
            key, value = pair
            seed = seeds.get(key)
            if seed is None:
                if type(key) is not str or len(key) > 1024:
                    known[pair] = UNCLEAN
                    continue
                seed = seeds[key] = _seed(key)
            kind = type(value)
            if kind is str and len(value) <= MAX_VALUE_CHARS:
                try:
                    known[pair] = zlib.crc32(value.encode(), seed)
                except UnicodeEncodeError:  # a lone surrogate
                    known[pair] = UNCLEAN
            elif kind in _PLAIN or (kind is int and -_INT64 <= value < _INT64):
                known[pair] = zlib.crc32(str(value).encode(), seed)
            else:
                known[pair] = UNCLEAN
        return set(map(known.__getitem__, pairs))
