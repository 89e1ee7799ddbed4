"""MessagePack written to bytes: the few types that Datadog's payloads need.

Source: https://github.com/msgpack/msgpack/blob/master/spec.md
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack as _struct
from typing import Any

__all__ = ["array_header", "map_header", "pack"]


def pack(value: Any) -> bytes:
    """Return one value.

    Args:
        value: Built of dict, list, exact str, bytes, bool, int (signed or unsigned 64 bits),
            float and None.

    Raises:
        TypeError: Any other type is in it.
        OverflowError: An int that 64 bits do not hold.
    """
    out: list[bytes] = []
    _write(out, value)
    return b"".join(out)


def _write(out: list[bytes], value: Any) -> None:
    kind = type(value)
    if kind is str:
        utf8 = value.encode()
        out += (_text_header(len(utf8)), utf8)
    elif kind is int:
        out.append(_integer(value))
    elif kind is float:
        out.append(_struct(">Bd", 0xCB, value))
    elif kind is dict:
        out.append(map_header(len(value)))
        for key, item in value.items():
            _write(out, key)
            _write(out, item)
    elif kind is list:
        out.append(array_header(len(value)))
        for item in value:
            _write(out, item)
    else:
        out.append(_rare(value))


def _rare(value: Any) -> bytes:
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if type(value) is bytes:
        return _sized(len(value), ((0x100, ">BB", 0xC4), *_wide(0xC5))) + value
    raise TypeError(f"{type(value).__name__} has no form here")


def array_header(size: int) -> bytes:
    """Return what stands before the items of an array."""
    return _header(size, 0x90, 0xDC)


def map_header(size: int) -> bytes:
    """Return what stands before the keys and values of a map."""
    return _header(size, 0x80, 0xDE)


def _header(size: int, short: int, wide: int) -> bytes:
    return bytes((short | size,)) if size < 16 else _sized(size, _wide(wide))


def _text_header(size: int) -> bytes:
    if size < 32:
        return bytes((0xA0 | size,))
    return _sized(size, ((0x100, ">BB", 0xD9), *_wide(0xDA)))


_Form = tuple[int, str, int]
"""Sizes below the first number are written in this layout with this tag."""


def _wide(tag: int) -> tuple[_Form, _Form]:
    """Return the forms with two and with four bytes; their tags follow each other."""
    return (0x1_0000, ">BH", tag), (0x1_0000_0000, ">BI", tag + 1)


def _sized(size: int, forms: Sequence[_Form]) -> bytes:
    for limit, layout, tag in forms:
        if size < limit:
            return _struct(layout, tag, size)
    raise OverflowError("more than 2**32 bytes or items")


_UNSIGNED: tuple[_Form, ...] = (
    (0x100, ">BB", 0xCC),
    (0x1_0000, ">BH", 0xCD),
    (0x1_0000_0000, ">BI", 0xCE),
    (0x1_0000_0000_0000_0000, ">BQ", 0xCF),
)
_SIGNED: tuple[_Form, ...] = (
    (0x80, ">Bb", 0xD0),
    (0x8000, ">Bh", 0xD1),
    (0x8000_0000, ">Bi", 0xD2),
    (0x8000_0000_0000_0000, ">Bq", 0xD3),
)


def _integer(value: int) -> bytes:
    if 0 <= value < 0x80:
        return bytes((value,))
    if -0x20 <= value < 0:
        return _struct(">b", value)
    forms = _UNSIGNED if value >= 0 else _SIGNED
    for limit, layout, tag in forms:
        # Two's complement reaches one further below zero.
        if value < limit and value >= -limit:
            return _struct(layout, tag, value)
    raise OverflowError("an integer of more than 64 bits")
