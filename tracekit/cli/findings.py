"""``tracekit findings``: what is wrong, with the spans that prove it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import click

from tracekit.cli._options import Moment, terminal_of_stdout
from tracekit.cli._place import Place, opened, place_options
from tracekit.cli._traces import Wanted
from tracekit.cli._wrapped import shown, wrapped

if TYPE_CHECKING:
    from tracekit.exporters._terminal import Terminal
    from tracekit.findings._history import History
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
@place_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--fail-on", help="Exit with 1 if one of these kinds is found; with commas, or any.")
def command(
    trace: str,
    since: int | None,
    service: str | None,
    endpoint: str | None,
    limit: int,
    as_json: bool,
    fail_on: str | None,
    place: Place,
) -> None:
    """Say what is wrong with TRACE (by default the latest), most important first.

    With --since, --service or --endpoint: with all traces that match, by the time that is wasted
    altogether. With --file: with what OpenTelemetry, Jaeger, Zipkin or Datadog wrote as JSON. With
    --from: with what a server has, which is only read; of the last day unless --since says more.
    """
    unwanted = _kinds(fail_on)
    wanted = Wanted(since, service, endpoint)
    if wanted.is_any and trace:
        raise click.UsageError("give a TRACE, or --since, --service and --endpoint; not both")
    with opened(place) as traces:
        if wanted.is_any:
            found = traces.many(wanted, limit)
            if not found:
                raise click.ClickException(traces.nothing)
        else:
            found = [traces.one(trace)] if trace else traces.unnamed(limit)
        tell = _tell_one if len(found) == 1 and not wanted.is_any else _tell_many
        usual = traces.usual(found[0] if tell is _tell_one else None)
    if any(kind in unwanted for kind in tell(found, usual, as_json)):
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


def _tell_one(traces: Sequence[Trace], usual: History, as_json: bool) -> list[str]:
    from tracekit.findings._ranking import find_all

    (trace,) = traces
    found = find_all(trace, usual)
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
        yield style.paint("dim", f"   code {shown(_from_here(item.location), terminal)}")


def _from_here(location: str) -> str:
    """Return a place in the code as seen from the working folder, if it lies below that."""
    return location.removeprefix(f"{os.getcwd()}{os.sep}")


# Many traces ---------------------------------------------------------------------------------


def _tell_many(traces: Sequence[Trace], usual: History, as_json: bool) -> list[str]:
    from tracekit.findings._many import patterns
    from tracekit.findings._ranking import find_all

    found = patterns((trace, find_all(trace, usual)) for trace in traces)
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
        wasted = format_duration(pattern.total_ns) if pattern.total_ns else "no time"
        head = f"{wasted:>8}  {counted(pattern.traces, 'trace')}  {pattern.kind}"
        about = f"{pattern.service} ▸ {pattern.operation}"
        yield f"{style.paint('bold', head)}  {shown(about, terminal)}"
        worst = pattern.examples[0]
        yield from wrapped("   e.g.", 7, worst.message, terminal)
        yield style.paint("dim", f"   trace {worst.trace_id:032x}")
    if len(found) > MAX_PATTERNS:
        yield style.paint("dim", f"and {len(found) - MAX_PATTERNS} more (--json lists all)")
