"""Reads header values out of any carrier, bounded in cost and without raising."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, Generic

from opentelemetry.propagators.textmap import CarrierT, Getter, default_getter

__all__ = ["Headers", "header_values"]

# No format has a use for more repetitions of one header; what lies behind them is not looked at.
_MAX_REPEATED = 64
# Of a carrier with more headers than any server accepts, the rest is not looked at.
_MAX_NAMES = 1024


def header_values(
    carrier: CarrierT, name: str, getter: Getter[CarrierT], title: str = ""
) -> list[Any]:
    """Read all values of a header; empty when it is missing or cannot be read.

    Args:
        title: How a plain dict may spell the name otherwise. A getter made for a protocol knows
            about case; the default getter on a dict does not, and a miss surprises people.

    The elements are whatever the carrier held: their types are for the caller to check.
    """
    try:
        if getter is default_getter:
            # Not through it: it makes a list of every iterable, endless ones too.
            found = carrier.get(name)  # type: ignore[attr-defined]
            if found is None and title:
                found = carrier.get(title)  # type: ignore[attr-defined]
            if found is None:
                return []
        else:
            found = getter.get(carrier, name)
        if type(found) is list and len(found) <= _MAX_REPEATED:
            return found
        return _as_list(found)
    except Exception:
        # "If a value can not be parsed from the carrier [...] MUST NOT throw an exception":
        # https://opentelemetry.io/docs/specs/otel/context/api-propagators/#extract
        return []


def _as_list(found: object) -> list[Any]:
    if found is None:
        return []
    if isinstance(found, Iterable) and not isinstance(found, (str, bytes)):
        return list(islice(found, _MAX_REPEATED))
    return [found]


class Headers(Generic[CarrierT]):
    """A carrier together with the getter that reads it."""

    __slots__ = ("_carrier", "_getter")

    def __init__(self, carrier: CarrierT, getter: Getter[CarrierT]) -> None:
        self._carrier = carrier
        self._getter = getter

    def first(self, name: str, title: str = "") -> str | None:
        """Return a header's first value; None when it is missing or is not text."""
        values = header_values(self._carrier, name, self._getter, title)
        return values[0] if values and isinstance(values[0], str) else None

    def named(self, prefix: str) -> list[tuple[str, str]]:
        """List (rest of the name, first value) of the headers whose name has a prefix.

        Args:
            prefix: In lower case; names are compared without regard to case.
        """
        found = []
        for name in self._names():
            if not isinstance(name, str) or name[: len(prefix)].lower() != prefix:
                continue
            value = self.first(name)
            if value is not None:
                found.append((name[len(prefix) :], value))
        return found

    def _names(self) -> list[Any]:
        try:
            return list(islice(self._getter.keys(self._carrier), _MAX_NAMES))
        except Exception:
            return []
