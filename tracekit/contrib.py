"""Handing libraries that we do not cover to installed OpenTelemetry instrumentations.

The ``opentelemetry-instrumentation-*`` packages, and many others (OpenInference,
OpenLLMetry), name their instrumentors in one entry-point group. They are loaded as
``opentelemetry-instrument`` loads them, with three differences: a name that a native
instrumentation covers is left out, one instrumentor that fails does not stop the rest, and
stable semantic conventions are switched on before the first one loads, because they read
that setting once and one trace would otherwise mix ``http.method`` and
``http.request.method``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import (
    Distribution,
    EntryPoint,
    PackageNotFoundError,
    distribution,
    entry_points,
)
from typing import Any

__all__ = ["COVERED", "ContribStatus", "active", "load", "unload"]

_logger = logging.getLogger("tracekit")

STABILITY_VARIABLE = "OTEL_SEMCONV_STABILITY_OPT_IN"
STABLE = "http,database"
COVERED = "covered by tracekit"
"""The reason for leaving an entry point out: a native instrumentation is in place."""


@dataclass(frozen=True)
class ContribStatus:
    """What became of one entry point."""

    name: str
    distribution: str
    version: str
    active: bool
    reason: str


_statuses: dict[str, ContribStatus] = {}
_instrumentors: dict[str, Any] = {}


def active() -> list[ContribStatus]:
    """Return what the last ``load()`` found, by name."""
    return sorted(_statuses.values(), key=lambda status: status.name)


def load(covered: Iterable[str], disabled: Iterable[str]) -> None:
    """Instrument every library that an installed package knows and that is not ``covered``.

    Args:
        covered: Entry-point names for which a native instrumentation is in place.
        disabled: Names that the user switched off.
    """
    covered, disabled = frozenset(covered), frozenset(disabled)
    points = list(entry_points(group="opentelemetry_instrumentor"))
    if not points or "*" in disabled:
        return
    os.environ.setdefault(STABILITY_VARIABLE, STABLE)
    _run_hooks("opentelemetry_pre_instrument")
    for point in points:
        if point.name not in _instrumentors:
            _statuses[point.name] = _load_one(point, covered, disabled)
    _run_hooks("opentelemetry_post_instrument")


def unload() -> None:
    """Undo what ``load()`` did."""
    for name, instrumentor in list(_instrumentors.items()):
        try:
            instrumentor.uninstrument()
        except Exception:
            _logger.warning("uninstrumenting %s failed", name, exc_info=True)
    _instrumentors.clear()
    _statuses.clear()


def _load_one(
    point: EntryPoint, covered: frozenset[str], disabled: frozenset[str]
) -> ContribStatus:
    reason = _hindrance(point, covered, disabled) or _instrument(point)
    package = point.dist
    return ContribStatus(
        point.name,
        package.name if package else "",
        package.version if package else "",
        not reason,
        reason or "active",
    )


def _hindrance(point: EntryPoint, covered: frozenset[str], disabled: frozenset[str]) -> str:
    if point.name in disabled:
        return "disabled"
    if point.name in covered:
        return COVERED
    return _missing(point.dist)


_INSTRUMENTS = re.compile(r"([A-Za-z0-9._-]+).*extra == .instruments")


def _missing(package: Distribution | None) -> str:
    """Say which library is missing, as far as the package's metadata tell.

    Loading an instrumentor only to hear that its library is not there would import much for
    nothing; whether the version fits is what ``instrument()`` itself checks.
    """
    wanted = [
        match[1]
        for line in (package and package.requires) or ()
        if (match := _INSTRUMENTS.match(line))
    ]
    if not wanted or any(_is_installed(name) for name in wanted):
        return ""
    return f"{' or '.join(wanted)} is not installed"


def _is_installed(name: str) -> bool:
    try:
        return bool(distribution(name))
    except PackageNotFoundError:
        return False


def _instrument(point: EntryPoint) -> str:
    """Instrument; return ``""`` or why it was not possible."""
    try:
        instrumentor = point.load()()
        if getattr(instrumentor, "is_instrumented_by_opentelemetry", False):
            return ""
        instrumentor.instrument(raise_exception_on_conflict=True)
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except Exception as error:
        # Said by doctor too; a conflict is the usual case of a library that is not there.
        if type(error).__name__ != "DependencyConflictError":
            _logger.warning("instrumentation %s failed", point.name, exc_info=True)
        return f"{type(error).__name__}: {error}"
    _instrumentors[point.name] = instrumentor
    return ""


def _run_hooks(group: str) -> None:
    for hook in entry_points(group=group):
        try:
            hook.load()()
        except Exception:
            _logger.warning("%s hook %s failed", group, hook.name, exc_info=True)
