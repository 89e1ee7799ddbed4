"""Spans out of a file whose format nobody has to name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

from tracekit import discovery
from tracekit.formats._format import TraceFormat, Unit, Unreadable
from tracekit.formats._pieces import pieces
from tracekit.model import SpanRecord

__all__ = ["TraceFile", "format_names"]

MOST_TOLD = 20


def format_names() -> list[str]:
    """Return the names of the formats that are read."""
    return discovery.own_names("format")


class TraceFile:
    """The spans of a file, read once from its beginning to its end.

    Iterating holds one piece of the file at a time, and raises nothing that its content can cause.

    Attributes:
        format: The name of its format; None until a piece of it was recognised.
        spans: How many were read.
        unreadable: The first of what could not be; ``unreadable_count`` counts all, and
            ``lost_spans`` the spans that are known to be among them.
    """

    def __init__(self, source: BinaryIO, format_name: str | None = None) -> None:
        """Read from `source`, which gzip may have compressed.

        Args:
            format_name: Otherwise the first piece that some format recognises decides.

        Raises:
            UnknownNameError: There is no format of that name.
        """
        wanted = format_names() if format_name is None else [format_name]
        self._formats: list[TraceFormat] = [discovery.find("format", each)() for each in wanted]
        self._source = source
        self.format = format_name
        self.spans = self.unreadable_count = self.lost_spans = 0
        self.unreadable: list[Unreadable] = []

    def __iter__(self) -> Iterator[SpanRecord]:
        arrays = {name: shape for each in self._formats for name, shape in each.arrays.items()}
        units = self._units(pieces(self._source, arrays))
        first = self._recognised(units)
        if first is None:
            return
        for span in self._formats[0].read(chain([first], units)):
            if isinstance(span, Unreadable):
                self._note(span)
            else:
                self.spans += 1
                yield span

    def _recognised(self, units: Iterator[Unit]) -> Unit | None:
        """Return the first piece of a known format, which is the only one from then on."""
        for unit in units:
            if self.format is not None:
                return unit
            found = next((each for each in self._formats if each.recognises(unit)), None)
            if found is not None:
                self._formats = [found]
                self.format = found.name
                return unit
            known = ", ".join(format_names())
            self._note(Unreadable(unit.line, 1, f"of no format that is read ({known})"))
        return None

    def _units(self, found: Iterable[Unit | Unreadable]) -> Iterator[Unit]:
        for piece in found:
            if isinstance(piece, Unreadable):
                self._note(piece)
            else:
                yield piece

    def _note(self, piece: Unreadable) -> None:
        self.unreadable_count += 1
        self.lost_spans += piece.spans
        if len(self.unreadable) < MOST_TOLD:
            self.unreadable.append(piece)
