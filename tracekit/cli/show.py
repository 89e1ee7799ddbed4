"""``tracekit show``: one trace as a tree, and where its time went."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from tracekit.cli._options import terminal_of_stdout
from tracekit.cli._place import Place, opened, place_options

if TYPE_CHECKING:
    from tracekit.exporters._terminal import Terminal
    from tracekit.findings._critical_path import Spent
    from tracekit.model import Finding
    from tracekit.trace import Trace

__all__ = ["command"]

MAX_STEPS = 5
MAX_BAR_WIDTH = 24
_EIGHTHS = ("", "▏", "▎", "▍", "▌", "▋", "▊", "▉")


@click.command(short_help="Show one trace as a tree, and where its time went.")
@click.argument("trace", default="last")
@click.option("--json", "as_json", is_flag=True, help="Print the spans as OTLP JSON.")
@click.option("--color/--no-color", default=None, help="Colours; by default on a terminal only.")
@click.option("--width", type=click.IntRange(min=40), help="Columns; by default the terminal's.")
@click.option("--all", "everything", is_flag=True, help="A line for each of many equal spans.")
@click.option(
    "--findings/--no-findings", "marked", default=True, help="Flag the spans that prove a finding."
)
@place_options
def command(
    trace: str,
    place: Place,
    as_json: bool,
    color: bool | None,
    width: int | None,
    everything: bool,
    marked: bool,
) -> None:
    """Show TRACE as a tree: who called whom, how long each step took, what failed.

    TRACE is a trace id, of which the first few digits are enough, or `last` (the default).
    Behind each span are its duration and its self time: what no child of it accounts for.
    """
    with opened(place) as traces:
        shown = traces.one(trace)
        usual = traces.usual(shown) if marked and not as_json else {}
    spans = [node.span for node in shown.nodes if node.span is not None]
    if as_json:
        from tracekit.exporters._otlp_json import encode

        click.echo(json.dumps(encode(spans), indent=2, ensure_ascii=False))
        return
    from tracekit.exporters._forest import build_forests
    from tracekit.exporters._tree import render_tree
    from tracekit.findings._ranking import find_all

    terminal = terminal_of_stdout(color, width)
    found = find_all(shown, usual) if marked else []
    tree = render_tree(spans, terminal=terminal, collapse=not everything, marks=_marks(found))
    lines = [line for forest in build_forests(spans) for line in _where(forest, terminal)]
    lines += _wrong(found, terminal)
    # Colours were decided above; click would take them out of a pipe again.
    click.echo(tree + "\n".join(lines), color=terminal.color)


def _marks(found: Sequence[Finding]) -> dict[int, str]:
    """Return the numbers of the findings that a span proves, by span id."""
    marks: dict[int, str] = {}
    for number, item in enumerate(found, 1):
        for span_id in item.spans:
            marks[span_id] = f"{marks[span_id]},{number}" if span_id in marks else str(number)
    return marks


def _wrong(found: Sequence[Finding], terminal: Terminal) -> Iterator[str]:
    from tracekit.cli._wrapped import wrapped
    from tracekit.exporters._terminal import Style

    if not found:
        return
    flag = "⚑" if terminal.unicode else "#"
    yield ""
    heading = "what is wrong (tracekit findings says more)"
    yield Style(terminal.color).paint("bold", heading[: terminal.width])
    for number, item in enumerate(found, 1):
        label = f"{flag}{number} {item.kind}"
        yield from wrapped(label, len(label), item.message, terminal)


def _where(forest: Trace, terminal: Terminal) -> Iterator[str]:
    from tracekit.findings._critical_path import by_service, by_step

    steps = [part for part in by_step(forest) if part.duration_ns]
    total = sum(part.duration_ns for part in steps)
    if len(forest.nodes) < 2 or not steps:
        return
    table = _Table(terminal, total)
    yield ""
    yield table.heading("where the time went")
    services = by_service(forest)
    if len(services) > 1:
        yield from (table.line(part, part.service or "(no service)") for part in services)
        yield ""
        yield table.heading("slowest steps, without what they wait for")
    for part in steps[:MAX_STEPS]:
        times = f"  {part.spans} spans" if part.spans > 1 else ""
        yield table.line(part, f"{part.service} {table.into} {part.name}{times}")
    if rest := steps[MAX_STEPS:]:
        yield table.rest(sum(part.duration_ns for part in rest), len(rest))


class _Table:
    """Lines of time, share and bar."""

    def __init__(self, terminal: Terminal, total_ns: int) -> None:
        from tracekit.exporters._terminal import Style

        self._terminal, self._total_ns = terminal, total_ns
        self._style = Style(terminal.color)
        self._bar_width = min(MAX_BAR_WIDTH, max(0, terminal.width - 40) // 2)
        self._ellipsis = "…" if terminal.unicode else "..."
        self._micro = "µ" if terminal.unicode else "u"
        self.into = "▸" if terminal.unicode else ">"

    def heading(self, text: str) -> str:
        return self._style.paint("bold", text[: self._terminal.width])

    def line(self, part: Spent, label: str) -> str:
        from tracekit.exporters._terminal import clip, printable

        share = part.duration_ns / self._total_ns
        times = self._times(part.duration_ns)
        bar = self._bar(share)
        room = self._terminal.width - len(times) - 3
        shown = clip(
            printable(label), room - self._bar_width - 2, "…" if self._terminal.unicode else "."
        )
        painted = self._style.paint("bold_yellow", bar) if share >= 0.5 else bar
        gap = " " * (self._bar_width - len(bar))
        return f"{times}  {painted}{gap}  {shown}".rstrip()

    def rest(self, duration_ns: int, steps: int) -> str:
        label = f"{self._times(duration_ns)}  {'':{self._bar_width}}  {steps} more"
        return self._style.paint("dim", label)

    def _bar(self, share: float) -> str:
        if not self._terminal.unicode:
            return "#" * round(share * self._bar_width)
        eighths = round(share * self._bar_width * 8)
        return "█" * (eighths // 8) + _EIGHTHS[eighths % 8]

    def _times(self, duration_ns: int) -> str:
        from tracekit.trace import format_duration

        share = f"{duration_ns / self._total_ns:6.1%}"
        return f"  {format_duration(duration_ns, self._micro):>8}  {share}"
