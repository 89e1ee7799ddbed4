"""What the spans of calls that are alike start with, worked out once for all of them."""

from __future__ import annotations

from collections.abc import Mapping
from types import CodeType
from typing import Any

__all__ = ["Said"]


class Said:
    """Name and attributes of spans that differ in nothing but the line of the program that asks.

    Attributes:
        attributes: Not to be changed; a span that starts with them has a copy.
        last: The line that asked last, as :class:`Caller` says it, and both together. A statement
            is asked from one line as a rule, and what was merged once is merged. One tuple, so
            that no other thread sees half of it.
        seen: That line's code, instruction and attributes where it calls the instrumentation
            itself, with nothing of a library's in between: whoever is there again is known at once.
    """

    __slots__ = ("attributes", "last", "name", "seen")

    def __init__(self, name: str, attributes: Mapping[str, Any]) -> None:
        self.name = name
        self.attributes = attributes
        self.last: tuple[Mapping[str, Any] | None, Mapping[str, Any]] = (None, attributes)
        self.seen: tuple[CodeType | None, int, Mapping[str, Any]] = (None, 0, attributes)

    def asked_from(self, place: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the attributes with those of the line that asks; not to be changed either.

        Cost: of a frame and a comparison; on a hot path look at `last` first.
        """
        last = self.last
        if last[0] is place:
            return last[1]
        both = {**self.attributes, **place}
        self.last = (place, both)
        return both
