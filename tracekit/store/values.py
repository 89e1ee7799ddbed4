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
from typing import Any

__all__ = [
    "MAX_VALUE_CHARS",
    "clean",
    "clean_attributes",
    "encode",
    "restore",
    "restore_attributes",
]

MAX_VALUE_CHARS = 256 * 1024
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
    """Return attributes whose values ``encode`` accepts."""
    if not attributes:
        return {}
    return {_key(key): clean(value, max_chars) for key, value in attributes.items()}


def clean(value: Any, max_chars: int = MAX_VALUE_CHARS, depth: int = 0) -> Any:
    """Return a value that ``encode`` accepts and that ``restore`` turns back.

    Longer text than ``max_chars`` and deeper nesting than 32 are cut, with a mark that says so.
    """
    if isinstance(value, str):
        return _cut(value, max_chars)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return int(value) if -_INT64 <= value < _INT64 else _big(value, max_chars)
    if isinstance(value, float):
        return float(value) if value - value == 0 else {"$float": repr(float(value))}
    if isinstance(value, (bytes, bytearray)):
        return _bytes(value, max_chars)
    if depth >= _MAX_DEPTH:
        return "…[nested too deep]"
    return _clean_container(value, max_chars, depth)


def _clean_container(value: Any, max_chars: int, depth: int) -> Any:
    if isinstance(value, Mapping):
        items = {_key(key): clean(item, max_chars, depth + 1) for key, item in value.items()}
        return {"$map": items} if any(key.startswith("$") for key in items) else items
    if isinstance(value, Sequence):
        return [clean(item, max_chars, depth + 1) for item in value]
    return _cut(_text(value), max_chars)


def _key(key: Any) -> str:
    return _cut(key if isinstance(key, str) else _text(key), 1024)


def _cut(text: str, max_chars: int) -> str:
    if len(text) <= max_chars:
        return str(text)
    return f"{text[:max_chars]}…[cut, {len(text)} characters]"


def _big(value: int, max_chars: int) -> str:
    # Decimal text is refused by Python above a few thousand digits, for its quadratic cost.
    return _cut(str(value) if value.bit_length() < 4096 else hex(value), max_chars)


def _bytes(value: bytes | bytearray, max_chars: int) -> Any:
    if len(value) > max_chars:
        head = base64.b64encode(value[:max_chars]).decode("ascii")
        return {"$bytes": head, "$cut": len(value)}
    return {"$bytes": base64.b64encode(value).decode("ascii")}


def _text(value: object) -> str:
    try:
        return str(value)
    except Exception:
        return f"<{type(value).__name__}>"


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
