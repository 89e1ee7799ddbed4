"""``tracekit instrumentations``: which libraries are watched, and why others are not."""

from __future__ import annotations

import json

import click

from tracekit.cli._columns import columns
from tracekit.cli._options import terminal_of_stdout

__all__ = ["command"]


@click.command(short_help="List the libraries that are watched, and why others are not.")
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(names: tuple[str, ...], as_json: bool) -> None:
    """List the libraries that a program started here would be watched in, or only those named.

    Each with the version that is installed, those that are supported, and why it is not watched.
    Those that tracekit leaves to packages of OpenTelemetry's follow, with the package.
    """
    from tracekit import discovery
    from tracekit.cli._instrumented import library_rows, watched
    from tracekit.configure import instrument, uninstrument
    from tracekit.contrib import COVERED
    from tracekit.exporters._terminal import Style

    for name in names:
        discovery.find("instrumentation", name.replace("-", "_"))  # says what there is, if not that
    try:
        instrument()
        found = watched()
    finally:
        uninstrument()
    if names:
        wanted = {name.replace("-", "_") for name in names}
        own = [one for one in found["instrumentations"] if one["name"] in wanted]
        found = {"instrumentations": own, "contrib": []}
    if as_json:
        click.echo(json.dumps(found, indent=2, ensure_ascii=False))
        return
    # What is covered by a line above would double the table.
    found["contrib"] = [one for one in found["contrib"] if one["reason"] != COVERED]
    terminal = terminal_of_stdout()
    good = "✓" if terminal.unicode else "ok"
    rows = library_rows(found, Style(terminal.color), good, everything=True)
    click.echo("\n".join(columns(rows)), color=terminal.color)
