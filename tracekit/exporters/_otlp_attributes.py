"""Attributes as OTLP protobuf: each a KeyValue, of which what repeats is written once and kept.

Source: opentelemetry/proto/common/v1/common.proto
Concurrency: any thread, at the same time; what is kept is only ever read, added to and cleared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import Any, NamedTuple

from tracekit.exporters._anyvalue import INT64, exact
from tracekit.exporters._protobuf import VARINTS, delimited, length_of, varint

__all__ = [
    "EVENT_FIELD",
    "LINK_FIELD",
    "MAP_FIELD",
    "SPAN_FIELD",
    "Field",
    "NotPlainError",
    "add_attributes",
    "refuse",
]

MAX_KEYS = 512
MAX_VALUES_OF_KEY = 32
MAX_CACHED_LENGTH = 64

_double = Struct("<d").pack
_two_bytes = Struct("BB").pack


class Key(NamedTuple):
    """What is written of an attribute before its value is known.

    Args:
        start: A KeyValue up to its value.
        heads: The field up to a text of so many bytes, or up to a varint of so many (negative).
        float_head: The field up to the eight bytes of a float.
        bools: The whole field, for False and True.
        room: One element for each value that may still be kept with its key.
    """

    start: bytes
    heads: dict[int, bytes]
    float_head: bytes
    bools: tuple[bytes, bytes]
    room: list[None]


class Field(NamedTuple):
    """A message's attributes: the tag, what is kept of keys, and of keys with a usual value."""

    tag: bytes
    keys: dict[str, Key]
    pairs: dict[tuple[str, object], bytes]


SPAN_FIELD = Field(b"\x4a", {}, {})
EVENT_FIELD = Field(b"\x1a", {}, {})
LINK_FIELD = Field(b"\x22", {}, {})
MAP_FIELD = Field(b"\x0a", {}, {})


class NotPlainError(Exception):
    """An attribute has to be made exportable by the span itself."""


def refuse(_value: object) -> Any:
    raise NotPlainError


def add_attributes(
    out: list[bytes],
    attributes: Mapping[Any, Any],
    field: Field,
    convert: Callable[[Any], Any] = exact,
) -> None:
    """Append each attribute as a KeyValue {key=1, value=2} field of the message around it.

    ``convert`` makes a value exact that is neither text nor number; it may raise instead.
    """
    tag, keys, pairs = field
    append = out.append
    for pair in attributes.items():
        key, value = pair
        kind = type(value)
        if kind is str or kind is int:
            # An int equals no str, and a bool or float that equals an int is never looked up.
            if whole := pairs.get(pair):
                append(whole)
                continue
            start, heads, _, _, room = keys.get(key) or _encode_key(key, field, convert)
            if kind is str:
                encoded = value.encode()
                length = len(encoded)
            else:
                encoded = _integer(value)
                length = -len(encoded)
            head = heads.get(length) or _encode_head(tag, start, heads, length)
            if room and len(encoded) <= MAX_CACHED_LENGTH:
                room.pop()
                pairs[pair] = head + encoded
            append(head)
            append(encoded)
            continue
        start, _, float_head, bools, _ = keys.get(key) or _encode_key(key, field, convert)
        if kind is float:
            append(float_head + _double(value))
        elif kind is bool:
            append(bools[value])
        else:
            body = _with_length(_encode_any(convert(value)))
            out += (tag, length_of(len(start) + len(body)), start, body)


def _integer(value: int) -> bytes:
    """Return the varint of an attribute's value.

    Raises:
        OverflowError: 64 bits do not do. Its digits are what the span is read again for; kept
            as a usual value, they would be counted as a replacement once and then no more.
    """
    if 0 <= value < 0x4000:
        # Written out for the many numbers of a few digits.
        return VARINTS[value] if value < 0x80 else _two_bytes(value & 0x7F | 0x80, value >> 7)
    if value in INT64:
        return varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    raise OverflowError("an integer beyond 64 bits")


def _encode_head(tag: bytes, start: bytes, heads: dict[int, bytes], length: int) -> bytes:
    """Return a field up to a text of ``length`` bytes, or up to a varint of ``-length``."""
    if length < 0:
        value = length_of(1 - length) + b"\x18"
    else:
        text = b"\x0a" + length_of(length)
        value = length_of(len(text) + length) + text
    head = b"".join((tag, length_of(len(start) + len(value) + abs(length)), start, value))
    if length <= MAX_CACHED_LENGTH and len(start) <= MAX_CACHED_LENGTH:
        heads[length] = head
    return head


def _encode_key(key: object, field: Field, convert: Callable[[Any], Any]) -> Key:
    """Return what is written of a key, and keep it unless it is unusual.

    Raises:
        TypeError, UnicodeEncodeError: It has to be replaced, which is done and counted where the
            whole span is read again: kept here, it would be counted once and then no more.
    """
    # An empty key is dropped by the span itself: it must not be found without being looked at.
    if convert is not exact and (type(key) is not str or not key):
        raise NotPlainError
    if type(key) is not str:
        raise TypeError("the key is not a str")
    utf8 = key.encode()
    start = b"".join((b"\x0a", length_of(len(utf8)), utf8, b"\x12"))
    bools = [
        b"".join((field.tag, length_of(len(start) + 3), start, b"\x02\x10", bytes((value,))))
        for value in (False, True)
    ]
    float_head = b"".join((field.tag, length_of(len(start) + 10), start, b"\x09\x21"))
    is_kept = bool(key) and len(start) <= MAX_CACHED_LENGTH
    room = [None] * (MAX_VALUES_OF_KEY if is_kept else 0)
    entry = Key(start, {}, float_head, (bools[0], bools[1]), room)
    if is_kept:
        if len(field.keys) >= MAX_KEYS:
            field.keys.clear()
            field.pairs.clear()
        field.keys[key] = entry
    return entry


def _with_length(body: bytes) -> bytes:
    return length_of(len(body)) + body


def _encode_any(value: Any) -> bytes:
    """Return one AnyValue of a value that ``exact`` has made, so its depth is bounded."""
    if value is None:
        return b""
    kind = type(value)
    if kind is str:
        return delimited(b"\x0a", value.encode())
    if kind is bool:
        return b"\x10\x01" if value else b"\x10\x00"
    if kind is int:
        return b"\x18" + varint(value & 0xFFFF_FFFF_FFFF_FFFF)
    if kind is float:
        return b"\x21" + _double(value)
    if kind is bytes:
        return delimited(b"\x3a", value)
    if kind is list:
        items = b"".join([delimited(b"\x0a", _encode_any(item)) for item in value])
        return delimited(b"\x2a", items)
    pairs: list[bytes] = []
    add_attributes(pairs, value, MAP_FIELD)
    return delimited(b"\x32", b"".join(pairs))
