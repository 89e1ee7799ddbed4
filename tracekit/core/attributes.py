"""Turning whatever was given as an attribute into what can be exported, when it is read.

The caller's thread stores attribute values as they come. Reading (in the worker, by an
exporter or a test) makes of them the values of OTLP's AnyValue, bounded in size and depth.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Mapping, Sequence, Set
from itertools import islice
from types import MappingProxyType
from typing import Any

__all__ = [
    "EMPTY",
    "MUTABLE",
    "all_plain",
    "clean",
    "nanoseconds",
    "plain",
    "snapshot",
    "snapshots",
    "text",
]

EMPTY: Mapping[str, Any] = MappingProxyType({})

MAX_DEPTH = 16
MAX_ITEMS = 4096
MAX_MEMBERS = 16_384
MAX_TEXT = 4 * 1024 * 1024
"""Bounds for what no limit of the user's covers: nesting, members of one container, members of
all containers inside a value (a list that holds itself ten times has 10**16 at depth 16), and
the length of a text that we make ourselves by ``str()``."""

MAX_NANOSECONDS = 2**63 - 1

_PLAIN: frozenset[Any] = frozenset({str, bool, int, float, bytes, type(None)})
MUTABLE: frozenset[Any] = frozenset({list, dict, set})


def snapshot(value: Any) -> Any:
    """Copy a mutable container, so that what the caller does to it later is not recorded.

    Shallow: this runs on the caller's path.
    """
    try:
        return value.copy() if type(value) in MUTABLE else value
    except TypeError:  # an object whose class cannot be hashed
        return value


def snapshots(attributes: Any) -> dict[str, Any] | None:
    """Copy attributes; None when they are not a mapping, or one that raises."""
    try:
        return {key: snapshot(value) for key, value in attributes.items()}
    except Exception:
        return None


class _Bounds:
    """What reading one value may still cost, and how long its texts may be."""

    __slots__ = ("left", "max_length")

    def __init__(self, max_length: int | None) -> None:
        self.max_length = max_length
        self.left = MAX_MEMBERS


def clean(
    attributes: Mapping[Any, Any] | None, max_length: int | None, max_count: int | None = None
) -> tuple[Mapping[str, Any], int]:
    """Return exportable attributes and how many were dropped.

    Args:
        max_length: Longest text kept, in characters; None for no limit.
        max_count: Most attributes kept, the first ones; None for no limit.
    """
    if not attributes:
        return EMPTY, 0
    items = _items(attributes)
    if max_length is None and all_plain(items) and (max_count is None or len(items) <= max_count):
        return MappingProxyType(dict(items)), len(attributes) - len(items)
    kept: dict[str, Any] = {}
    for key, value in items:
        if max_count is not None and len(kept) >= max_count:
            break
        if _is_fit(key):
            kept[str.__str__(key)] = _clean_member(value, _Bounds(max_length), 0)
    return MappingProxyType(kept), len(items) - len(kept)


def _is_fit(key: Any) -> bool:
    # Not isinstance(), which asks for __class__, nor bool(): both may be the object's own code.
    return issubclass(type(key), str) and str.__len__(key) > 0


def all_plain(items: Iterable[tuple[Any, Any]]) -> bool:
    """Whether every attribute can be exported as it is."""
    try:
        for key, value in items:
            if type(value) not in _PLAIN or type(key) is not str or not key:
                return False
    except TypeError:  # an object whose class cannot be hashed
        return False
    return True


def plain(attributes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return attributes as an exporter would be given them, but for limits of length."""
    return attributes if all_plain(_items(attributes)) else clean(attributes, None)[0]


def _items(attributes: Mapping[Any, Any]) -> list[tuple[Any, Any]]:
    # list(dict.items()) is one C call: a writer in another thread cannot break it.
    try:
        return list(attributes.items())
    except Exception:
        return []


def _clean_value(value: Any, bounds: _Bounds, depth: int) -> Any:
    kind = type(value)
    if kind is str:
        return value if bounds.max_length is None else value[: bounds.max_length]
    if kind in _PLAIN:
        return value
    if depth >= MAX_DEPTH:
        return "..."
    return _clean_rich(value, bounds, depth)


