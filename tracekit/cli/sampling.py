"""``tracekit sampling``: which sampling is configured, and what other settings would have kept."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from tracekit.cli._options import Moment, terminal_of_stdout
from tracekit.cli._place import Place, opened, place_options
from tracekit.cli._traces import Wanted

if TYPE_CHECKING:
    from tracekit.cli._dry_run import DryRun, Volume
    from tracekit.exporters._terminal import Terminal
    from tracekit.settings import Settings

__all__ = ["command"]

MAX_TRACES = 10_000
SHOWN = 30
MONTH_S = 30 * 86_400.0
SETTINGS = ("sampler", "sampler_argument", "rules", "tail", "drop")


@click.command(short_help="Say what other settings of sampling would have kept.")
@click.option("--dry-run", is_flag=True, help="Replay traces that are there already.")
@click.option("--sampler", metavar="NAME[:ARG]|SHARE", help="Such as 0.1 or adaptive:20.")
@click.option("--rules", help="Such as 'drop route=/health*; 5/s route=/search; 10%'.")
@click.option("--tail", help="Such as 5%, or a table as JSON; false for none.")
@click.option("--drop", help="Such as 'health; drop name=PING'; false for none.")
@click.option("--config", type=click.Path(), help="A file such as TRACEKIT_CONFIG names.")
@click.option("--since", type=Moment(), help="Only traces since: 10m, 2h, 3d ago, 14:30, a date.")
@click.option("--service", help="Only traces with a span of this service.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=MAX_TRACES,
    show_default=True,
    help="So many traces at most, the newest.",
)
@click.option(
    "--price-per-million", type=click.FloatRange(min=0), help="What a million spans costs."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@place_options
def command(
    dry_run: bool,
    config: str | None,
    since: int | None,
    service: str | None,
    limit: int,
    price_per_million: float | None,
    as_json: bool,
    place: Place,
    **said: str | None,
) -> None:
    """Show the settings of sampling that a program started here has.

    With --dry-run: how much of traces that are there already they would have kept, by operation.
    Options stand in the place of what is configured. Decisions at the start are made with what a
    span of ours knows then. Where what is stored was sampled before, it is a part of the traffic.
    """
    from tracekit.cli._dry_run import DryRun

    # Made at once, so that settings which cannot work are told before anything is read.
    run = DryRun(_settings(config, said))
    if not dry_run:
        click.echo(json.dumps(_plain_settings(run), indent=2) if as_json else _described(run))
        return
    with opened(place) as traces:
        run.replay(traces.many(Wanted(since, service), limit))
    if as_json:
        click.echo(json.dumps(_plain(run, price_per_million), indent=2, ensure_ascii=False))
    elif not run.total.traces:
        click.echo("No trace is like that; `tracekit ls` lists all.", err=True)
    else:
        terminal = terminal_of_stdout()
        lines = _page(run, price_per_million, terminal)
        click.echo("\n".join(lines), color=terminal.color)


def _settings(config: str | None, said: dict[str, str | None]) -> Settings:
    from tracekit import settings
    from tracekit.errors import ConfigurationError
    from tracekit.settings_file import SettingsFile

    found = settings.load({})
    if config is not None:
        file = SettingsFile(config)
        if file.signature() is None:
            raise ConfigurationError(f"--config: {file.path} is not there")
        found = settings.over(found, settings.load_file(file))
    given = {
        key: settings.Setting(value, f"--{key}") for key, value in said.items() if value is not None
    }
    if "sampler" in given:
        given.update(_sampler(str(given["sampler"].value)))
    return settings.over(found, given)


def _sampler(text: str) -> Settings:
    from tracekit.settings import Setting

    name, _, argument = text.partition(":")
    try:
        return {"sampler": Setting(float(name), "--sampler")}
    except ValueError:
        found = {"sampler": Setting(name, "--sampler")}
    return {**found, "sampler_argument": Setting(argument, "--sampler")} if argument else found


# For people --------------------------------------------------------------------------------


def _described(run: DryRun) -> str:
    found = [(key, run.settings[key]) for key in SETTINGS if key in run.settings]
    return "\n".join(
        [
            f"sampler  {run.sampler.get_description()}",
            *(f"{key} = {setting.value} (from {setting.source})" for key, setting in found),
            "--dry-run replays traces that are there already.",
        ]
    )


def _page(run: DryRun, price: float | None, terminal: Terminal) -> Iterator[str]:
    from tracekit.exporters._terminal import Style

    style = Style(terminal.color)
    yield style.paint("dim", f"{'traces':>8} {'kept':>8} {'':>6} {'spans kept':>12}  operation")
    ordered = sorted(run.operations.items(), key=lambda item: -item[1].kept_spans)
    for (service, name), volume in ordered[:SHOWN]:
        yield _row(volume, f"{service}{' ▸ ' if terminal.unicode else ' > '}{name}", terminal)
    if len(ordered) > SHOWN:
        yield style.paint("dim", f"and {len(ordered) - SHOWN} more (--json lists all)")
    yield style.paint("bold", _row(run.total, "altogether", terminal))
    yield ""
    yield from _told(run, price)


def _row(volume: Volume, name: str, terminal: Terminal) -> str:
    from tracekit.exporters._terminal import clip, printable

    share = f"{100 * volume.kept_traces / max(1, volume.traces):.1f}%"
    numbers = f"{volume.traces:>8} {volume.kept_traces:>8} {share:>6} {volume.kept_spans:>12}"
    return f"{numbers}  {clip(printable(name), max(20, terminal.width - 42), '.')}"


def _told(run: DryRun, price: float | None) -> Iterator[str]:
    total = run.total
    yield f"sampler  {run.sampler.get_description()}"
    yield (
        f"{total.kept_spans} of {total.spans} spans, {_bytes(total.kept_bytes)} of "
        f"{_bytes(total.bytes)} as OTLP, in {_time(run.window_s)} of traffic"
    )
    if run.reasons:
        reasons = ", ".join(f"{count} for {reason}" for reason, count in run.reasons.most_common())
        yield f"kept at the end, by process: {reasons}"
    fates = [(fate, count) for fate, count in run.fates.most_common() if count and fate != "kept"]
    yield f"spans left out: {', '.join(f'{count} by {fate}' for fate, count in fates) or 'none'}"
    for rule in _unmatched(run):
        yield f"rule {rule} matched nothing"
    if price is not None:
        cost = _cost(run, price)
        yield (
            f"a month of such traffic costs {cost['month_kept']:,.2f}, "
            f"all of it {cost['month_all']:,.2f}"
        )


def _bytes(count: int) -> str:
    size = float(count)
    for unit in ("B", "KB", "MB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} GB"


def _time(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"


def _unmatched(run: DryRun) -> Sequence[str]:
    root: Any = getattr(run.sampler, "root_sampler", run.sampler)
    counts = root.counts() if hasattr(root, "counts") else {}
    return [rule for rule, count in counts.items() if rule[0].isdigit() and not any(count.values())]


def _cost(run: DryRun, price: float) -> dict[str, float]:
    """Return what spans cost: those that are there, and in a month that goes on like that."""
    all_of_them = run.total.spans * price / 1e6
    kept = run.total.kept_spans * price / 1e6
    months = MONTH_S / run.window_s
    return {
        "per_million_spans": price,
        "all": all_of_them,
        "kept": kept,
        "month_all": all_of_them * months,
        "month_kept": kept * months,
    }


# For programs ------------------------------------------------------------------------------


def _plain_settings(run: DryRun) -> dict[str, Any]:
    found = {key: run.settings[key] for key in SETTINGS if key in run.settings}
    return {
        "sampler": run.sampler.get_description(),
        "settings": {
            key: {"value": str(setting.value), "source": setting.source}
            for key, setting in found.items()
        },
    }


def _plain(run: DryRun, price: float | None) -> dict[str, Any]:
    operations = [
        {"service": service, "name": name, **asdict(volume)}
        for (service, name), volume in run.operations.items()
    ]
    return {
        **_plain_settings(run),
        "window_s": round(run.window_s, 3),
        "total": asdict(run.total),
        "operations": sorted(operations, key=lambda row: -row["kept_spans"]),
        "spans": {fate: count for fate, count in run.fates.items() if count},
        "reasons": dict(run.reasons),
        "rules_that_matched_nothing": list(_unmatched(run)),
        **({} if price is None else {"cost": _cost(run, price)}),
    }
