"""The only place where parts are chosen and joined."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from opentelemetry import trace as trace_api
from opentelemetry.propagators.textmap import TextMapPropagator

from tracekit import discovery, settings
from tracekit._head import named_sampler, sampler_of
from tracekit._stages import checked, compression, drop_rules, stage_changes, stages, tail_stage
from tracekit._version import __version__
from tracekit.core import exit_hooks, face
from tracekit.core import provider as core_provider
from tracekit.core.ids import RandomIdGenerator
from tracekit.core.limits import SpanLimits
from tracekit.core.resource import UNKNOWN_SERVICE, Resource
from tracekit.core.tracer import Tracer
from tracekit.errors import ConfigurationError
from tracekit.interfaces import IdGenerator, Sampler
from tracekit.libraries import carry_context, instrument, instrumentations, uninstrument
from tracekit.model import Resource as PlainResource
from tracekit.samplers.always_on import AlwaysOnSampler
from tracekit.samplers.parentbased import ParentBased
from tracekit.settings import Setting, Settings, names_in
from tracekit.settings_file import SettingsFile

if TYPE_CHECKING:
    from tracekit.sampling import Sampling, SamplingChange

__all__ = [
    "TracerProvider",
    "check",
    "configure",
    "current_provider",
    "flush",
    "forget",
    "instrument",
    "instrumentations",
    "reset",
    "set_sampling",
    "shutdown",
    "stats",
    "uninstrument",
]

_logger = logging.getLogger("tracekit")

_Made = TypeVar("_Made")


class _State:
    """What ``configure()`` has set up in this process."""

    def __init__(self) -> None:
        self.provider: TracerProvider | None = None
        self.settings: Settings = {}
        self.previous_propagator: TextMapPropagator | None = None
        self.sampling: Sampling | None = None


_state = _State()


class TracerProvider(core_provider.TracerProvider):
    """A TracerProvider that takes what it is not given from the ``OTEL_*`` environment.

    A variable that cannot be used is reported and ignored, as the specification asks;
    ``configure()``, which is called by somebody who wants traces, refuses unknown names.

    Args:
        active_span_processor: The first span processor.
        meter_provider: Where metrics about tracekit itself go; by default nowhere.
    """

    def __init__(
        self,
        sampler: Sampler | None = None,
        resource: PlainResource | None = None,
        shutdown_on_exit: bool = True,
        active_span_processor: Any = None,
        id_generator: IdGenerator | None = None,
        span_limits: SpanLimits | None = None,
        *,
        meter_provider: Any = None,
        **options: Any,
    ) -> None:
        found = settings.load({})
        super().__init__(
            sampler or _unless_unknown(named_sampler, found) or ParentBased(AlwaysOnSampler()),
            resource,
            shutdown_on_exit,
            id_generator or _unless_unknown(_id_generator, found),
            span_limits,
            **options,
        )
        if active_span_processor is not None:
            self.add_span_processor(active_span_processor)
        if meter_provider is not None:
            _tell_of_itself(self, meter_provider)

    def stats(self) -> dict[str, Any]:
        """Return the ledger, and which sampling is in force."""
        sampling = _state.sampling
        if sampling is None or sampling.provider is not self:
            return {**super().stats(), "sampling": {"sampler": self.sampler.get_description()}}
        return {**super().stats(), "sampling": sampling.stats()}


def _unless_unknown(make: Callable[[Settings], _Made], found: Settings) -> _Made | None:
    """Make a part that a variable names, or report that it cannot be made.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#enum
    """
    try:
        return make(found)
    except ConfigurationError as error:
        _logger.warning("ignored: %s", error)
        return None


def configure(
    service_name: str | None = None,
    *,
    exporters: Any = None,
    sampler: Any = None,
    rules: Any = None,
    processors: Sequence[Any] = (),
    redact: Any = None,
    tail: Any = None,
    drop: Any = None,
    compress: bool | int | None = None,
    resource: PlainResource | Mapping[str, Any] | None = None,
    propagators: Any = None,
    span_limits: SpanLimits | None = None,
    id_generator: IdGenerator | None = None,
    schedule_delay_millis: float | None = None,
    meter_provider: Any = None,
) -> TracerProvider:
    """Set tracing up for this process; called again, replace what the last call set up.

    Each setting is taken from the first of: the file that ``TRACEKIT_CONFIG`` names, the
    argument, the environment (``OTEL_*``, ``TRACEKIT_*``), ``[tool.tracekit]`` in
    pyproject.toml, the default. With nothing said, spans go to the SQLite store of this user.
    What that file says of sampling is followed while the program runs.

    Args:
        service_name: What ``service.name`` says.
        exporters: Names, SpanExporter objects, or a list of both; ``"none"`` for none.
        sampler: A Sampler, a name, or a share of traces to keep from 0.0 to 1.0.
        rules: Which root spans are kept, in text or as a list; the sampler decides about those
            that no rule matches.
        processors: SpanProcessors that see spans before the exporters do.
        redact: True to take secrets out of spans before anything else is handed them, or a
            RedactionProcessor that says which.
        tail: True to decide when a trace is over whether it is kept: what failed, was slow, or
            matters otherwise, and a share of the rest; or that share, or a table that says more.
        drop: Which spans are noise, in text or as a list: ``"pings; drop name=poll"``. Health
            checks of servers are dropped by default; False drops nothing.
        compress: True, or how many siblings stay as they are before those that are alike become
            one span; by default none does.
        resource: Attributes to add, or a whole Resource.
        propagators: Names or TextMapPropagator objects.
        schedule_delay_millis: How long a span waits for others before it is exported.
        meter_provider: Where metrics about tracekit itself go; by default to OpenTelemetry's
            global MeterProvider, if one is set by now.

    Returns:
        The provider, which is also OpenTelemetry's global one.

    Raises:
        ConfigurationError: A name is unknown, a value cannot be used, or a package is missing;
            the message says what to write instead.
    """
    file = SettingsFile.of(os.environ)
    from_file = settings.load_file(file) if file is not None else {}
    configured = settings.load_without_file(
        {
            "service_name": service_name,
            "exporters": exporters,
            "sampler": sampler,
            "rules": rules,
            "propagators": propagators,
            "redact": redact,
            "tail": tail,
            "drop": drop,
            "compress": compress,
            "schedule_delay_millis": schedule_delay_millis,
        }
    )
    found = settings.over(configured, from_file)
    # Everything that can be wrong is made before anything is changed; exporters, which may hold
    # something open, come last.
    for processor in processors:
        checked("processors", processor, "on_end")
    propagator = _propagator(found)
    parts = {
        "sampler": sampler_of(found),
        "resource": _resource(found, resource),
        "limits": span_limits or SpanLimits(),
        "id_generator": id_generator or _id_generator(found) or RandomIdGenerator(),
    }
    with settings.refusing():
        chain = [*processors, *stages(found)]
    if _state.sampling is not None:
        _state.sampling.stop()
    provider = _install(parts, chain)
    _tell_of_itself(provider, meter_provider)
    _state.settings = found
    settings.set_log_level(found)
    # Imported here, as whatever else a bare `import tracekit` can do without: 5 ms of its 20.
    from opentelemetry import propagate

    if _state.previous_propagator is None:
        _state.previous_propagator = propagate.get_global_textmap()
    propagate.set_global_textmap(propagator)
    carry_context(found)
    exit_hooks.on_sigterm()
    from tracekit.sampling import Sampling

    _state.sampling = Sampling(provider, configured, sampler_of, stage_changes(provider), file)
    _state.sampling.start(provider.sampler, from_file)
    exit_hooks.on_os_exit(_leave)
    from tracekit import ledger_file

    ledger_file.start(provider, exit_hooks.add)
    return provider


def _leave(timeout_s: float) -> None:
    """Flush before ``os._exit``, if this very process made any spans."""
    provider = current_provider()
    if provider is not None and provider.has_spans():
        provider.shutdown(timeout_s)
        if "tracekit.ledger_file" in sys.modules:
            sys.modules["tracekit.ledger_file"].save()


def _tell_of_itself(provider: TracerProvider, meter_provider: Any) -> None:
    # Whoever set a global MeterProvider has imported the metrics API; it takes 30 ms, so that
    # nobody else should.
    if meter_provider is None and "opentelemetry.metrics" not in sys.modules:
        return
    from tracekit import self_metrics

    if meter_provider is None:
        self_metrics.observe_global(provider)
    else:
        self_metrics.observe(provider, meter_provider)


def _install(parts: dict[str, Any], chain: list[Any]) -> TracerProvider:
    """Make the provider, or change the one that is there, and make it everybody's."""
    provider = _state.provider or _global_provider()
    if provider is None:
        provider = TracerProvider(parts["sampler"], parts["resource"], span_limits=parts["limits"])
        trace_api.set_tracer_provider(provider)
    if trace_api.get_tracer_provider() is not provider:
        _logger.warning(
            "another TracerProvider (%s) was set before tracekit.configure(): spans made "
            "through opentelemetry.trace go there, only tracekit.span() and "
            "tracekit.traced come here",
            type(trace_api.get_tracer_provider()).__name__,
        )
    provider.reconfigure(chain, **parts)
    _state.provider = provider
    tracer = provider.get_tracer(face.SCOPE_NAME, __version__)
    face.use_tracer(tracer if isinstance(tracer, Tracer) else None)
    return provider


