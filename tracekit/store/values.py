"""Attribute values as JSON that every reader accepts, and back to exactly what they were.

JSON has no bytes, NaN, infinity or 128-bit integers. What it lacks is written as an object
with one key that begins with ``$``; a mapping of the program's own with such a key is wrapped
in ``{"$map": ...}``, so the two are never confused. Text is kept in ASCII escapes: a lone
surrogate is then valid storage.
"""

from __future__ import annotations

import base64
import binascii
import json
import json.encoder
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from typing import Any

__all__ = [
    "MAX_KEY_CHARS",
    "MAX_VALUE_CHARS",
    "clean",
    "clean_attributes",
    "encode",
    "restore",
    "restore_attributes",
]

MAX_VALUE_CHARS = 256 * 1024
MAX_KEY_CHARS = 1024
MAX_ITEMS = 10_000
_MAX_DEPTH = 32
_INT64 = 1 << 63


def _refuse(value: Any) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")


def _make_encode() -> Callable[[Any], str]:
    """Return a function that writes JSON in ASCII, and refuses what is not JSON.

    ``JSONEncoder.encode`` makes its C encoder anew for each call, which costs as much as one
    span's attributes; it is made once here, where the interpreter has it.
    """
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return json.JSONEncoder(check_circular=False, allow_nan=False, separators=(",", ":")).encode
    quote = json.encoder.encode_basestring_ascii
    parts = make(None, _refuse, quote, None, ":", ",", False, False, False)
    return lambda value: "".join(parts(value, 0))


encode = _make_encode()
"""JSON in ASCII; NaN, bytes and their like raise, so that ``clean`` gets its turn."""


def clean_attributes(
    attributes: Mapping[str, Any] | None, max_chars: int = MAX_VALUE_CHARS
) -> dict[str, Any]:
    """Return attributes whose values ``encode`` accepts; at most 10,000 of them."""
    if not attributes:
        return {}
    pairs = islice(attributes.items(), MAX_ITEMS)
    return {_key(key): clean(value, max_chars) for key, value in pairs}


def clean(value: Any, max_chars: int = MAX_VALUE_CHARS) -> Any:
    """Return a value that ``encode`` accepts and that ``restore`` turns back.

    Text longer than ``max_chars``, nesting deeper than 32 and more than 10,000 items in all
    are cut, with a mark that says so.
    """
    return _Cleaning(max_chars).clean(value, 0)


class _Cleaning:
    """One value on its way: how much of it may still come."""

    def __init__(self, max_chars: int) -> None:
        self._max_chars = max_chars
        self._room = MAX_ITEMS

    def clean(self, value: Any, depth: int) -> Any:
        self._room -= 1
        try:
            return self._clean(value, depth)
        except Exception as error:  # the value's own methods
            return f"<{type(error).__name__} while reading {type(value).__name__}>"

    def _clean(self, value: Any, depth: int) -> Any:
        if isinstance(value, str):
            return _cut(str.__str__(value), self._max_chars)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, int):
            return _integer(int.__int__(value), self._max_chars)
        if isinstance(value, float):
            number = float.__float__(value)
            return number if number - number == 0 else {"$float": repr(number)}
        if isinstance(value, (bytes, bytearray)):
            return _bytes(bytes(value), self._max_chars)
        if depth >= _MAX_DEPTH or self._room <= 0:
            return "…[cut]"
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, Sequence):
            return self._sequence(value, depth)
        return _cut(str.__str__(str(value)), self._max_chars)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Any:
        items: dict[str, Any] = {}
        for key, item in value.items():
            if self._room <= 0:
                items["…"] = "…[cut]"
                break
            items[_key(key)] = self.clean(item, depth + 1)
        return {"$map": items} if any(key.startswith("$") for key in items) else items

    def _sequence(self, value: Sequence[Any], depth: int) -> list[Any]:
        items: list[Any] = []
        for item in value:
            if self._room <= 0:
                items.append("…[cut]")
                break
            items.append(self.clean(item, depth + 1))
        return items


def _key(key: Any) -> str:
    try:
        return _cut(str.__str__(key if isinstance(key, str) else str(key)), MAX_KEY_CHARS)
    except Exception:
        return f"<{type(key).__name__}>"


def _cut(text: str, max_chars: int) -> str:
    return text if len(text) <= max_chars else f"{text[:max_chars]}…[cut, {len(text)} characters]"


def _integer(value: int, max_chars: int) -> int | str:
    if -_INT64 <= value < _INT64:
        return value
    # Decimal text is refused by Python above a few thousand digits, for its quadratic cost.
    return _cut(str(value) if value.bit_length() < 4096 else hex(value), max_chars)


def _bytes(value: bytes, max_chars: int) -> dict[str, Any]:
    text = base64.b64encode(value[:max_chars]).decode("ascii")
    return {"$bytes": text, "$cut": len(value)} if len(value) > max_chars else {"$bytes": text}


def restore_attributes(attributes: dict[str, Any]) -> dict[str, Any]:
    """Undo ``clean_attributes`` in place; sequences come back as tuples."""
    for key, value in attributes.items():
        if type(value) is list or type(value) is dict:
            attributes[key] = restore(value)
    return attributes


def restore(value: Any) -> Any:
    """Undo ``clean``. A cut value stays cut, and keeps its mark."""
    if type(value) is list:
        return tuple([restore(item) for item in value])
    if type(value) is not dict:
        return value
    if "$map" in value:
        return {key: restore(item) for key, item in value["$map"].items()}
    if "$float" in value:
        return float(value["$float"])
    if "$bytes" in value:
        return _restore_bytes(value)
    return {key: restore(item) for key, item in value.items()}


def _restore_bytes(value: dict[str, Any]) -> bytes:
    try:
        data = base64.b64decode(value["$bytes"])
    except binascii.Error:
        return b""
    return data + f"...[cut, {value['$cut']} bytes]".encode() if "$cut" in value else data