def _clean_rich(value: Any, bounds: _Bounds, depth: int) -> Any:
    if isinstance(value, enum.Enum):
        return _clean_value(value.value, bounds, depth + 1)
    if isinstance(value, (str, bool, int, float, bytes)):
        return _base_value(value, bounds.max_length)
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, Mapping):
        return _clean_mapping(value, bounds, depth)
    # Not imported: as with datetime, the program did if there is such a value.
    dataclasses: Any = sys.modules.get("dataclasses")
    if dataclasses and dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name, None) for f in dataclasses.fields(value)}
        return _clean_mapping(fields, bounds, depth)
    if isinstance(value, (Sequence, Set)):
        items = islice(_sized(value), MAX_ITEMS)
        return tuple(_clean_member(item, bounds, depth + 1) for item in items)
    return _clean_other(value, bounds, depth)


def _base_value(value: Any, max_length: int | None) -> Any:
    """Strip a subclass of a plain type (an IntFlag, a str subclass) down to the plain value."""
    if isinstance(value, str):
        text = str.__str__(value)
        return text if max_length is None else text[:max_length]
    if isinstance(value, bytes):
        return bytes.__add__(value, b"")
    return float.__float__(value) if isinstance(value, float) else int.__int__(value)


def _clean_mapping(value: Mapping[Any, Any], bounds: _Bounds, depth: int) -> dict[str, Any]:
    return {
        _text(key, bounds.max_length): _clean_member(item, bounds, depth + 1)
        for key, item in islice(value.items(), MAX_ITEMS)
    }


def _clean_member(value: Any, bounds: _Bounds, depth: int) -> Any:
    bounds.left -= 1
    if bounds.left < 0:
        return "..."
    try:
        return _clean_value(value, bounds, depth)
    except Exception as error:
        return f"<{type(error).__name__} while reading {type(value).__name__}>"


def _sized(value: Iterable[Any]) -> Iterable[Any]:
    # A set is read in a stable order where it has one, so that the same set reads the same.
    if not isinstance(value, Set):
        return value
    try:
        return sorted(islice(value, MAX_ITEMS))
    except TypeError:
        return value


def _clean_other(value: Any, bounds: _Bounds, depth: int) -> Any:
    item = getattr(value, "item", None)
    if callable(item) and getattr(value, "ndim", None) == 0:  # a numpy scalar
        return _clean_value(item(), bounds, depth + 1)
    tolist = getattr(value, "tolist", None)
    if callable(tolist) and hasattr(value, "dtype"):  # a numpy array
        return _array(value, tolist, bounds, depth)
    dump = getattr(value, "model_dump", None)
    if callable(dump) and not isinstance(value, type):  # a pydantic model
        return _clean_value(dump(), bounds, depth + 1)
    return _text(value, bounds.max_length)


def _array(value: Any, tolist: Any, bounds: _Bounds, depth: int) -> Any:
    if getattr(value, "size", MAX_ITEMS + 1) > MAX_ITEMS:
        return f"<array of shape {getattr(value, 'shape', '?')}>"
    return _clean_value(tolist(), bounds, depth + 1)


def _text(value: Any, max_length: int | None) -> str:
    """Say a value in words: UUID, Decimal, Path, exception, any object."""
    # Not imported: a value can only be one of datetime's when the program imported it.
    datetime: Any = sys.modules.get("datetime")
    if datetime is not None and isinstance(value, datetime.timedelta):
        text = f"{value.total_seconds()}s"
    elif datetime is not None and isinstance(value, (datetime.date, datetime.time)):
        text = value.isoformat()
    else:
        text = _str(value)
    return text[: MAX_TEXT if max_length is None else max_length]


def nanoseconds(value: Any) -> int | None:
    """Return what should be Unix nanoseconds as such; None when it is no number."""
    try:
        return min(max(int(value), 0), MAX_NANOSECONDS) if isinstance(value, (int, float)) else None
    except (ValueError, OverflowError):  # NaN and infinity
        return None


def text(value: Any) -> str:
    """Return what should be a text as one."""
    return value if type(value) is str else _text(value, None)


def _str(value: Any) -> str:
    for describe in (str, repr):
        try:
            return str.__str__(describe(value))
        except Exception:  # the next way of saying it is tried
            continue
    return f"<{type(value).__qualname__} that cannot be shown>"
