"""``tracekit import``: trace files of other tools into the store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from tracekit.cli._options import store_option
from tracekit.cli._trace_files import described, format_option, opened, tell_unreadable

if TYPE_CHECKING:
    from tracekit.store.writer import StoreWriter

__all__ = ["command"]


@click.command(short_help="Read files of traces into the store.")
@click.argument("files", nargs=-1, required=True, type=click.Path(allow_dash=True))
@format_option
@click.option("--json", "as_json", is_flag=True, help="Print what was read as JSON.")
@store_option
def command(
    files: Sequence[str], format_name: str | None, as_json: bool, store: str | None
) -> None:
    """Read FILES into the store: OTLP JSON, Jaeger's, Zipkin's V2 and Datadog's JSON.

    A file may be compressed by gzip; `-` is standard input. What can be read of a half-broken
    file is imported; what cannot is said, with its line and column, and the exit code is 1.
    A span that is in the store already is replaced: importing twice changes nothing.
    """
    from tracekit.store.writer import StoreWriter

    writer = StoreWriter(store)
    try:
        found = [_import(path, format_name, writer) for path in files]
    finally:
        writer.close()
    if as_json:
        click.echo(json.dumps({"store": str(writer.path), "files": found}, indent=2))
    else:
        click.echo("".join(f"{_told(file)}\n" for file in found if "error" not in file), nl=False)
    if any(not file["spans"] or file["unreadable_count"] for file in found):
        raise SystemExit(1)


def _import(path: str, format_name: str | None, writer: StoreWriter) -> dict[str, Any]:
    try:
        with opened(path, format_name) as file:
            refused = writer.write(file)
    except OSError as error:
        reason = error.strerror or str(error)
        click.echo(f"{path}: {reason}", err=True)
        return {"file": path, "format": None, "spans": 0, "unreadable_count": 1, "error": reason}
    tell_unreadable(path, file)
    told = described(path, file)
    told["spans"] -= len(refused)
    told["lost_spans"] += len(refused)
    return told


def _told(file: dict[str, Any]) -> str:
    of_format = f" ({file['format']})" if file["format"] else ""
    lost = f", {file['lost_spans']} lost" if file.get("lost_spans") else ""
    return f"{file['file']}: {file['spans']} spans{of_format}{lost}"
