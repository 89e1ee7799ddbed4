"""``tracekit top``: the endpoints, how often and how fast they answer, and what is wrong there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from tracekit.cli._options import Moment, store_option, terminal_of_stdout

if TYPE_CHECKING:
    from tracekit.exporters._terminal import Terminal
    from tracekit.store.answers import TraceSummary
    from tracekit.store.reader import StoreReader

__all__ = ["command"]

MAX_TRACES = 10_000
WORST = 3


@dataclass
class Endpoint:
    """The traces that began with one operation of one service."""

    service: str
    name: str
    traces: list[TraceSummary] = field(default_factory=list)
    findings: dict[str, int] = field(default_factory=dict)

    @property
    def durations(self) -> list[int]:
        return sorted(trace.duration_ns or 0 for trace in self.traces)

    @property
    def errors(self) -> int:
        return sum(trace.failed for trace in self.traces)

    @property
    def worst(self) -> list[TraceSummary]:
        return sorted(self.traces, key=lambda trace: -(trace.duration_ns or 0))[:WORST]

    def percentile(self, share: float) -> int:
        found = self.durations
        return found[min(len(found) - 1, int(len(found) * share))]


@click.command(short_help="List endpoints: rate, errors, percentiles, worst traces, findings.")
@click.option("--since", type=Moment(), help="Only traces since: 10m, 2h, 3d ago, 14:30, a date.")
@click.option("--service", help="Only traces with a span of this service.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="So many at most.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@store_option
def command(
    since: int | None, service: str | None, limit: int, as_json: bool, store: str | None
) -> None:
    """List what is asked of the services: most time spent first.

    The findings are those of the three slowest traces of each.
    """
    from tracekit.cli._traces import opened
    from tracekit.store.query import SpanFilter, TraceFilter

    with opened(store) as reader:
        traces = reader.traces(
            MAX_TRACES, where=TraceFilter(since_ns=since), spans=SpanFilter(service=service)
        )
        found = _endpoints(traces)[:limit]
        _add_findings(reader, found)
    window_s = _window_s(traces)
    if as_json:
        rows = [_plain(endpoint, window_s) for endpoint in found]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif found:
        terminal = terminal_of_stdout()
        click.echo("\n".join(_table(found, window_s, terminal)), color=terminal.color)
    else:
        click.echo("No trace is like that; `tracekit ls` lists all.", err=True)


def _endpoints(traces: Sequence[TraceSummary]) -> list[Endpoint]:
    known: dict[tuple[str, str], Endpoint] = {}
    for trace in traces:
        if trace.duration_ns is not None:
            key = (trace.service, trace.name)
            known.setdefault(key, Endpoint(*key)).traces.append(trace)
    return sorted(known.values(), key=lambda endpoint: -sum(endpoint.durations))


def _window_s(traces: Sequence[TraceSummary]) -> float:
    """Return from when until when traces began, at least a second."""
    starts = [trace.start_ns for trace in traces]
    return max(1.0, (max(starts) - min(starts)) / 1e9) if starts else 1.0


def _add_findings(reader: StoreReader, endpoints: Sequence[Endpoint]) -> None:
    from tracekit.cli._traces import read_trace, usual
    from tracekit.findings._ranking import find_all

    history = usual(reader)
    for endpoint in endpoints:
        for trace in endpoint.worst:
            for kind in {
                item.kind for item in find_all(read_trace(reader, trace.trace_id), history)
            }:
                endpoint.findings[kind] = endpoint.findings.get(kind, 0) + 1


def _plain(endpoint: Endpoint, window_s: float) -> dict[str, Any]:
    return {
        "service": endpoint.service,
        "name": endpoint.name,
        "traces": len(endpoint.traces),
        "per_minute": round(len(endpoint.traces) * 60 / window_s, 3),
        "errors": endpoint.errors,
        **{
            f"p{share}_ms": round(endpoint.percentile(share / 100) / 1e6, 3)
            for share in (50, 95, 99)
        },
        "worst": [f"{trace.trace_id:032x}" for trace in endpoint.worst],
        "findings": endpoint.findings,
    }


def _table(found: Sequence[Endpoint], window_s: float, terminal: Terminal) -> Iterator[str]:
    from tracekit.exporters._terminal import Style, clip, printable
    from tracekit.trace import format_duration

    style = Style(terminal.color)
    heading = f"{'traces':>6} {'/min':>7} {'errors':>6} {'p50':>8} {'p95':>8} {'p99':>8}"
    yield style.paint("dim", f"{heading}  endpoint")
    into, micro = (" ▸ ", "µ") if terminal.unicode else (" > ", "u")
    for endpoint in found:
        times = " ".join(
            f"{format_duration(endpoint.percentile(share), micro):>8}"
            for share in (0.5, 0.95, 0.99)
        )
        rate = len(endpoint.traces) * 60 / window_s
        numbers = f"{len(endpoint.traces):>6} {rate:>7.1f} {endpoint.errors or '':>6} {times}"
        name = printable(f"{endpoint.service}{into}{endpoint.name}")
        yield f"{numbers}  {style.paint('bold', clip(name, max(20, terminal.width - 50), '.'))}"
        worst = endpoint.worst[0]
        told = ", ".join(sorted(endpoint.findings)) or "no findings"
        yield style.paint("dim", f"{'':>49}{told}; slowest {worst.trace_id:032x}"[: terminal.width])
