"""A file of text that is read piece by piece: what is needed is held, and where it was is known."""

from __future__ import annotations

import codecs
import gzip
import io
import json
import re
import zlib
from typing import Any, BinaryIO

__all__ = ["MAX_PIECE_CHARS", "MalformedError", "TextBuffer"]

MAX_PIECE_CHARS = 64 * 1024 * 1024
"""The longest single value; parsed it takes some ten times as much memory. A trace of fifty
thousand spans fits."""

_CHUNK = 256 * 1024
_GZIP_MAGIC = b"\x1f\x8b"
_SPACE = re.compile(r"[ \t\r\n\ufeff\x1e]*")  # U+001E separates records, RFC 7464
_NEXT_DOCUMENT = re.compile(r"\n(?=[{\[])")
_scan = json.JSONDecoder().raw_decode


class MalformedError(Exception):
    """The text is not what it should be at ``at``, a position in the buffer."""

    def __init__(self, reason: str, at: int) -> None:
        super().__init__(reason)
        self.at = at


class TextBuffer:
    """The part of a file that is held: ``text``, of which everything before ``at`` is done with.

    Compressed by gzip or not, in UTF-8, UTF-16 (as PowerShell redirects) or UTF-32: told by its
    first bytes. Bytes that are no text become U+FFFD.
    """

    def __init__(self, source: BinaryIO) -> None:
        self.text = ""
        self.at = 0
        self.ended = False
        self.failure = ""
        """Why the file ended before its end; empty when it did not."""
        self._line = 1
        self._column_before = 0
        self._source: Any = _unpacked(source)
        self._decoder: Any = None

    def more(self) -> bool:
        """Read on, so much that what is held doubles; False at the end of the file."""
        if self.ended:
            return False
        held = len(self.text) - self.at
        new = self._read(max(_CHUNK, held))
        self._line, self._column_before = self.position(self.at)
        self._column_before -= 1
        self.text = self.text[self.at :] + new
        self.at = 0
        return bool(new)

    def _read(self, size: int) -> str:
        """Return some text; none only at the end."""
        text = ""
        while not text and not self.ended:
            text = self._decoded(self._bytes(size))
        return text

    def _bytes(self, size: int) -> bytes:
        try:
            # One read of what is below: asked for all of it, damage would cost what came before.
            data: bytes = self._source.read1(size)
        except (OSError, EOFError, zlib.error) as error:
            # What was unpacked before the damage has been handed out already.
            self.failure = str(error) or type(error).__name__
            return b""
        return data

    def _decoded(self, data: bytes) -> str:
        if self._decoder is None:
            encoding = json.detect_encoding(data[:4])
            self._decoder = codecs.getincrementaldecoder(encoding)("replace")
        self.ended = not data
        text: str = self._decoder.decode(data, self.ended)
        return text

    def position(self, at: int) -> tuple[int, int]:
        """Return line and column of a place in ``text``, each counted from 1."""
        lines = self.text.count("\n", 0, at)
        if not lines:
            return self._line, self._column_before + at + 1
        return self._line + lines, at - self.text.rfind("\n", 0, at)

    def peek(self) -> str:
        """Return the next character that is no space, which is then at ``at``; empty at the end."""
        while True:
            match = _SPACE.match(self.text, self.at)
            self.at = match.end() if match else self.at
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""

    def take(self, wanted: str) -> None:
        """Step over one of the characters that are wanted.

        Raises:
            MalformedError: The next one is another.
        """
        found = self.peek()
        if not found:
            raise MalformedError(self.failure or "the file ends in the middle", self.at)
        if found not in wanted:
            raise MalformedError(f"expected {' or '.join(wanted)}, not {found!r}", self.at)
        self.at += 1

    def value(self) -> Any:
        """Return the JSON value that comes next.

        Raises:
            MalformedError: There is none, it is nested too deep, or too long.
        """
        self.peek()
        while True:
            wrong: MalformedError | None = None
            found, end = None, 0
            try:
                found, end = _scan(self.text, self.at)
            except RecursionError:
                raise MalformedError("nested too deep", self.at) from None
            except ValueError as error:
                wrong = MalformedError(
                    getattr(error, "msg", str(error)), getattr(error, "pos", self.at)
                )
                if not self._may_be_cut(wrong):
                    raise wrong from None
            # A number may go on behind the end of what is held.
            if wrong is None and (end < len(self.text) or self.ended):
                self.at = end
                return found
            if len(self.text) - self.at > MAX_PIECE_CHARS:
                raise MalformedError(f"longer than {MAX_PIECE_CHARS >> 20} Mi characters", self.at)
            if not self.more() and wrong is not None:
                raise self._at_the_end(wrong) from None

    def _may_be_cut(self, wrong: MalformedError) -> bool:
        """Tell a value whose rest is not read yet from one that is wrong."""
        return wrong.at >= len(self.text) - 12 or str(wrong).startswith("Unterminated string")

    def _at_the_end(self, wrong: MalformedError) -> MalformedError:
        if wrong.at < len(self.text.rstrip()) and not str(wrong).startswith("Unterminated string"):
            return wrong
        return MalformedError(self.failure or "the file ends in the middle", len(self.text))

    def skip_to_next_document(self) -> None:
        """Go to the next line that begins with a bracket, which may be this one, or to the end."""
        if self.text[self.at : self.at + 1] in ("{", "[") and self.position(self.at)[1] == 1:
            return
        while True:
            match = _NEXT_DOCUMENT.search(self.text, self.at)
            if match:
                self.at = match.end()
                return
            self.at = max(self.at, len(self.text) - 1)
            if not self.more():
                self.at = len(self.text)
                return


def _unpacked(source: Any) -> Any:
    buffered = source if hasattr(source, "peek") else io.BufferedReader(source)
    return gzip.GzipFile(fileobj=buffered) if buffered.peek(2)[:2] == _GZIP_MAGIC else buffered
