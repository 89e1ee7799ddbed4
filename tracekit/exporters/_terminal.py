"""What a stream can show: its width, colours and characters; and text made safe to show there."""

from __future__ import annotations

import os
import unicodedata
from dataclasses import dataclass
from typing import Any

__all__ = ["Style", "Terminal", "clip", "columns", "printable"]

DEFAULT_WIDTH = 100
MIN_WIDTH, MAX_WIDTH = 40, 200

_CODES = {
    "bold": "1",
    "dim": "2",
    "red": "31",
    "bold_red": "1;31",
    "green": "32",
    "yellow": "33",
    "bold_yellow": "1;33",
    "blue": "34",
    "magenta": "35",
    "cyan": "36",
    "bright_green": "92",
    "bright_blue": "94",
    "bright_magenta": "95",
}


@dataclass(frozen=True)
class Style:
    """Paint text, or leave it plain."""

    color: bool

    def paint(self, name: str, content: str) -> str:
        if not self.color or not content:
            return content
        return f"\x1b[{_CODES[name]}m{content}\x1b[0m"


@dataclass(frozen=True)
class Terminal:
    """What can be shown where the text is going."""

    width: int = DEFAULT_WIDTH
    color: bool = False
    unicode: bool = True

    @classmethod
    def of(cls, stream: Any) -> Terminal:
        """Ask a stream what it is; one that does not answer is plain and 100 columns wide."""
        return cls(_width(stream), _shows_color(stream), _shows_unicode(stream))


def _is_terminal(stream: Any) -> bool:
    try:
        return bool(stream.isatty())
    except Exception:
        return False


def _width(stream: Any) -> int:
    asked = os.environ.get("COLUMNS", "")
    if asked.isdigit() and int(asked) > 0:
        return min(max(int(asked), MIN_WIDTH), MAX_WIDTH)
    try:
        width = os.get_terminal_size(stream.fileno()).columns if _is_terminal(stream) else 0
    except Exception:
        width = 0
    return min(max(width, MIN_WIDTH), MAX_WIDTH) if width else DEFAULT_WIDTH


def _shows_color(stream: Any) -> bool:
    """Follow https://no-color.org and https://force-color.org; without either, terminals only."""
    if os.environ.get("NO_COLOR"):
        return False
    if forced := os.environ.get("FORCE_COLOR"):
        return forced != "0"
    return _is_terminal(stream) and os.environ.get("TERM") != "dumb"


def _shows_unicode(stream: Any) -> bool:
    encoding = getattr(stream, "encoding", None)
    if not isinstance(encoding, str):
        return True
    try:
        "├─└│█░▕▏\N{MULTIPLICATION SIGN}✗…·".encode(encoding)
        return True
    except (LookupError, UnicodeEncodeError):
        return False


def printable(content: str) -> str:
    """Escape what moves the cursor or repaints: names and values come from other people."""
    if content.isprintable():
        return content
    return "".join(char if char.isprintable() else _escape(char) for char in content)


def _escape(char: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}.get(char)
    return named or char.encode("unicode_escape").decode()


def columns(content: str) -> int:
    """Return how many columns printable text takes; East Asian wide characters take two."""
    if content.isascii():
        return len(content)
    return sum(_columns_of(char) for char in content)


def _columns_of(char: str) -> int:
    if unicodedata.combining(char):
        return 0
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1


def clip(content: str, width: int, ellipsis: str) -> str:
    """Return text of at most ``width`` columns, with an ellipsis where it was cut."""
    if len(content) <= width and content.isascii():
        return content
    if len(content) <= 2 * width and columns(content) <= width:
        return content
    room, kept = width - len(ellipsis), []
    for char in content:
        room -= _columns_of(char)
        if room < 0:
            break
        kept.append(char)
    return "".join(kept) + ellipsis if width >= len(ellipsis) else ""
