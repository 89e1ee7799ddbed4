"""``tracekit findings``: what is wrong, with the spans that prove it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from tracekit.cli._options import Moment, store_option, terminal_of_stdout
from tracekit.cli._trace_files import format_option
from tracekit.cli._traces import Wanted, of_files, of_source, of_store
from tracekit.cli._wrapped import shown, wrapped

if TYPE_CHECKING:
    from tracekit.cli._traces import Traces
    from tracekit.exporters._terminal import Terminal
    from tracekit.findings._many import Pattern
    from tracekit.model import Finding
    from tracekit.trace import Trace

__all__ = ["command"]

MAX_TRACES = 1000
MAX_PATTERNS = 20
MAX_IDS = 5


@click.command(short_help="Say what is wrong: slow steps, repeated calls, retries, timeouts.")
@click.argument("trace", default="")
@click.option("--since", type=Moment(), help="All traces since: 10m, 2h, 3d ago, 14:30, a date.")
@click.option("--service", help="All traces with a span of this service.")
@click.option("--endpoint", help="All traces with a span of this name, such as 'GET /users'.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=MAX_TRACES,
    show_default=True,
    help="So many traces at most.",
)
@click.option(
    "--file",
    "paths",
    multiple=True,
    type=click.Path(),
    help="Traces of a file instead of the store's; - is standard input. May be said again.",
)
@format_option
@click.option(
    "--from",
    "server",
    metavar="NAME:URL",
    help="Traces of a server: jaeger:http://localhost:16686, zipkin:…, tempo:… or clickhouse:…",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--fail-on", help="Exit with 1 if one of these kinds is found; with commas, or any.")
@store_option
def command(
    trace: str,
    since: int | None,
    service: str | None,
    endpoint: str | None,
    limit: int,
    paths: tuple[str, ...],
    format_name: str | None,
    server: str | None,
    as_json: bool,
    fail_on: str | None,
    store: str | None,
) -> None:
    """Say what is wrong with TRACE (by default the latest), most important first.

    With --since, --service or --endpoint: with all traces that match, by the time that is wasted
    altogether. With --file: with what OpenTelemetry, Jaeger or Zipkin wrote as JSON. With --from:
    with what a server has, which is only read; of the last day unless --since says more.
    """
    unwanted = _kinds(fail_on)
    wanted = Wanted(since, service, endpoint)
    if wanted.is_any and trace:
        raise click.UsageError("give a TRACE, or --since, --service and --endpoint; not both")
    if server and paths:
        raise click.UsageError("give --file or --from; not both")
    if server:
        source = of_source(server, trace, wanted, limit)
    elif paths:
        source = of_files(paths, format_name, trace, wanted, limit)
    else:
        source = of_store(store, trace, wanted, limit)
    tell = _tell_one if len(source.traces) == 1 and not wanted.is_any else _tell_many
    if any(kind in unwanted for kind in tell(source, as_json)):
        raise SystemExit(1)


def _kinds(fail_on: str | None) -> set[str]:
    from tracekit.errors import UnknownNameError
    from tracekit.findings._ranking import kinds

    known = kinds()
    wanted = {word.strip() for word in (fail_on or "").split(",") if word.strip()}
    if "any" in wanted:
        return set(known)
    for name in sorted(wanted - set(known)):
        raise UnknownNameError("finding", name, [*known, "any"], "--fail-on")
    return wanted


# One trace -----------------------------------------------------------------------------------


def _tell_one(source: Traces, as_json: bool) -> list[str]:
    from tracekit.findings._ranking import find_all

    (trace,) = source.traces
    found = find_all(trace, source.history)
    if as_json:
        click.echo(json.dumps([plain(item) for item in found], indent=2, ensure_ascii=False))
    else:
        terminal = terminal_of_stdout()
        click.echo("\n".join(_page(trace, found, terminal)), color=terminal.color)
    return [item.kind for item in found]


def plain(found: Finding) -> dict[str, Any]:
    """Return a finding as JSON has it."""
    return {
        "kind": found.kind,
        "severity": found.severity.name.lower(),
        "message": found.message,
        "service": found.service,
        "operation": found.operation,
        "cost_ms": round(found.cost_ns / 1e6, 3),
        "share": round(found.share, 4),
        "advice": found.advice,
        "location": found.location,
        "trace_id": f"{found.trace_id:032x}",
        "spans": [f"{span_id:016x}" for span_id in found.spans],
    }


def _page(trace: Trace, found: Sequence[Finding], terminal: Terminal) -> Iterator[str]:
    from tracekit.exporters._terminal import Style
    from tracekit.findings._many import endpoint
    from tracekit.trace import format_duration

    style = Style(terminal.color)
    title = f"{endpoint(trace)}  {format_duration(trace.latency_ns)}  trace {trace.trace_id:032x}"
    yield style.paint("bold", shown(title, terminal))
    if not found:
        yield "Nothing is wrong with it."
    for number, item in enumerate(found, 1):
        yield ""
        yield from _finding(number, item, style, terminal)


def _finding(number: int, item: Finding, style: Any, terminal: Terminal) -> Iterator[str]:
    color = {"HIGH": "bold_red", "MEDIUM": "yellow", "LOW": "dim"}[item.severity.name]
    label = style.paint(color, f"{number}. {item.kind}")
    yield from wrapped(label, len(f"{number}. {item.kind}"), item.message, terminal)
    yield from wrapped("   do", 5, item.advice, terminal)
    ids = [f"{span_id:016x}" for span_id in item.spans[:MAX_IDS]]
    more = f" and {len(item.spans) - MAX_IDS} more" if len(item.spans) > MAX_IDS else ""
    yield style.paint("dim", f"   spans {' '.join(ids)}{more}")
    if item.location:
        yield style.paint("dim", f"   code {shown(item.location, terminal)}")


# Many traces ---------------------------------------------------------------------------------


def _tell_many(source: Traces, as_json: bool) -> list[str]:
    from tracekit.findings._many import patterns
    from tracekit.findings._ranking import find_all

    traces = source.traces
    found = patterns((trace, find_all(trace, source.history)) for trace in traces)
    if as_json:
        click.echo(json.dumps([_plain_pattern(item) for item in found], indent=2))
    else:
        terminal = terminal_of_stdout()
        click.echo("\n".join(_table(found, len(traces), terminal)), color=terminal.color)
    return [item.kind for item in found]


def _plain_pattern(pattern: Pattern) -> dict[str, Any]:
    return {
        "kind": pattern.kind,
        "severity": pattern.severity.name.lower(),
        "service": pattern.service,
        "operation": pattern.operation,
        "traces": pattern.traces,
        "total_ms": round(pattern.total_ns / 1e6, 3),
        "endpoints": pattern.endpoints,
        "examples": [plain(item) for item in pattern.examples],
    }


def _table(found: Sequence[Pattern], traces: int, terminal: Terminal) -> Iterator[str]:
    from tracekit.exporters._terminal import Style
    from tracekit.findings._found import counted
    from tracekit.trace import format_duration

    style = Style(terminal.color)
    title = f"{counted(len(found), 'finding')} in {counted(traces, 'trace')}"
    yield style.paint("bold", f"{title}, by the time they waste")
    for pattern in found[:MAX_PATTERNS]:
        yield ""
        wasted = format_duration(pattern.total_ns)
        head = f"{wasted:>8}  {counted(pattern.traces, 'trace')}  {pattern.kind}"
        about = f"{pattern.service} ▸ {pattern.operation}"
        yield f"{style.paint('bold', head)}  {shown(about, terminal)}"
        worst = pattern.examples[0]
        yield from wrapped("   e.g.", 7, worst.message, terminal)
        yield style.paint("dim", f"   trace {worst.trace_id:032x}")
    if len(found) > MAX_PATTERNS:
        yield style.paint("dim", f"and {len(found) - MAX_PATTERNS} more (--json lists all)")
