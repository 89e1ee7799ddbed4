"""Where a command reads traces: options that are the same for all, and what they open."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from tracekit.cli._options import store_option
from tracekit.cli._trace_files import format_option

if TYPE_CHECKING:
    from tracekit.cli._traces import Traces

__all__ = ["Place", "opened", "place_options"]

_OPTIONS = (
    click.option(
        "--from",
        "server",
        metavar="NAME:URL",
        help="Traces of a server: jaeger:http://localhost:16686, zipkin:…, tempo:… or clickhouse:…",
    ),
    click.option(
        "--file",
        "paths",
        multiple=True,
        type=click.Path(),
        help="Traces of a file instead of the store's; - is standard input. May be said again.",
    ),
    format_option,
    store_option,
)


class Place(NamedTuple):
    """A store, files or a server: what the command line names, else the default store."""

    store: str | None = None
    paths: tuple[str, ...] = ()
    format_name: str | None = None
    server: str | None = None


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """Let a command take --from, --file, --format and --store, and get them as ``place``."""

    @functools.wraps(function)
    def with_place(
        *,
        store: str | None,
        paths: tuple[str, ...],
        format_name: str | None,
        server: str | None,
        **others: Any,
    ) -> None:
        if bool(store) + bool(paths) + bool(server) > 1:
            raise click.UsageError("give one of --from, --file and --store")
        function(place=Place(store, paths, format_name, server), **others)

    # The last to be applied is the first that --help lists.
    return functools.reduce(lambda made, option: option(made), reversed(_OPTIONS), with_place)


@contextmanager
def opened(place: Place) -> Iterator[Traces]:
    """Open a place for the time of a command.

    Raises:
        ClickException, TracekitError: It cannot be opened.
    """
    traces = _traces(place)
    try:
        yield traces
    finally:
        traces.close()


def _traces(place: Place) -> Traces:
    if place.server:
        from tracekit.cli._served_traces import ServedTraces

        return ServedTraces(place.server)
    if place.paths:
        from tracekit.cli._filed_traces import FiledTraces

        return FiledTraces(place.paths, place.format_name)
    from tracekit.cli._stored_traces import StoredTraces

    return StoredTraces(place.store)
