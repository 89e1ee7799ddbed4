"""Trace files on the command line: opening them, and saying what of them could not be read."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

import click

if TYPE_CHECKING:
    from tracekit.formats._reading import TraceFile

__all__ = ["described", "format_option", "opened", "tell_unreadable"]


def _checked_format(_context: Any, _param: Any, name: str | None) -> str | None:
    if name is not None:
        from tracekit import discovery

        discovery.find("format", name)
    return name


format_option = click.option(
    "--format",
    "format_name",
    metavar="NAME",
    callback=_checked_format,
    help="datadog_json, jaeger_json, otlp_json or zipkin_json; else told by the content.",
)


@contextmanager
def opened(path: str, format_name: str | None) -> Iterator[TraceFile]:
    """Open a file of traces; ``-`` is standard input.

    Raises:
        OSError: It cannot be opened.
    """
    from tracekit.formats._reading import TraceFile

    if path == "-":
        yield TraceFile(_standard_input(), format_name)
        return
    with open(path, "rb") as source:
        yield TraceFile(source, format_name)


def _standard_input() -> BinaryIO:
    return sys.stdin.buffer


def tell_unreadable(path: str, file: TraceFile) -> None:
    """Say on standard error what was left out, each with its place."""
    for item in file.unreadable:
        spans = f" ({item.spans} span{'s' * (item.spans > 1)} lost)" if item.spans else ""
        click.echo(f"{path}:{item.line}:{item.column}: {_line(item.reason)}{spans}", err=True)
    if more := file.unreadable_count - len(file.unreadable):
        click.echo(f"{path}: and {more} more", err=True)


def _line(text: str) -> str:
    return "".join(char if char.isprintable() else "?" for char in text)


def described(path: str, file: TraceFile) -> dict[str, Any]:
    """Return the same as plain data."""
    return {
        "file": path,
        "format": file.format,
        "spans": file.spans,
        "lost_spans": file.lost_spans,
        "unreadable_count": file.unreadable_count,
        "unreadable": [vars(item) for item in file.unreadable],
    }
