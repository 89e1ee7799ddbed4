"""A broken piece of JSON: where it ends, and what in it is whole."""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from tracekit.formats._buffer import MAX_PIECE_CHARS, TextBuffer

__all__ = ["Mended", "end_of_broken", "mended"]

# JSON has no line ends in strings, so one that is not closed ends there. A bracket at the very
# beginning of a line is the next document of a file of lines: within one, they are indented.
_TOKEN = re.compile(r'"(?:[^"\\\n]|\\.)*(?:"|\\?\Z)?|[{}\[\],]|\n(?=[{\[])')
# What stands at a span's place without naming a trace is something else: a note of a span, where
# spans themselves are items.
_OF_A_TRACE = '"trace'
_CLOSING = {"{": "}", "[": "]"}


class Mended(NamedTuple):
    """What could be kept of a broken piece."""

    value: Any
    lost_records: int


def end_of_broken(buffer: TextBuffer) -> tuple[int, bool]:
    """Return where the broken value at ``buffer.at`` ends, and whether its brackets were closed.

    Unclosed, it ends before the next document or with the file. All of it is held afterwards,
    unless it is too long: then it ends where the bound was reached.
    """
    while True:
        found = _end(buffer.text, buffer.at, buffer.ended)
        if found is not None:
            return found
        if len(buffer.text) - buffer.at > MAX_PIECE_CHARS:
            return len(buffer.text), False
        buffer.more()


def _end(text: str, at: int, is_last: bool) -> tuple[int, bool] | None:
    """Return the end of a value; None when it must be read on to know."""
    depth = 0
    for match in _TOKEN.finditer(text, at):
        token = match[0]
        if token in ("{", "["):
            depth += 1
        elif token in ("}", "]"):
            depth -= 1
            if depth < 0:  # the bracket of what is around a value that is no JSON at all
                return match.start(), True
            if not depth:
                return match.end(), True
        elif token == "," and not depth:
            return match.start(), True
        elif token == "\n":
            return match.start(), False
        elif token[0] == '"' and match.end() == len(text) and not is_last and token[-1:] != '"':
            return None  # the rest of the string is not here yet
    return (len(text), False) if is_last else None


def mended(text: str, shape: str) -> Mended | None:
    """Return a broken value with the records that are whole; None if that is not possible.

    Args:
        shape: The brackets that stand around a record: ``{[`` for ``{"spans": [{...}]}``.
    """
    records = _records(text, shape)
    if not records.whole:
        return None
    pieces, done = [], 0
    for start, end in records.broken:
        pieces += [text[done:start], "null"]
        done = end
    pieces += [text[done : records.kept_to], records.rest(text)]
    try:
        value = json.loads("".join(pieces))
    except (ValueError, RecursionError):
        return None
    return Mended(value, len(records.broken) + records.is_cut)


class _Found:
    """Where the records of a broken value are."""

    def __init__(self) -> None:
        self.whole = 0
        self.broken: list[tuple[int, int]] = []
        self.kept_to = 0
        self.open_after = ""
        self.is_closed = self.is_cut = False

    def rest(self, text: str) -> str:
        if self.is_closed:
            return text[self.kept_to :]
        return "".join(_CLOSING[bracket] for bracket in reversed(self.open_after))


def _records(text: str, shape: str) -> _Found:
    found, open_now, start = _Found(), "", -1
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token in ("{", "["):
            if token == "{" and open_now == shape:
                start = match.start()
            open_now += token
        elif token in ("}", "]"):
            if not open_now or _CLOSING[open_now[-1]] != token:
                return found
            open_now = open_now[:-1]
            if start >= 0 and open_now == shape:
                _note(found, text, start, match.end())
                found.kept_to, found.open_after, start = match.end(), open_now, -1
    found.is_closed = not open_now
    found.is_cut = start >= 0
    return found


def _note(found: _Found, text: str, start: int, end: int) -> None:
    if _OF_A_TRACE not in text[start:end]:
        return
    try:
        json.loads(text[start:end])
    except (ValueError, RecursionError):
        found.broken.append((start, end))
    else:
        found.whole += 1
