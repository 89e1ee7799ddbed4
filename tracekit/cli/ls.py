"""``tracekit ls``: the newest traces of the store."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from tracekit.cli._options import Duration, Moment, store_option, terminal_of_stdout

if TYPE_CHECKING:
    from tracekit.exporters._terminal import Terminal
    from tracekit.store.answers import TraceSummary

__all__ = ["command"]

ID_DIGITS = 8
MAX_SERVICES = 4


@click.command(short_help="List the newest traces.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="So many at most.",
)
@click.option("--service", help="Only traces with a span of this service.")
@click.option("--name", help="Only traces with a span of this name.")
@click.option("--since", type=Moment(), help="Only traces since: 10m, 2h, 3d ago, 14:30, a date.")
@click.option("--min-duration", type=Duration(), help="Only traces this long, such as 250ms.")
@click.option("--errors", is_flag=True, help="Only traces with an error in them.")
@click.option("--slowest", is_flag=True, help="The slowest first, instead of the newest.")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list.")
@store_option
def command(
    limit: int,
    service: str | None,
    name: str | None,
    since: int | None,
    min_duration: int | None,
    errors: bool,
    slowest: bool,
    as_json: bool,
    store: str | None,
) -> None:
    """List traces: when they began, how long they took, and through which services they went.

    The id in the first column is what `tracekit show` takes.
    """
    from tracekit.store.query import SpanFilter, TraceFilter
    from tracekit.store.reader import StoreReader

    where = TraceFilter(since_ns=since, min_duration_ns=min_duration, errors_only=errors)
    spans = SpanFilter(service=service, name=name)
    with StoreReader(store) as reader:
        order: Any = "slowest" if slowest else "newest"
        found = reader.traces(limit, where=where, spans=spans, order=order)
        if not found and not reader.traces(1):
            _refuse_empty(reader.path)
    if as_json:
        click.echo(json.dumps([_plain(trace) for trace in found], indent=2, ensure_ascii=False))
    elif found:
        terminal = terminal_of_stdout()
        click.echo("\n".join(_table(found, terminal)), color=terminal.color)
    else:
        click.echo("No trace is like that; `tracekit ls` alone lists all.", err=True)


def _refuse_empty(path: Any) -> None:
    from tracekit.errors import StoreError

    raise StoreError(
        f"span store {path} is empty: trace a program first (tracekit run python app.py)"
    )


def _plain(trace: TraceSummary) -> dict[str, Any]:
    fields = {**asdict(trace), "duration_ns": trace.duration_ns}
    return {**fields, "trace_id": f"{trace.trace_id:032x}", "services": list(trace.services)}


def _table(traces: Sequence[TraceSummary], terminal: Terminal) -> Iterator[str]:
    from tracekit.exporters._terminal import Style

    style = Style(terminal.color)
    digits = _digits(traces)
    heading = f"{'trace':<{digits}}  {'started':<12}  {'duration':>8}  {'spans':>5}  {'errors':>6}"
    yield style.paint("dim", f"{heading}  name")
    for trace in traces:
        yield _line(trace, digits, terminal, style)


def _digits(traces: Sequence[TraceSummary]) -> int:
    """Return how many digits of the ids tell the listed traces from each other."""
    digits = ID_DIGITS
    ids = [f"{trace.trace_id:032x}" for trace in traces]
    while len({text[:digits] for text in ids}) < len(ids):
        digits += 1
    return digits


def _line(trace: TraceSummary, digits: int, terminal: Terminal, style: Any) -> str:
    from tracekit.exporters._terminal import clip, printable
    from tracekit.trace import format_duration

    duration = trace.duration_ns
    took = (
        "open" if duration is None else format_duration(duration, "µ" if terminal.unicode else "u")
    )
    start = f"{f'{trace.trace_id:032x}'[:digits]}  {_when(trace.start_ns):<12}  {took:>8}"
    errors = f"{trace.error_count or '':>6}"
    into = " ▸ " if terminal.unicode else " > "
    name = printable(f"{trace.service}{into}{trace.name}")
    others = printable(_others(trace))
    room = max(20, terminal.width - len(start) - 17)
    shown = clip(name, room, "…" if terminal.unicode else "...")
    tail = clip(others, room - len(shown) - 2, "…" if terminal.unicode else "...")
    return (
        f"{start}  {trace.span_count:>5}  {style.paint('red', errors)}  "
        f"{style.paint('bold_red' if trace.failed else 'bold', shown)}  {style.paint('dim', tail)}"
    ).rstrip()


def _others(trace: TraceSummary) -> str:
    others = [name for name in trace.services if name != trace.service]
    more = len(others) - MAX_SERVICES
    text = ", ".join(others[:MAX_SERVICES]) + (f" and {more} more" if more > 0 else "")
    open_spans = f"{trace.unfinished} unfinished" if trace.unfinished else ""
    return "  ".join(part for part in (f"+ {text}" if text else "", open_spans) if part)


def _when(start_ns: int) -> str:
    try:
        started = datetime.fromtimestamp(start_ns / 1e9)
    except (ValueError, OverflowError, OSError):
        return "?"
    now = datetime.now()
    if started.date() == now.date():
        return f"{started:%H:%M:%S}"
    return f"{started:%b %d %H:%M}" if started.year == now.year else f"{started:%Y-%m-%d}"
