"""Attribute values reduced to what OTLP's AnyValue can hold; what it cannot is marked visibly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice
from reprlib import Repr
from typing import Any

__all__ = ["INT64", "MAX_ITEMS", "AnyValue", "attribute_key", "exact", "replaced", "text"]

AnyValue = str | bool | int | float | bytes | list[Any] | dict[str, Any] | None

INT64 = range(-(2**63), 2**63)

MAX_DEPTH = 20
"""Protobuf decoders give up at 100 nested messages; a map inside a map takes three of them."""

MAX_ITEMS = 65_536
"""Elements of one attribute value, counted through all of its levels."""

MAX_TEXT = 1024

TOO_DEEP = "[nested too deep]"
RECURSIVE = "[recursive]"
CUT = f"[cut after {MAX_ITEMS} items]"

replaced: Counter[str] = Counter()
"""How many values had to be replaced since the process started, by reason.

Not less than there were: a value is counted again when its span has to be read a second time.
"""

_bounded_repr = Repr()
_bounded_repr.maxother = _bounded_repr.maxstring = _bounded_repr.maxlong = MAX_TEXT


def text(value: str) -> str:
    """Return ``value`` as an exact str that UTF-8 can carry; lone surrogates become escapes."""
    value = str.__str__(value)
    if value.isascii():
        return value
    try:
        value.encode()
        return value
    except UnicodeEncodeError:
        replaced["lone surrogate"] += 1
        return value.encode("utf-8", "backslashreplace").decode()


def exact(value: object) -> AnyValue:
    """Return ``value`` built of exact str, bool, int (64 bits), float, bytes, None, list and dict.

    Raises:
        Nothing: whatever a hostile object does, the answer is a text that says so.
    Cost: bounded by MAX_DEPTH and MAX_ITEMS; a cycle is cut where it closes.
    """
    return _Reduction().reduce(value)


def attribute_key(key: object) -> str:
    """Return the text under which an attribute is written, whatever its key is."""
    try:
        if isinstance(key, str):
            return text(key)
        replaced["key that is no text"] += 1
        return str(key) if type(key) is int else text(_bounded_repr.repr(key))
    except Exception:
        replaced["unreadable key"] += 1
        return "[unreadable key]"


class _Reduction:
    """One walk through one attribute value; it knows where it is and how much it may still take."""

    __slots__ = ("items_left", "open_containers")

    def __init__(self) -> None:
        self.open_containers: list[int] = []
        self.items_left = MAX_ITEMS

    def reduce(self, value: object) -> AnyValue:
        try:
            if value is None or value is True or value is False:
                return value
            scalar = _scalar(value)
            return self._container(value) if scalar is None else scalar
        except Exception:
            replaced["unreadable value"] += 1
            return f"[unreadable {type.__getattribute__(type(value), '__name__')}]"

    def _container(self, value: object) -> AnyValue:
        if not isinstance(value, (Sequence, Mapping, Set)):
            replaced["unsupported type"] += 1
            return text(_bounded_repr.repr(value))
        if id(value) in self.open_containers:
            replaced["recursive container"] += 1
            return RECURSIVE
        if len(self.open_containers) >= MAX_DEPTH:
            replaced["nested too deep"] += 1
            return TOO_DEEP
        self.open_containers.append(id(value))
        try:
            return self._map(value) if isinstance(value, Mapping) else self._array(value)
        finally:
            self.open_containers.pop()

    def _array(self, values: Iterable[object]) -> list[Any]:
        items = [self.reduce(item) for item in self._within_budget(values)]
        return [*items, CUT] if self.items_left <= 0 else items

    def _map(self, values: Mapping[object, object]) -> dict[str, Any]:
        pairs = {
            attribute_key(key): self.reduce(values[key]) for key in self._within_budget(values)
        }
        return {**pairs, CUT: True} if self.items_left <= 0 else pairs

    def _within_budget(self, values: Iterable[object]) -> Iterable[object]:
        for item in islice(values, MAX_ITEMS):
            self.items_left -= 1
            if self.items_left <= 0:
                replaced["too many items"] += 1
                return
            yield item


def _scalar(value: object) -> str | int | float | bytes | None:
    """Return the exact built-in behind a subclass, without calling what the subclass overrides."""
    if isinstance(value, str):
        return text(value)
    if isinstance(value, int):
        number = int.__add__(value, 0)
        if number in INT64:
            return number
        replaced["integer beyond 64 bits"] += 1
        return _digits(number)
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    return None


def _digits(number: int) -> str:
    """Write a huge integer; past what Python turns into decimals, as bounded hexadecimals."""
    if number.bit_length() <= MAX_TEXT:
        return str(number)
    digits = f"{abs(number) >> max(0, number.bit_length() - 4 * 64):x}"
    return f"{'-' if number < 0 else ''}0x{digits}[{number.bit_length()} bits]"
