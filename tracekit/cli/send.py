"""``tracekit send``: traces of a store or a file to any exporter."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from inspect import signature
from pathlib import Path
from typing import Any

import click

from tracekit.cli._options import Moment
from tracekit.cli._trace_files import described, format_option, opened, tell_unreadable

__all__ = ["command"]


@click.command(short_help="Send stored traces, or files of them, to an exporter.")
@click.argument("source", required=False, type=click.Path(allow_dash=True))
@click.option(
    "--to", "names", multiple=True, required=True, metavar="NAME", help="An exporter; repeatable."
)
@click.option("--service", help="Only spans of this service.")
@click.option("--since", type=Moment(), help="Only spans since: 10m, 2h, 3d ago, 14:30, a date.")
@click.option("--trace", help="Only this trace: the beginning of its id; of a store also `last`.")
@click.option("--endpoint", help="Where to, instead of what the environment says.")
@click.option("--header", "headers", multiple=True, metavar="KEY=VALUE", help="Sent along.")
@format_option
@click.option("--json", "as_json", is_flag=True, help="Print what became of the spans as JSON.")
def command(
    source: str | None,
    names: Sequence[str],
    service: str | None,
    since: int | None,
    trace: str | None,
    endpoint: str | None,
    headers: Sequence[str],
    format_name: str | None,
    as_json: bool,
) -> None:
    """Send the spans of SOURCE: a store, a file that `tracekit import` reads, or - for stdin.

    Without SOURCE, or with the word `store`, those of your store. Exporters are named, and told
    by the environment where and how to send, as in a program that is traced. Spans arrive as they
    were: ids, times, resource and all. The exit code is 1 when anything could not be read or was
    not delivered.
    """
    from tracekit.cli._replay import Wanted, replay

    if source == "store" and not Path(source).exists():
        source = None
    destinations = [_destination(name, _arguments(endpoint, headers)) for name in names]
    wanted = Wanted(service, since, trace)
    with ExitStack() as stack:
        spans, file = _source(source, format_name, wanted, destinations, stack)
        unfinished = replay(spans, destinations)
    told: dict[str, Any] = {
        "destinations": [destination.outcome() for destination in destinations],
        "unfinished": unfinished,
    }
    if file is not None:
        tell_unreadable(str(source), file)
        told["source"] = described(str(source), file)
    click.echo(json.dumps(told, indent=2) if as_json else "\n".join(_lines(told)))
    is_broken = file is not None and file.unreadable_count
    if is_broken or any(each["failed"] or not each["sent"] for each in told["destinations"]):
        raise SystemExit(1)


def _arguments(endpoint: str | None, headers: Sequence[str]) -> dict[str, Any]:
    pairs = dict(_pair(header) for header in headers)
    return {**({"endpoint": endpoint} if endpoint else {}), **({"headers": pairs} if pairs else {})}


def _pair(header: str) -> tuple[str, str]:
    name, equals, value = header.partition("=")
    if not equals or not name.strip():
        # Not repeated: it may hold a secret.
        raise click.BadParameter("expected KEY=VALUE", param_hint="--header")
    return name.strip(), value.strip()


def _destination(name: str, arguments: dict[str, Any]) -> Any:
    from tracekit import discovery
    from tracekit.cli._replay import Destination

    make = discovery.find("exporter", name)
    # Who reads that something was not delivered sends it again: kept as well, it would come twice.
    kept_nowhere = {"spool": False} if "spool" in signature(make).parameters else {}
    try:
        return Destination(name, make(**arguments, **kept_nowhere))
    except TypeError as error:
        if not arguments:
            raise
        options = " or ".join(f"--{argument.rstrip('s')}" for argument in arguments)
        raise click.UsageError(f"exporter {name!r} takes no {options}") from error


def _source(
    source: str | None,
    format_name: str | None,
    wanted: Any,
    destinations: Sequence[Any],
    stack: ExitStack,
) -> tuple[Iterator[Any], Any]:
    """Open what is sent; return its spans, and the file unless it is a store."""
    from tracekit.cli._replay import is_store, spans_of_store

    try:
        if source is None or is_store(source):
            from tracekit.store.reader import StoreReader

            reader = stack.enter_context(StoreReader(source))
            _refuse_same(reader.path, destinations)
            return spans_of_store(reader, wanted), None
        if wanted.trace == "last":
            raise click.UsageError(
                "`--trace last` is for a store: of a file, give the id's beginning"
            )
        file = stack.enter_context(opened(source, format_name))
        return filter(wanted.takes, file), file
    except OSError as error:
        raise click.UsageError(f"{source}: {error.strerror or error}") from error


def _refuse_same(path: Any, destinations: Sequence[Any]) -> None:
    from tracekit.cli._replay import same_file
    from tracekit.store.location import default_path

    for destination in destinations:
        if destination.name == "store" and same_file(path, default_path()):
            raise click.UsageError(
                f"the spans are in {path} already: set TRACEKIT_STORE to another"
            )


def _lines(told: dict[str, Any]) -> Iterator[str]:
    for each in told["destinations"]:
        where = f" ({each['destination']})" if "destination" in each else ""
        yield f"{each['exporter']}{where}: {each['sent']} spans sent"
        for reason, count in each["failed"].items():
            yield f"  {count} not delivered: {reason}"
        if each["failed"] and "last_failure" in each:
            yield f"  last failure: {each['last_failure']}"
    if not any(each["sent"] or each["failed"] for each in told["destinations"]):
        yield "no span is like that"
    if told["unfinished"]:
        yield f"{told['unfinished']} left out: they have not ended"
