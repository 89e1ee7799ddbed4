"""What ``tracekit doctor`` finds out, as plain data; nothing here prints."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from tracekit import discovery, ledger_file, settings
from tracekit._version import __version__
from tracekit.cli._fate import fate_of
from tracekit.cli._instrumented import watched
from tracekit.cli._reachable import reach
from tracekit.configure import configure, instrument, shutdown, uninstrument
from tracekit.errors import ConfigurationError, StoreError
from tracekit.exporters._spool_settings import chosen_spool

__all__ = ["diagnose"]

Diagnosis = dict[str, Any]

_ALSO_READ = (
    "OTEL_SDK_DISABLED",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    "OTEL_PYTHON_EXCLUDED_URLS",
    "TRACEKIT_CONFIG",
    "TRACEKIT_STORE",
    "TRACEKIT_OTLP_FILE",
    "TRACEKIT_LEDGER",
    "TRACEKIT_MAX_CONCURRENT_REQUESTS",
    "TRACEKIT_SPOOL",
    "TRACEKIT_SPOOL_MAX_BYTES",
    "TRACEKIT_SPOOL_MAX_AGE",
)
"""Variables that matter and are no setting of ``configure()``."""


def diagnose() -> Diagnosis:
    """Configure this process as a program here would be, look at the result, and undo it."""
    problems: list[str] = []
    found: Diagnosis = {
        "versions": _versions(),
        "settings": [],
        "exporters": [],
        "instrumentations": [],
        "contrib": [],
    }
    try:
        found["settings"] = _settings(settings.load({}))
        provider = configure()
        found["sampler"] = provider.sampler.get_description()
        found["exporters"] = [_exporter(part) for part in _exporters(provider)]
        instrument()
        found |= watched()
    except ConfigurationError as error:
        problems.append(str(error))
    finally:
        uninstrument()
        shutdown(1.0)
    found["ledgers"] = [{**item, "fate": fate_of(item)} for item in ledger_file.read_all()]
    found["spool"] = _spooled(problems)
    found["problems"] = [*problems, *_problems(found)]
    return found


def _spooled(problems: list[str]) -> list[dict[str, Any]]:
    """Return what waits in the spool of this environment, by destination."""
    try:
        spool = chosen_spool(None)
        rows = spool.waiting() if spool is not None else []
    except (ConfigurationError, StoreError) as error:
        problems.append(str(error))
        return []
    return [{**row._asdict(), "destination": row.address} for row in rows]


def _versions() -> dict[str, str]:
    found = {
        "tracekit": __version__,
        "python": f"{platform.python_version()} ({sys.executable})",
        "opentelemetry-api": metadata.version("opentelemetry-api"),
    }
    try:
        found["opentelemetry-sdk"] = metadata.version("opentelemetry-sdk")
    except metadata.PackageNotFoundError:
        pass
    return found


def _settings(loaded: settings.Settings) -> list[dict[str, str]]:
    rows = [
        {"name": name, "value": _text(setting.value), "source": setting.source}
        for name, setting in sorted(loaded.items())
    ]
    names = [*_ALSO_READ, *sorted(name for name in os.environ if _is_detail(name))]
    known = {row["source"] for row in rows}
    return rows + [
        {"name": name, "value": os.environ[name], "source": "environment"}
        for name in dict.fromkeys(names)
        if os.environ.get(name) and name not in known
    ]


def _is_detail(name: str) -> bool:
    return name.startswith(("OTEL_BSP_", "OTEL_SPAN_", "OTEL_ATTRIBUTE_")) or (
        name.startswith("OTEL_PYTHON_") and name.endswith("_EXCLUDED_URLS")
    )


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


def _exporters(provider: Any) -> Iterator[Any]:
    for processor in provider.span_processors:
        yield from getattr(processor, "exporters", ())


def _exporter(exporter: Any) -> dict[str, Any]:
    found = reach(exporter)
    ours = (name for name in discovery.own_names("exporter") if _is_ours(exporter, name))
    # One for a named destination knows its name.
    name = getattr(exporter, "name", None) or next(ours, type(exporter).__name__)
    return {"name": str(name), **vars(found)}


def _is_ours(exporter: Any, name: str) -> bool:
    return type(exporter).__module__ == f"tracekit.exporters.{name}"


def _problems(found: Diagnosis) -> Iterator[str]:
    """Say in plain words why spans of programs in this environment would be missing."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        yield "OTEL_SDK_DISABLED is true: nothing is traced. Unset it."
    yield from _sampler_problems(str(found.get("sampler", "")))
    if "sampler" in found and not found["exporters"]:
        yield "No exporter is set: spans go nowhere. Unset TRACEKIT_EXPORTERS, or name one."
    for exporter in found["exporters"]:
        if exporter["hindrance"]:
            who = " ".join(filter(None, (exporter["name"], exporter["destination"])))
            yield f"{who}: {exporter['hindrance']}"


def _sampler_problems(description: str) -> Iterator[str]:
    root = description.partition("root:")[2] or description
    if root.startswith("AlwaysOff"):
        yield "The sampler keeps no trace (always_off). Unset OTEL_TRACES_SAMPLER."
    elif root.startswith(("TraceIdRatioBased{0.0000", "TraceIdRatioBased{0}")):
        yield f"The sampler keeps hardly any trace ({root.rstrip('}')}}})."
