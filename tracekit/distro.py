"""What OpenTelemetry's own ways of starting find: provider, distro, configurator, exporters.

``OTEL_PYTHON_TRACER_PROVIDER=tracekit`` makes opentelemetry-api itself ask for our provider.
``opentelemetry-instrument`` chooses a distro and a configurator by entry point and then hands
each instrumentor to the distro. Nobody imports this module by hand.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Sequence
from importlib.metadata import entry_points
from typing import Any

from opentelemetry import trace as trace_api

from tracekit import contrib, discovery, settings
from tracekit.configure import TracerProvider, configure, instrument
from tracekit.errors import ConfigurationError
from tracekit.interfaces import SpanExporter
from tracekit.samplers.always_off import AlwaysOffSampler

__all__ = ["Configurator", "Distro", "distro", "tracer_provider"]

_logger = logging.getLogger("tracekit")

NAME = "tracekit"
DISTRO_VARIABLE = "OTEL_PYTHON_DISTRO"
CONFIGURATOR_VARIABLE = "OTEL_PYTHON_CONFIGURATOR"


class _InCharge:
    """What this process has been asked to do, so that nothing is done twice."""

    provider: trace_api.TracerProvider | None = None
    distro_is_ours = False
    libraries_are_watched = False


_lock = threading.RLock()


def tracer_provider() -> trace_api.TracerProvider:
    """Return a provider that is configured from the environment, always the same one.

    Called by ``opentelemetry.trace.get_tracer_provider()``, in any thread, at first use.
    """
    with _lock:
        if _InCharge.provider is None:
            _InCharge.provider = _made_provider()
        return _InCharge.provider


def _made_provider() -> trace_api.TracerProvider:
    # Keeps nothing until it is configured, and leaves reading the environment to that.
    provider = TracerProvider(sampler=AlwaysOffSampler())
    # configure() asks the API for the provider, which would ask us again. The API sets what is
    # returned here as well, which then changes nothing.
    _InCharge.provider = provider
    trace_api.set_tracer_provider(provider)
    _configure()
    return provider


def _configure() -> None:
    """Configure from the environment; what cannot be used there does not stop the program."""
    try:
        with settings.lenient():
            configure(**_instead_of_unknown_names())
    except ConfigurationError as error:
        _logger.error("not tracing, %s", error)


def _instead_of_unknown_names() -> dict[str, Any]:
    """Return arguments for the settings whose variables name what nothing answers to.

    A program that calls ``configure()`` is told at once. Here nobody called anything: the
    specification has an unknown value reported and ignored.
    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#enum
    """
    found = settings.load({})
    arguments: dict[str, Any] = {}
    for setting, kind, fallback in _NAMED_PARTS:
        given = found.get(setting)
        if given is not None and given.source.startswith(("OTEL_", "TRACEKIT_")):
            names = settings.names_in(given.value)
            known = [name for name in names if _is_known(kind, name, given.source)]
            if known != names:
                arguments[setting] = known or fallback
    return arguments


_NAMED_PARTS = (
    ("exporters", "exporter", "store"),
    ("propagators", "propagator", settings.DEFAULTS["propagators"]),
    ("sampler", "sampler", settings.DEFAULTS["sampler"]),
)


def _is_known(kind: str, name: str, source: str) -> bool:
    if name.lower() == "none":
        return True
    part = name.lower().removeprefix("parentbased_") if kind == "sampler" else name
    try:
        discovery.find(kind, part, source)
    except ConfigurationError as error:
        _logger.warning("ignored: %s", error)
        return False
    return True


class Configurator:
    """Set tracing up for ``opentelemetry-instrument``.

    Where nobody asked for tracekit by name and there is another configurator, that one sets the
    process up: being installed must not take a program's telemetry over.
    """

    def configure(self, **options: Any) -> None:
        other = None if _is_chosen(CONFIGURATOR_VARIABLE) else _other("opentelemetry_configurator")
        if other is not None:
            other.load()().configure(**options)
            return
        _configure()
        if _InCharge.distro_is_ours:
            _InCharge.libraries_are_watched = True
            instrument()


def distro() -> Distro | None:
    """Return our distro; None, which makes the caller look on, when another one is meant."""
    if not _is_chosen(DISTRO_VARIABLE) and _other("opentelemetry_distro") is not None:
        return None
    from opentelemetry.instrumentation.distro import BaseDistro  # type: ignore[attr-defined]

    BaseDistro.register(Distro)
    return Distro()


class Distro:
    """Watch libraries as ``tracekit.instrument()`` does: natively where we can, each once."""

    def configure(self, **_options: Any) -> None:
        """Prefer our configurator, and stable conventions, unless something else was said."""
        os.environ.setdefault(CONFIGURATOR_VARIABLE, NAME)
        os.environ.setdefault(contrib.STABILITY_VARIABLE, contrib.STABLE)
        _InCharge.distro_is_ours = True

    def load_instrumentor(self, entry_point: Any, **options: Any) -> None:
        """Put one instrumentor on, unless the configurator has seen to all of them."""
        if _InCharge.libraries_are_watched:
            return
        try:
            entry_point.load()().instrument(**options)
        except ModuleNotFoundError:
            raise  # the caller passes over libraries that are not there
        except Exception:
            _logger.warning("instrumentation %s failed", entry_point.name, exc_info=True)


def _is_chosen(variable: str) -> bool:
    named = os.environ.get(variable)
    return named == NAME or (named is None and os.environ.get(DISTRO_VARIABLE) == NAME)


def _other(group: str) -> Any:
    """Return somebody else's entry point of a group, or None."""
    return next((point for point in entry_points(group=group) if point.name != NAME), None)


# Our exporters under opentelemetry-sdk ------------------------------------------------------


def __getattr__(name: str) -> Any:
    """Return the exporter that an entry point such as ``tracekit.distro:store_exporter`` names."""
    part = name.removesuffix("_exporter")
    if part == name or part not in discovery.own_names("exporter"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    ours: type[SpanExporter] = discovery.find("exporter", part)
    theirs = getattr(sys.modules.get("opentelemetry.sdk.trace.export"), "SpanExporter", None)
    return ours if theirs is None else _passing_for(theirs, ours)


def _passing_for(theirs: type, ours: type[SpanExporter]) -> type:
    """Return our class as a subclass of the SDK's, which its configurator insists on."""
    results: Any = sys.modules["opentelemetry.sdk.trace.export"].SpanExportResult

    def export(self: Any, spans: Sequence[Any]) -> Any:
        return results[ours.export(self, spans).name]

    return type(ours.__name__, (ours, theirs), {"export": export, "__module__": ours.__module__})
