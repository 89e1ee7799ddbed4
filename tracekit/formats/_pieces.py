"""A JSON file of any length as pieces that can be held, with what was broken between them."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from typing import Any, BinaryIO

from tracekit.formats._buffer import MalformedError, TextBuffer
from tracekit.formats._format import Unit, Unreadable
from tracekit.formats._mend import end_of_broken, mended

__all__ = ["pieces"]

_MOST_FIELDS = 1000
_ANY_ITEM = "{["
"""Where spans are in an item of a top-level array: ``[{"spans": [{...}]}]``, as Jaeger has it."""


def pieces(source: BinaryIO, arrays: Mapping[str, str]) -> Iterator[Unit | Unreadable]:
    """Yield the items of the arrays that a file consists of, in the order of the file.

    Such an array is the document itself or one of its fields; documents follow one another, on
    lines of their own or not. A document without is one piece. After something broken it goes
    on with the next item or the next document.

    Args:
        arrays: Names of such fields, and what brackets stand around a span in one of their items.
    """
    buffer = TextBuffer(source)
    is_told = False
    for piece in _documents(buffer, arrays):
        is_told |= isinstance(piece, Unreadable) and piece.reason == buffer.failure
        yield piece
    if buffer.failure and not is_told:
        yield Unreadable(*buffer.position(len(buffer.text)), buffer.failure)


def _documents(buffer: TextBuffer, arrays: Mapping[str, str]) -> Iterator[Unit | Unreadable]:
    reading = _Reading(buffer, arrays)
    while buffer.peek():
        try:
            yield from reading.document()
        except _CutShortError:
            buffer.skip_to_next_document()
        except MalformedError as error:
            yield Unreadable(*buffer.position(error.at), str(error))
            buffer.skip_to_next_document()


class _CutShortError(Exception):
    """The rest of a document is lost with an item of it, and that was told."""


class _Reading:
    """The grammar of the documents that are read item by item."""

    def __init__(self, buffer: TextBuffer, arrays: Mapping[str, str]) -> None:
        self._buffer = buffer
        self._arrays = arrays

    def document(self) -> Iterator[Unit | Unreadable]:
        first = self._buffer.peek()
        if first == "[":
            yield from self._items("", _ANY_ITEM)
        elif first == "{":
            yield from self._object()
        else:
            raise MalformedError(f"expected {{ or [, not {first!r}", self._buffer.at)

    def _object(self) -> Iterator[Unit | Unreadable]:
        buffer = self._buffer
        line, _ = buffer.position(buffer.at)
        buffer.take("{")
        rest: dict[str, Any] = {}
        has_items = False
        while buffer.peek() != "}":
            key = self._key()
            if key in self._arrays and buffer.peek() == "[":
                has_items = True
                yield from self._items(key, self._arrays[key])
            elif not (yield from self._field(rest, key)):
                yield Unit("", rest, line)
                raise _CutShortError
            if buffer.peek() != "}":
                buffer.take(",}")
        buffer.take("}")
        if not has_items:
            yield Unit("", rest, line)

    def _key(self) -> str:
        buffer = self._buffer
        if buffer.peek() != '"':
            raise MalformedError("expected a name in quotes", buffer.at)
        key = str(buffer.value())
        buffer.take(":")
        return key

    def _field(self, rest: dict[str, Any], key: str) -> Generator[Unreadable, None, bool]:
        """Keep a field; return False when the document is cut short in it."""
        is_closed = True
        try:
            value = self._buffer.value()
        except MalformedError as error:
            value, told, is_closed = self._mended(error, "[")
            yield told
        if len(rest) < _MOST_FIELDS:
            rest[key] = value
        return is_closed

    def _items(self, key: str, shape: str) -> Iterator[Unit | Unreadable]:
        buffer = self._buffer
        buffer.take("[")
        if buffer.peek() == "]":
            buffer.take("]")
            return
        while True:
            yield from self._item(key, shape)
            if buffer.peek() == "]":
                buffer.take("]")
                return
            buffer.take(",]")

    def _item(self, key: str, shape: str) -> Iterator[Unit | Unreadable]:
        buffer = self._buffer
        is_list = buffer.peek() == "["
        line, _ = buffer.position(buffer.at)
        try:
            yield Unit(key, buffer.value(), line)
        except MalformedError as error:
            value, told, is_closed = self._mended(error, "[" if is_list else shape)
            yield told
            if value is not None:
                yield Unit(key, value, line)
            if not is_closed:
                raise _CutShortError from None

    def _mended(self, error: MalformedError, shape: str) -> tuple[Any, Unreadable, bool]:
        """Step over a broken value; return what is whole of it, and what to say of the rest."""
        buffer = self._buffer
        line, column = buffer.position(error.at)
        end, is_closed = end_of_broken(buffer)
        text = buffer.text[buffer.at : end]
        kept = mended(text, shape)
        buffer.at = end
        if kept is None:
            return None, Unreadable(line, column, str(error)), is_closed
        return kept.value, Unreadable(line, column, str(error), kept.lost_records), is_closed
