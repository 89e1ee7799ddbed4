"""What several commands take: the store, durations and points in time."""

from __future__ import annotations

import re
import sys
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from tracekit.exporters._terminal import Terminal

    _IntType = click.ParamType[int]
else:  # not generic at run time before click 8.4
    _IntType = click.ParamType

__all__ = ["Duration", "Moment", "store_option", "terminal_of_stdout"]

store_option = click.option(
    "--store",
    type=click.Path(),
    help="The store file; else TRACEKIT_STORE, else the one in your state folder.",
)

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60 * 1_000_000_000,
    "min": 60 * 1_000_000_000,
    "h": 3600 * 1_000_000_000,
    "d": 86_400 * 1_000_000_000,
}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zµ]+)")


def _nanoseconds(text: str) -> int | None:
    match = _DURATION.fullmatch(text.strip())
    if match is None or match[2] not in _UNITS_NS:
        return None
    return round(float(match[1]) * _UNITS_NS[match[2]])


class Duration(_IntType):
    """A number with its unit; in nanoseconds."""

    name = "duration"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        found = value if isinstance(value, int) else _nanoseconds(value)
        if found is None:
            self.fail(f"{value!r} is not a duration such as 250ms, 1.5s or 2h", param, ctx)
        return found


class Moment(_IntType):
    """A time of day or date, or how long ago; in Unix nanoseconds."""

    name = "when"

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        if (ago := _nanoseconds(value)) is not None:
            return time.time_ns() - ago
        try:
            return round(_parsed(value.strip()).timestamp() * 1e9)
        except (ValueError, OverflowError, OSError):
            self.fail(f"{value!r} is neither 10m, 2h, 3d nor 14:30 or 2026-01-31 14:30", param, ctx)


def _parsed(text: str) -> datetime:
    if re.fullmatch(r"\d{1,2}:\d{2}(:\d{2})?", text):
        clock = datetime.strptime(text, "%H:%M:%S" if text.count(":") == 2 else "%H:%M").time()
        return datetime.combine(datetime.now().date(), clock)
    # Python 3.10 does not read the Z.
    return datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)


def terminal_of_stdout(color: bool | None = None, width: int | None = None) -> Terminal:
    """Return what standard output can show, unless the command line says otherwise."""
    from dataclasses import replace

    from tracekit.exporters._terminal import Terminal

    found = Terminal.of(sys.stdout)
    if color is not None:
        found = replace(found, color=color)
    return found if width is None else replace(found, width=width)
