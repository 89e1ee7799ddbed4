"""``tracekit top``: the endpoints, how often and how fast they answer, and what is wrong there."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from tracekit.cli._options import Moment, terminal_of_stdout
from tracekit.cli._place import Place, opened, place_options
from tracekit.cli._traces import Asked, Traces, Wanted

if TYPE_CHECKING:
    from tracekit.exporters._terminal import Terminal

__all__ = ["command"]

WORST = 3
MIN_WINDOW_S = 60.0
"""Within less than a minute, a rate per minute would be a guess."""


@dataclass
class Endpoint:
    """The traces that began with one operation of one service."""

    service: str
    name: str
    traces: list[Asked] = field(default_factory=list)
    findings: dict[str, int] = field(default_factory=dict)

    @property
    def durations(self) -> list[int]:
        return sorted(trace.duration_ns for trace in self.traces)

    @property
    def errors(self) -> int:
        return sum(trace.failed for trace in self.traces)

    @property
    def worst(self) -> list[Asked]:
        return sorted(self.traces, key=lambda trace: -trace.duration_ns)[:WORST]

    def percentile(self, share: float) -> int:
        found = self.durations
        return found[min(len(found) - 1, int(len(found) * share))]


@click.command(short_help="List endpoints: rate, errors, percentiles, worst traces, findings.")
@click.option("--since", type=Moment(), help="Only traces since: 10m, 2h, 3d ago, 14:30, a date.")
@click.option("--service", help="Only traces with a span of this service.")
@click.option("--endpoint", help="Only traces with a span of this name, such as 'GET /users'.")
@click.option(
    "--limit",
    "-n",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="So many at most.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@place_options
def command(
    since: int | None,
    service: str | None,
    endpoint: str | None,
    limit: int,
    as_json: bool,
    place: Place,
) -> None:
    """List what is asked of the services: most time spent first.

    The findings are those of the three slowest traces of each. Of a store the newest 10,000
    traces count, of a server 1,000.
    """
    with opened(place) as traces:
        asked = traces.asked(Wanted(since, service, endpoint))
        found = _endpoints(asked)[:limit]
        _add_findings(traces, found)
    window_s = _window_s(asked)
    if as_json:
        rows = [_plain(endpoint, window_s) for endpoint in found]
        click.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    elif found:
        terminal = terminal_of_stdout()
        click.echo("\n".join(_table(found, window_s, terminal)), color=terminal.color)
    else:
        click.echo("No trace is like that; without options all are listed.", err=True)


def _endpoints(traces: Sequence[Asked]) -> list[Endpoint]:
    known: dict[tuple[str, str], Endpoint] = {}
    for trace in traces:
        key = (trace.service, trace.name)
        known.setdefault(key, Endpoint(*key)).traces.append(trace)
    return sorted(known.values(), key=lambda endpoint: -sum(endpoint.durations))


def _window_s(traces: Sequence[Asked]) -> float:
    """Return from when until when traces began, at least a minute."""
    starts = [trace.start_ns for trace in traces]
    return max(MIN_WINDOW_S, (max(starts) - min(starts)) / 1e9) if starts else MIN_WINDOW_S


def _add_findings(traces: Traces, endpoints: Sequence[Endpoint]) -> None:
    from tracekit.findings._ranking import find_all

    usual = traces.usual()
    for endpoint in endpoints:
        for asked in endpoint.worst:
            trace = traces.one(f"{asked.trace_id:032x}")
            for kind in {item.kind for item in find_all(trace, usual)}:
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
        yield from (style.paint("dim", line) for line in _below(endpoint, terminal))


def _below(endpoint: Endpoint, terminal: Terminal) -> Iterator[str]:
    """Say which trace was the slowest, and in how many of the slowest a finding was."""
    from tracekit.cli._wrapped import wrapped

    yield f"   slowest {endpoint.worst[0].trace_id:032x}"
    if endpoint.findings:
        often = sorted(endpoint.findings.items(), key=lambda item: (-item[1], item[0]))
        of = len(endpoint.worst)
        which = f"the {of} slowest" if of > 1 else "it"
        told = ", ".join(f"{kind} in {times}" if of > 1 else kind for kind, times in often)
        yield from wrapped("   findings", 11, f"of {which}: {told}", terminal)
