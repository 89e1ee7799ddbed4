"""What a format of trace files is: how its pieces are recognised, and what spans they hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tracekit.model import SpanRecord

__all__ = ["TraceFormat", "Unit", "Unreadable"]


@dataclass(frozen=True)
class Unit:
    """One piece of a file, small enough to be held: an item of an array, or a whole document.

    Attributes:
        key: The name of the array that it is an item of; empty for an item of a top-level array
            and for a document that has no array of a known name.
        line: Where it begins, counted from 1.
    """

    key: str
    value: Any
    line: int


@dataclass(frozen=True)
class Unreadable:
    """Something that could not be read, and was left out.

    Attributes:
        spans: How many spans it is known to have cost; 0 where nobody can know.
    """

    line: int
    column: int
    reason: str
    spans: int = 0


class TraceFormat:
    """Turn the pieces of a file into span records.

    Files come from many writers and may be half-broken: what can be read is, what cannot is told.
    """

    name: str
    """What users type; the name of the file."""
    arrays: Mapping[str, str] = {}
    """Top-level arrays that are read item by item, each with the brackets that stand around a
    span within one item: ``{[`` for ``{"spans": [{...}]}``."""

    def recognises(self, unit: Unit) -> bool:
        """Tell whether a piece looks like this format. Called with the first ones of a file."""
        raise NotImplementedError

    def read(self, units: Iterable[Unit]) -> Iterator[SpanRecord | Unreadable]:
        """Yield the spans of the pieces, holding no more than one trace of them at a time.

        Raises:
            Nothing that the content of a file can cause.
        """
        raise NotImplementedError
