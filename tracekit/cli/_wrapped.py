"""Sentences on a terminal: wrapped beside a label, in signs that it has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tracekit.exporters._terminal import Terminal

__all__ = ["shown", "wrapped"]


def wrapped(label: str, width: int, text: str, terminal: Terminal) -> Iterator[str]:
    """Yield a label, and beside it a sentence that goes on indented below itself."""
    import textwrap

    # What stands for the label is taken off again: colours have no width, but a length.
    room = "\N{FULL BLOCK}" * (width + 2)
    lines = textwrap.wrap(
        shown(text, terminal),
        max(30, terminal.width),
        initial_indent=room,
        subsequent_indent="     ",
        break_on_hyphens=False,  # names have some, and are copied
    )
    first = lines[0] if lines else room
    yield f"{label}  {first.removeprefix(room)}".rstrip()
    yield from lines[1:]


def shown(text: str, terminal: Terminal) -> str:
    """Return text as the terminal can show it, with nothing in it that moves the cursor."""
    from tracekit.exporters._terminal import printable

    if not terminal.unicode:
        for sign, instead in (("▸", ">"), ("×", "x"), ("\N{NO-BREAK SPACE}", " "), ("…", "...")):
            text = text.replace(sign, instead)
    # A space that no line is broken at counts as unprintable.
    return "\N{NO-BREAK SPACE}".join(map(printable, text.split("\N{NO-BREAK SPACE}")))
