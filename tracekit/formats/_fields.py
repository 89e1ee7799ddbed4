"""Fields of a JSON object from somebody else, read without surprises."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Mapping

__all__ = ["Fields", "bytes_in", "double_in", "integer_in", "micros"]

_SNAKE = re.compile(r"_([a-z])")
_HEX = re.compile(r"[0-9a-fA-F]+").fullmatch


class Fields:
    """An object of a document, read by lowerCamelCase names.

    A field that is missing, or makes no sense, has the empty value of the type that is asked for.
    """

    __slots__ = ("values",)

    def __init__(self, values: object) -> None:
        pairs = values.items() if isinstance(values, Mapping) else ()
        self.values = {_SNAKE.sub(lambda m: m[1].upper(), str(key)): item for key, item in pairs}

    def object(self, name: str) -> Fields:
        return Fields(self.values.get(name))

    def objects(self, *names: str) -> list[Fields]:
        for name in names:
            if isinstance(found := self.values.get(name), list):
                # A writer of objects writes null for one that it could not.
                return [Fields(item) for item in found if item is not None]
        return []

    def text(self, name: str) -> str:
        found = self.values.get(name)
        return found if isinstance(found, str) else ""

    def number(self, name: str) -> int:
        return integer_in(self.values.get(name)) or 0

    def choice(self, name: str, names: Mapping[str, int]) -> int:
        found = self.values.get(name)
        return names.get(found, 0) if isinstance(found, str) else self.number(name)

    def identifier(self, name: str, size: int) -> int:
        """Return an id of ``size`` bytes, in hexadecimal or base64; 0, which is none, otherwise."""
        found = self.text(name)
        try:
            is_hex = len(found) == 2 * size
            raw = bytes.fromhex(found) if is_hex else b64decode(found, validate=True)
        except ValueError:
            return 0
        return int.from_bytes(raw, "big") if len(raw) == size else 0

    def short_identifier(self, name: str, size: int) -> int:
        """Return an id in hexadecimal of which leading zeros may be missing; 0 for none."""
        found = self.text(name)
        return int(found, 16) if _HEX(found) and len(found) <= 2 * size else 0


def integer_in(value: object) -> int | None:
    """Return a number in 64 bits, signed or not, that JSON holds as a number or as its digits."""
    if isinstance(value, str) and len(value) > 20:
        return None
    try:
        number = int(value) if isinstance(value, (int, str, float)) else None
    except (ValueError, OverflowError):
        return None
    return number if number is not None and -(2**63) <= number < 2**64 else None


def double_in(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, (int, float, str)) else None
    except (ValueError, OverflowError):
        return None


def bytes_in(value: object) -> bytes | None:
    """Return the bytes of a text in base64."""
    try:
        return b64decode(value) if isinstance(value, str) else None
    except ValueError:
        return None


def micros(value: object) -> int:
    """Return microseconds as nanoseconds; 0 for what is no number or beyond 64 bits of those."""
    found = integer_in(value) or 0
    return found * 1000 if abs(found) < 2**53 else 0
