"""Protobuf's wire format: what every message is made of.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

__all__ = ["VARINTS", "VARINTS_END", "delimited", "length_of", "varint"]


def varint(number: int) -> bytes:
    if number < 0x80:
        return bytes((number,))
    groups = bytearray()
    while number > 0x7F:
        groups.append(number & 0x7F | 0x80)
        number >>= 7
    groups.append(number)
    return bytes(groups)


VARINTS = [varint(number) for number in range(1024)]
VARINTS_END = len(VARINTS)


def length_of(size: int) -> bytes:
    return VARINTS[size] if size < VARINTS_END else varint(size)


def delimited(tag: bytes, body: bytes) -> bytes:
    return b"".join((tag, length_of(len(body)), body))