def _global_provider() -> TracerProvider | None:
    provider = trace_api.get_tracer_provider()
    return provider if isinstance(provider, TracerProvider) else None


def _resource(found: Settings, given: PlainResource | Mapping[str, Any] | None) -> PlainResource:
    if given is not None and not isinstance(given, Mapping):
        # A resource: ours, or opentelemetry-sdk's, which has the same names.
        given = PlainResource(
            dict(checked("resource", given, "merge").attributes), given.schema_url or ""
        )
    attributes = dict(given) if isinstance(given, Mapping) else {}
    service = found.get("service_name", Setting("", ""))
    resource: PlainResource = Resource.create(attributes)
    if service.value and "service.name" not in attributes:
        named = resource.attributes["service.name"] != UNKNOWN_SERVICE
        # OTEL_RESOURCE_ATTRIBUTES is weaker than OTEL_SERVICE_NAME and stronger than a file.
        if not (named and service.source.startswith("[tool")):
            resource = resource.merge(PlainResource({"service.name": str(service.value)}))
    for name in names_in(found.get("resource_detectors", Setting("", "")).value):
        if name not in ("otel", "process", "host", "os", "service_instance"):
            resource = _with(_detected(name, found["resource_detectors"].source), name, resource)
    return resource.merge(given) if isinstance(given, PlainResource) else resource


