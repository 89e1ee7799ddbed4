"""``tracekit collector-config``: how to set an OpenTelemetry Collector up for these settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import click

from tracekit.cli._options import Duration

__all__ = ["command"]

_POSITIVE = click.IntRange(min=1)


@click.command(short_help="Print a Collector configuration that fits the current settings.")
@click.option(
    "--layer",
    default="single",
    metavar="LAYER",
    help="single; or with several Collectors balancing, and sampling behind it.",
)
@click.option(
    "--sampler",
    "samplers",
    multiple=True,
    metavar="HOST:PORT",
    help="Of the balancing layer: each Collector behind it, or one name for all in DNS.",
)
@click.option("--to", metavar="NAME", help="A destination's name, or a URL; else as configured.")
@click.option(
    "--tail-sampling/--no-tail-sampling", default=True, help="Decide when a trace is complete."
)
@click.option(
    "--keep",
    type=click.FloatRange(0, 100),
    default=10.0,
    show_default=True,
    help="Percent kept of the traces that are neither slow nor failed.",
)
@click.option(
    "--slow", type=Duration(), default="1s", show_default=True, help="Traces this long are kept."
)
@click.option(
    "--decision-wait",
    type=Duration(),
    default="10s",
    show_default=True,
    help="How long a trace may take to arrive.",
)
@click.option(
    "--traces-per-second",
    type=_POSITIVE,
    default=100,
    show_default=True,
    help="At each Collector, before sampling.",
)
@click.option(
    "--spans-per-trace", type=_POSITIVE, default=20, show_default=True, help="On average."
)
@click.option("--memory", type=click.IntRange(min=64), help="MiB; else what the traffic needs.")
def command(
    layer: str,
    samplers: Sequence[str],
    to: str | None,
    tail_sampling: bool,
    keep: float,
    slow: int,
    decision_wait: int,
    traces_per_second: int,
    spans_per_trace: int,
    memory: int | None,
) -> None:
    """Print a configuration of the OpenTelemetry Collector, fitted to the settings here.

    It listens where this environment sends, keeps within its memory, keeps failed and slow traces
    and a share of the others, and sends them on. With several Collectors, tail sampling needs
    all spans of a trace in one of them: programs send to a balancing layer, which sends each
    trace to one Collector of the sampling layer.
    """
    from tracekit import settings
    from tracekit.cli._collector import LAYERS, CollectorPlan, collector_tree
    from tracekit.cli._yaml import yaml_text
    from tracekit.errors import UnknownNameError
    from tracekit.exporters._otlp_settings import resolve

    if layer not in LAYERS:
        raise UnknownNameError("layer", layer, LAYERS)
    found = settings.load({})
    plan = CollectorPlan(
        layer,
        samplers,
        to or _configured_destination(found),
        tail_sampling,
        int(keep) if keep == int(keep) else keep,
        max(1, slow // 1_000_000),
        max(1, decision_wait // 1_000_000_000),
        traces_per_second,
        spans_per_trace,
        memory or 0,
    )
    tree, comments = collector_tree(plan, resolve({}))
    click.echo("\n".join(_heading(plan, found)))
    click.echo(yaml_text(tree, comments), nl=False)


def _configured_destination(found: Any) -> str:
    """Return the first exporter that is a place beyond a Collector; Jaeger if there is none."""
    from tracekit.exporters._presets import canonical
    from tracekit.settings import Setting, names_in

    listed = names_in(found.get("exporters", Setting("", "")).value)
    names = [name for name in listed if isinstance(name, str)]
    return next((known for name in names if (known := canonical(name))), "jaeger")


def _heading(plan: Any, found: Any) -> Iterator[str]:
    service = found["service_name"].value if "service_name" in found else ""
    of_service = f" for {_line(service)}" if service else ""
    yield f"# Configuration of an OpenTelemetry Collector{of_service}, layer: {plan.layer}."
    yield "# Made by `tracekit collector-config`. Check it with: otelcol validate --config=FILE"
    sampler = _line(found["sampler"].value)
    if plan.samples and not sampler.endswith("always_on"):
        yield f"#\n# The programs sample themselves ({sampler}): what they drop is never seen here."
        yield "# Set OTEL_TRACES_SAMPLER=parentbased_always_on to leave the choice to this place."
    yield ""


def _line(text: object) -> str:
    return "".join(char if char.isprintable() else "?" for char in str(text))
