"""Finding a part by the name that users configure: first a file of ours, then an entry point."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from tracekit.errors import NotInstalledError, UnknownNameError

__all__ = ["KINDS", "Kind", "find", "names"]


class Kind(NamedTuple):
    """One kind of part: where its files are, and where OpenTelemetry lists other people's."""

    label: str
    package: str
    entry_point_group: str | None
    presets: str = ""


KINDS = {
    "exporter": Kind(
        "exporter",
        "tracekit.exporters",
        "opentelemetry_traces_exporter",
        "tracekit.exporters._presets",
    ),
    "sampler": Kind("sampler", "tracekit.samplers", "opentelemetry_traces_sampler"),
    "propagator": Kind("propagator", "tracekit.propagators", "opentelemetry_propagator"),
    "instrumentation": Kind("instrumentation", "tracekit.instrumentation", None),
    "format": Kind("format", "tracekit.formats", None),
    "source": Kind("source", "tracekit.sources", None),
    "finding": Kind("finding", "tracekit.findings", None),
    "id generator": Kind("id generator", "", "opentelemetry_id_generator"),
    "resource detector": Kind("resource detector", "", "opentelemetry_resource_detector"),
}

# Names of entry points that are documented under other names in OTEL_TRACES_EXPORTER.
_ALIASES = {"otlp": ("otlp", "otlp_proto_http")}

PACKAGES = {"otlp": "opentelemetry-exporter-otlp-proto-http"}
"""What to install for names that are known but that nothing installed answers to."""


def names(kind: str) -> list[str]:
    """Return the names that are known: our files' and presets', and installed entry points'.

    Our own entry points are left out: they are the same parts, for `opentelemetry-instrument`.
    """
    points = (
        point.name
        for point in _entry_points(KINDS[kind])
        if not point.value.startswith("tracekit.")
    )
    return sorted({*own_names(kind), *points})


def own_names(kind: str) -> list[str]:
    """Return the names of our own parts of a kind."""
    part = KINDS[kind]
    presets = _presets(part)
    return sorted({*_own_names(part), *(presets.PRESETS if presets else ())})


def find(kind: str, name: str, source: str = "") -> Any:
    """Return the part that answers to ``name``: a class, or what an entry point loads.

    Args:
        source: Where the name was read, for the error message.

    Raises:
        UnknownNameError: Nothing answers to the name.
        NotInstalledError: Something does, but needs a package that is not installed.
    """
    part = KINDS[kind]
    for own in _own_names(part):
        # Names are values of an enumeration, whose case does not matter.
        # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#enum
        if own == name.lower():
            return _load(part, own)
    presets = _presets(part)
    if presets and (preset := presets.canonical(name)):
        return presets.maker(preset)
    for wanted in _ALIASES.get(name, (name,)):
        for point in _entry_points(part):
            if point.name == wanted:
                return _load_entry_point(part, point)
    if name in PACKAGES and part.entry_point_group:
        raise NotInstalledError(f"{part.label} {name!r}", PACKAGES[name])
    raise UnknownNameError(part.label, name, names(kind), source)


def _own_names(part: Kind) -> Iterator[str]:
    if not part.package:
        return
    import pkgutil

    package = importlib.import_module(part.package)
    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            yield module.name


def _presets(part: Kind) -> Any:
    """Return the module with the kind's presets: parts that are data for one of our classes."""
    return importlib.import_module(part.presets) if part.presets else None


def _load(part: Kind, name: str) -> Any:
    try:
        module = importlib.import_module(f"{part.package}.{name}")
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in ("", "tracekit"):
            raise
        raise NotInstalledError(f"{part.label} {name!r}", missing) from error
    return module.plugin


def _entry_points(part: Kind) -> Iterator[Any]:
    if part.entry_point_group is None:
        return
    # Imported here: reading the metadata of all packages takes longer than all the rest, and
    # a program that uses only our own parts never needs it.
    from importlib.metadata import entry_points

    yield from entry_points(group=part.entry_point_group)


def _load_entry_point(part: Kind, point: Any) -> Any:
    try:
        return point.load()
    except ImportError as error:
        missing = (getattr(error, "name", "") or str(error)).partition(".")[0]
        raise NotInstalledError(f"{part.label} {point.name!r}", missing) from error
