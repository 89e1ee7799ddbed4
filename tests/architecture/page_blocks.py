"""The fenced blocks of a documentation page, and how shown output is compared with real output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^(?P<indent> *)(?P<marks>`{3,})(?P<info>[^`\n]*)$")
_NO_RUN = re.compile(r"<!--\s*no-run:\s*(?P<reason>.*?)\s*-->\s*$")


@dataclass(frozen=True)
class Block:
    """One fenced block; `line` is that of its first line of content, counted from 1."""

    language: str
    text: str
    line: int
    no_run: str | None

    @property
    def file_name(self) -> str | None:
        """Return the name in a first line like `# app.py`: the page saves that block as a file."""
        match = re.match(r"# ([\w./-]+\.\w+)\n", self.text)
        return match[1] if match else None


def blocks(page: str) -> list[Block]:
    """Return the fenced blocks of a page in reading order."""
    return list(_blocks(page.splitlines()))


def _blocks(lines: list[str]) -> Iterator[Block]:
    start = 0
    while start < len(lines):
        fence = _FENCE.match(lines[start])
        if not fence:
            start += 1
            continue
        end = _end_of(fence, lines, start + 1)
        indent = len(fence["indent"])
        content = "".join(f"{line[indent:]}\n" for line in lines[start + 1 : end])
        language = fence["info"].strip().partition(" ")[0]
        yield Block(language, content, start + 2, _reason_above(lines, start))
        start = end + 1


def _end_of(fence: re.Match[str], lines: list[str], start: int) -> int:
    for number in range(start, len(lines)):
        if lines[number].strip() == fence["marks"]:
            return number
    raise ValueError(f"line {start}: this fence is never closed")


def _reason_above(lines: list[str], fence: int) -> str | None:
    """Read `<!-- no-run: reason -->`, which stands alone above the fence."""
    above = [line for line in lines[max(0, fence - 2) : fence] if line.strip()]
    match = _NO_RUN.search(above[-1]) if above else None
    return match["reason"] if match else None


@dataclass(frozen=True)
class Command:
    """One `$ ` line of a console block and the output shown below it."""

    line: str
    shown: str
    number: int


def commands(block: Block) -> list[Command]:
    """Split a console block; a command goes on over lines ending in a backslash."""
    found: list[tuple[str, list[str], int]] = []
    for number, line in enumerate(block.text.splitlines(), block.line):
        if line.startswith("$ "):
            found.append((line[2:], [], number))
        elif found and found[-1][0].endswith("\\") and not found[-1][1]:
            command, shown, first = found.pop()
            found.append((f"{command}\n{line}", shown, first))
        elif found:
            found[-1][1].append(line)
        elif line.strip():
            raise ValueError(f"line {number}: output without a command above it")
    return [Command(line, "\n".join(shown).strip(), number) for line, shown, number in found]


def agrees(shown: str, real: str) -> bool:
    """Say whether real output is what the page shows, whatever the ids, times and widths were.

    `...` in what is shown stands for anything. Nothing shown promises nothing.
    """
    if not shown.strip():
        return True
    pieces = [re.escape(piece.strip()) for piece in normalise(shown).split("...")]
    return re.fullmatch(r"\s*.*?\s*".join(pieces), normalise(real), re.DOTALL) is not None


def normalise(text: str) -> str:
    """Replace what differs from run to run: colours, ids, numbers with units, bars, spacing."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", text)
    text = re.sub(r"\b(?=[0-9a-f]*[0-9])[0-9a-f]{7,}(?:…|\b)", "#", text)
    text = re.sub(r"\d[\d.,:]*(?:\s?(?:ns|µs|us|ms|s|min|%)(?![a-z]))?", "#", text)
    text = re.sub(r"[▀-▟─━╌╍═·░▒▓█]{2,}", "=", text)
    return re.sub(r"[^\S\n]+", " ", re.sub(r"\s*\n\s*", "\n", text)).strip()
