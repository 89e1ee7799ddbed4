"""``tracekit diff``: what differs between two traces, or between two sets of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tracekit.cli._options import Duration, Moment, terminal_of_stdout
from tracekit.cli._place import Place, opened, place_options
from tracekit.cli._traces import Asked, Traces, Wanted

if TYPE_CHECKING:
    from tracekit.exporters._terminal import Terminal
    from tracekit.findings._differences import Grown, Overrepresented
    from tracekit.trace import Trace

__all__ = ["command"]

MAX_TRACES = 250
"""Traces of each of the two sets."""
MAX_LINES = 10
SHOWN_NS = 1000.0

Sets = tuple[list["Trace"], list["Trace"]]


@click.command(short_help="Say what differs between two traces, or two sets of them.")
@click.argument("one", default="")
@click.argument("other", default="")
@click.option("--slower-than", type=Duration(), help="Traces slower than this against the others.")
@click.option("--failed", is_flag=True, help="Traces that failed against the others.")
@click.option(
    "--deploy", type=Moment(), help="Traces since then (10m, 14:30) against those before."
)
@click.option("--since", type=Moment(), help="Only traces since: 10m, 2h, 3d ago, 14:30, a date.")
@click.option("--service", help="Only traces with a span of this service.")
@click.option("--endpoint", help="Only traces with a span of this name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@place_options
def command(
    one: str,
    other: str,
    slower_than: int | None,
    failed: bool,
    deploy: int | None,
    since: int | None,
    service: str | None,
    endpoint: str | None,
    as_json: bool,
    place: Place,
) -> None:
    """Say what differs between the traces ONE and OTHER: steps that grew, or came, or went.

    Or between two sets: --slower-than, --failed or --deploy says how to part them. Of each, the
    newest 250 traces are compared.
    """
    ways = [slower_than is not None, failed, deploy is not None, bool(one)]
    if bool(one) != bool(other) or sum(ways) != 1:
        raise click.UsageError("give two traces, or one of --slower-than, --failed, --deploy")
    wanted = Wanted(since, service, endpoint)
    if one and wanted.is_any:
        raise click.UsageError("give two traces, or --since, --service and --endpoint; not both")
    with opened(place) as traces:
        if one:
            sets = [traces.one(one)], [traces.one(other)]
        elif deploy is not None:
            sets = _around(traces, wanted, deploy)
        else:
            sets = _parted(traces, wanted, _is_slow(slower_than) if slower_than else _has_failed)
    if not (sets[0] and sets[1]):
        empty = "first" if not sets[0] else "second"
        raise click.ClickException(f"the {empty} of the two sets holds no trace")
    _tell(sets, as_json)


def _around(traces: Traces, wanted: Wanted, moment_ns: int) -> Sets:
    """Return traces since a moment, and before it."""
    since = max(moment_ns, wanted.since_ns or 0)
    after = traces.many(wanted._replace(since_ns=since), MAX_TRACES)
    return after, traces.many(wanted._replace(until_ns=moment_ns), MAX_TRACES)


def _parted(traces: Traces, wanted: Wanted, is_in_first: Callable[[Asked], bool]) -> Sets:
    chosen: tuple[list[Asked], list[Asked]] = ([], [])
    for asked in traces.asked(wanted):
        chosen[0 if is_in_first(asked) else 1].append(asked)
    first, second = (
        [traces.one(f"{asked.trace_id:032x}") for asked in part[:MAX_TRACES]] for part in chosen
    )
    return first, second


def _is_slow(than_ns: int) -> Callable[[Asked], bool]:
    return lambda asked: asked.duration_ns >= than_ns


def _has_failed(asked: Asked) -> bool:
    return asked.failed


def _tell(sets: Sets, as_json: bool) -> None:
    from tracekit.findings._differences import grown_steps, overrepresented

    steps = [step for step in grown_steps(*sets) if abs(step.by_ns) >= SHOWN_NS]
    values = overrepresented(*sets)
    if as_json:
        told = {
            "traces": [len(part) for part in sets],
            "steps": [step._asdict() for step in steps],
            "attributes": [value._asdict() for value in values],
        }
        click.echo(json.dumps(told, indent=2, ensure_ascii=False))
        return
    terminal = terminal_of_stdout()
    click.echo("\n".join(_page(sets, steps, values, terminal)), color=terminal.color)


def _page(
    sets: Sets,
    steps: Sequence[Grown],
    values: Sequence[Overrepresented],
    terminal: Terminal,
) -> Iterator[str]:
    from tracekit.exporters._terminal import Style, clip, printable

    style = Style(terminal.color)
    took = " against ".join(f"{_mean(part)} ({len(part)})" for part in sets)
    yield style.paint("bold", f"mean duration (traces): {took}")
    yield ""
    yield style.paint("bold", "steps that differ, without what they wait for")
    shown = sorted(steps, key=lambda step: -abs(step.by_ns))[:MAX_LINES]
    into = " ▸ " if terminal.unicode else " > "
    for step in sorted(shown, key=lambda step: -step.by_ns):
        name = printable(f"{step.service}{into}{step.name}")
        change, number = _change(step), _number(step)
        room = terminal.width - len(change) - len(number) - 2
        yield f"{change}  {clip(name, max(20, room), '…' if terminal.unicode else '.')}{number}"
    if not shown:
        yield "  none"
    if values:
        yield ""
        yield style.paint("bold", "attribute values that are more frequent in the first")
    for value in values[:MAX_LINES]:
        told = printable(f"{value.key} = {value.value}")
        yield f"  {value.share:>6.0%} against {value.usual_share:>5.0%}  {told}"[: terminal.width]


def _mean(traces: Sequence[Trace]) -> str:
    from tracekit.trace import format_duration

    return format_duration(sum(trace.latency_ns for trace in traces) // len(traces))


def _change(step: Grown) -> str:
    from tracekit.trace import format_duration

    sign = "+" if step.by_ns > 0 else "-"
    change = f"{sign}{format_duration(abs(round(step.by_ns)))}"
    was, now = format_duration(round(step.usual_ns)), format_duration(round(step.mean_ns))
    return f"  {change:>9}  {now:>8} against {was:>8}"


def _number(step: Grown) -> str:
    if step.mean_spans == step.usual_spans:
        return ""
    unit = "span" if step.mean_spans == 1 else "spans"
    return f"  ({step.mean_spans:.3g} {unit} against {step.usual_spans:.3g})"