def _with(detected: PlainResource, name: str, resource: PlainResource) -> PlainResource:
    """Add what a detector found; what is known already wins."""
    own = resource.schema_url
    if own and detected.schema_url and own != detected.schema_url:
        _logger.warning(
            "resource detector %r follows another schema (%s): the resource has none now",
            name,
            detected.schema_url,
        )
    return detected.merge(resource)


def _detected(name: str, source: str) -> PlainResource:
    """Run somebody's resource detector; one that fails finds nothing."""
    detector = discovery.find("resource detector", name, source)()
    try:
        detected = detector.detect()
        return PlainResource(dict(detected.attributes), getattr(detected, "schema_url", ""))
    except Exception:
        _logger.warning("resource detector %r failed", name, exc_info=True)
        return PlainResource()


def check(found: Settings) -> None:
    """Find out whether the names in settings can be used, and change nothing.

    Raises:
        ConfigurationError: What ``configure()`` would raise.
    """
    sampler_of(found)
    drop_rules(found)
    compression(found)
    _id_generator(found)
    _propagator(found)
    tail_stage(found)


def _id_generator(found: Settings) -> IdGenerator | None:
    setting = found.get("id_generator")
    if setting is None or setting.value == "random":
        return None
    generator: IdGenerator = discovery.find("id generator", setting.value, setting.source)()
    return generator


def _propagator(found: Settings) -> TextMapPropagator:
    value, source = found["propagators"]
    parts = [
        _made(discovery.find("propagator", part, source))
        if isinstance(part, str)
        else checked("propagators", part, "extract")
        for part in names_in(value)
    ]
    from tracekit.propagators._composite import CompositePropagator

    return CompositePropagator(parts)


def _made(part: Any) -> Any:
    # OpenTelemetry's entry points for propagators name instances as well as classes.
    return part() if isinstance(part, type) else part


# While it runs -----------------------------------------------------------------------------


def current_provider() -> TracerProvider | None:
    """Return the provider that ``configure()`` set up, or the program set by hand."""
    return _state.provider or _global_provider()


