"""``tracekit doctor``: what is configured, what would be traced, and where spans went."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import click

from tracekit.cli._columns import columns
from tracekit.cli._options import terminal_of_stdout

__all__ = ["command"]

PROCESSES = 5
SOURCE_WIDTH = 60


@click.command(short_help="Say why spans may be missing.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
@click.option(
    "--all", "everything", is_flag=True, help="Also what is not installed, all processes."
)
def command(as_json: bool, everything: bool) -> None:
    """Show what a program started here would do, and what became of the spans of earlier ones.

    Every setting with its source, every library that would be watched, whether exporters can
    deliver, and the ledger: where each process's spans went. The exit code is 1 if spans
    cannot arrive.
    """
    from tracekit.cli._diagnosis import diagnose

    found = diagnose()
    if as_json:
        click.echo(json.dumps(found, indent=2, default=_plain, ensure_ascii=False))
    else:
        page = _Page(everything)
        click.echo("\n".join(page.lines(found)), color=page.color)
    sys.exit(1 if found["problems"] else 0)


def _plain(value: Any) -> Any:
    # Not asdict(): it makes a Counter anew out of pairs, and counts those.
    return vars(value)


class _Page:
    """The diagnosis for people."""

    def __init__(self, everything: bool) -> None:
        from tracekit.exporters._terminal import Style

        terminal = terminal_of_stdout()
        self.color = terminal.color
        self._style = Style(terminal.color)
        self._everything = everything
        self._good, self._bad = ("✓", "✗") if terminal.unicode else ("ok", "!!")

    def lines(self, found: dict[str, Any]) -> Iterator[str]:
        from tracekit.cli._instrumented import library_rows

        libraries = library_rows(found, self._style, self._good, self._everything)
        yield from self._section("versions", columns(found["versions"].items()))
        yield from self._section("settings", columns(self._settings(found["settings"])))
        yield from self._section("exporters", columns(map(self._exporter, found["exporters"])))
        yield from self._section("libraries", columns(libraries))
        yield from self._section("where spans went", self._ledgers(found["ledgers"]))
        yield from self._section("waiting on the disk", columns(self._waiting(found["spool"])))
        yield from self._section("problems", self._problems(found["problems"]))

    def _section(self, title: str, rows: Iterable[str]) -> Iterator[str]:
        rows = list(rows)
        if rows:
            yield self._style.paint("bold", title)
            yield from (f"  {row}".rstrip() for row in rows)
            yield ""

    def _settings(self, rows: Sequence[dict[str, str]]) -> Iterator[Sequence[str]]:
        for row in rows:
            source = row["source"]
            shown = source if len(source) <= SOURCE_WIDTH else f"...{source[-SOURCE_WIDTH:]}"
            yield row["name"], row["value"], self._style.paint("dim", f"from {shown}")

    def _exporter(self, row: dict[str, Any]) -> Sequence[str]:
        if row["hindrance"]:
            state = self._style.paint("red", f"{self._bad} {row['hindrance']}")
        elif row["checked"]:
            state = self._style.paint("green", f"{self._good} reachable")
        else:
            state = ""
        return row["name"], row["destination"], state

    def _ledgers(self, ledgers: Sequence[dict[str, Any]]) -> Iterator[str]:
        from tracekit.cli._fate import explain

        shown = ledgers if self._everything else ledgers[:PROCESSES]
        for ledger in shown:
            fate = ledger["fate"]
            yield f"{self._process(ledger)}  {_counted(fate)}"
            for line in _sampling(ledger.get("stats", {}).get("sampling")):
                yield f"    {line}"
            for line in explain(fate, ledger["running"]):
                yield f"    {self._style.paint('yellow', line)}"
        if not ledgers:
            yield "No process has left a ledger: a program is traced once it calls"
            yield "tracekit.configure(), or is started with `tracekit run`."
        elif len(ledgers) > len(shown):
            yield self._style.paint("dim", f"{len(ledgers) - len(shown)} more with --all")

    def _waiting(self, rows: Sequence[dict[str, Any]]) -> Iterator[Sequence[str]]:
        for row in rows:
            since = f"for {_ago(row['oldest_s'])}"
            yield f"{row['spans']} spans", row["destination"], self._style.paint("dim", since)

    def _process(self, ledger: dict[str, Any]) -> str:
        state = "running" if ledger["running"] else f"ended {_ago(ledger.get('saved_s', 0))} ago"
        return f"{ledger['pid']} {self._style.paint('bold', str(ledger['service']))} ({state})"

    def _problems(self, problems: Sequence[str]) -> Iterator[str]:
        if not problems:
            yield f"{self._style.paint('green', self._good)} none found"
        for problem in problems:
            yield f"{self._style.paint('red', self._bad)} {problem}"


def _sampling(found: Any) -> Iterator[str]:
    """Say what is in force in a process where that was changed, and what rules sampled out."""
    if not isinstance(found, dict) or not isinstance(found.get("since"), (int, float)):
        return
    if found.get("by") != "configuration":
        until = f", until {_time(found['until'])}" if found.get("until") else ""
        since = f"since {_time(found['since'])}{until}, by {found.get('by')}"
        yield f"samples {found.get('sampler')} {since}"
    rules = found.get("rules")
    for rule, counts in rules.items() if isinstance(rules, dict) else ():
        if counts.get("sampled_out"):
            yield f"{counts['sampled_out']} traces sampled out by rule {rule}"
    if found.get("problem"):
        yield f"sampling stays as it was: {found['problem']}"


def _time(moment_s: float) -> str:
    return f"{datetime.fromtimestamp(moment_s):%Y-%m-%d %H:%M:%S}"


def _counted(fate: Any) -> str:
    parts = [f"{fate.started} started"]
    several = len(fate.exported) > 1
    for name, count in fate.exported.items():
        parts.append(f"{count} exported{f' by {name}' if several else ''}")
    parts += [
        f"{count} {what}"
        for count, what in (
            (fate.held, "held"),
            (fate.waiting, "queued"),
            (fate.live, "open"),
            (fate.sampled_out, "sampled out"),
            (sum(fate.filtered.values()), "filtered"),
            (fate.compressed, "compressed"),
            (fate.spooled, "spooled"),
            (fate.recovered, "recovered"),
            (sum(fate.lost.values()) + sum(fate.lost_from_spool.values()), "lost"),
        )
        if count
    ]
    return ", ".join(parts)


def _ago(then_s: float) -> str:
    seconds = max(0, int(time.time() - then_s))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