def current_settings() -> Settings:
    """Return the settings in force, each with its source."""
    return dict(_state.settings)


def set_sampling(
    sampler: Any = None,
    *,
    rules: Any = None,
    tail: Any = None,
    drop: Any = None,
    for_s: float | None = None,
) -> SamplingChange:
    """Change which traces are kept while the program runs; without arguments, as configured.

    What is not said stays as it is, but a sampler is said together with its rules: those that
    stood in front of another one do not hold any more. Traces under way are not affected, and
    what is waiting to be exported is exported. In this process only; a child that is forked
    later inherits it.

    Args:
        sampler: A Sampler, a name, or a share of traces to keep from 0.0 to 1.0.
        rules: Which root spans are kept, as for ``configure()``; ``""`` for none.
        tail: What the tail sampler keeps, as for ``configure()``; False to keep everything. It
            must have been there from the start.
        drop: Which spans are left out, as for ``configure()``; False for none.
        for_s: Return to what was in force before after so many seconds.

    Returns:
        The change. Used in a ``with`` block, or by its method ``undo()``, it is taken back.

    Raises:
        ConfigurationError: A name is unknown or a value cannot be used, and nothing has changed;
            or tracing was not configured.
    """
    arguments = {"sampler": sampler, "rules": rules, "tail": tail, "drop": drop}
    given = {
        key: Setting(value, "set_sampling()")
        for key, value in arguments.items()
        if value is not None
    }
    return _sampling().set(given, for_s)


def _sampling() -> Sampling:
    provider = current_provider()
    if provider is None or provider.is_shut_down:
        raise ConfigurationError("set_sampling(): call tracekit.configure() first")
    if _state.sampling is None or _state.sampling.provider is not provider:
        from tracekit.sampling import Sampling

        # A provider that the program made by hand.
        configured = {"sampler": Setting(provider.sampler, "argument")}
        _state.sampling = Sampling(provider, configured, sampler_of, stage_changes(provider))
        _state.sampling.start(provider.sampler, {})
    return _state.sampling


def flush(timeout_s: float = 30.0) -> bool:
    """Export every span that has ended; True only if all of it arrived within the time."""
    provider = current_provider()
    return True if provider is None else provider.force_flush(int(timeout_s * 1000))


def shutdown(timeout_s: float | None = None) -> None:
    """Flush within a bounded time and stop; ``configure()`` may be called again."""
    provider = current_provider()
    face.use_tracer(None)
    if provider is not None:
        provider.shutdown(timeout_s)


def stats() -> dict[str, Any]:
    """Return the ledger: what became of every span that was started in this process.

    ``replaced`` says how many values no exporter could carry as they were, by reason;
    ``refused`` how many trace headers that came in could not be used, by reason.
    """
    provider = current_provider()
    if provider is None:
        return {}
    encoding = sys.modules.get("tracekit.exporters._anyvalue")
    return {
        **provider.stats(),
        "replaced": dict(encoding.replaced) if encoding else {},
        "refused": _refused_headers(),
    }


def _refused_headers() -> dict[str, int]:
    from opentelemetry import propagate

    answers = sys.modules.get("tracekit.instrumentation._traceresponse")
    # Somebody else's propagator may count nothing.
    requests = getattr(propagate.get_global_textmap(), "refused", {})
    return {**requests, **(answers.refused if answers else {})}


def reset() -> None:
    """Shut down and undo what ``configure()`` and ``instrument()`` changed; for tests.

    The provider object stays OpenTelemetry's global one, since the API sets it only once; it
    keeps nothing and the next ``configure()`` uses it again.
    """
    uninstrument()
    forget()


def forget() -> None:
    """Shut down and undo what ``configure()`` changed; libraries stay instrumented."""
    exit_hooks.not_on_os_exit()
    if "tracekit.ledger_file" in sys.modules:
        sys.modules["tracekit.ledger_file"].stop(exit_hooks.remove)
    if _state.sampling is not None:
        _state.sampling.stop()
        _state.sampling = None
    provider = current_provider()
    shutdown(1.0)
    if provider is not None:
        provider.clear()
    if _state.previous_propagator is not None:
        from opentelemetry import propagate

        propagate.set_global_textmap(_state.previous_propagator)
    _state.previous_propagator = None
    _state.settings = {}
