"""What decides about a root span when it starts, made of settings: part of ``configure``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from tracekit import discovery
from tracekit._stages import checked
from tracekit.errors import ConfigurationError, NotInstalledError, UnknownNameError
from tracekit.interfaces import Sampler
from tracekit.samplers.parentbased import ParentBased
from tracekit.samplers.traceidratio import TraceIdRatioBased
from tracekit.settings import Setting, Settings, placed

__all__ = ["named_sampler", "sampler_of"]

_logger = logging.getLogger("tracekit")


def sampler_of(found: Settings) -> Sampler:
    """Make what decides: the sampler, and the rules in front of it."""
    return _with_rules(_placed_sampler(found), found)


def _placed_sampler(found: Settings) -> Sampler:
    """Make the sampler; what is said of a value that came from a file names the place."""
    try:
        return named_sampler(found)
    except (UnknownNameError, NotInstalledError):
        raise
    except ConfigurationError as error:
        source = found.get("sampler_argument", found["sampler"]).source
        if source in ("argument", "default"):
            raise
        error.args = (f"{source}: {error}",)
        raise


def named_sampler(found: Settings) -> Sampler:
    """Make the sampler alone."""
    value, source = found["sampler"]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return ParentBased(TraceIdRatioBased(float(value)))
    if not isinstance(value, str):
        sampler: Sampler = checked("sampler", value, "should_sample")
        return sampler
    name = value.strip().lower()
    root = name.removeprefix("parentbased_")
    known = [part for part in discovery.names("sampler") if part != "parentbased"]
    if root not in known:
        every = [*known, *(f"parentbased_{part}" for part in discovery.own_names("sampler"))]
        every = sorted({*every} - {"parentbased_parentbased"})
        raise UnknownNameError("sampler", value, every, "" if source == "argument" else source)
    argument = found.get("sampler_argument", Setting(None, ""))
    made = _made_sampler(discovery.find("sampler", root, source), argument)
    return ParentBased(made) if name != root else made


def _with_rules(sampler: Sampler, found: Settings) -> Sampler:
    """Let the rules decide about what the sampler would decide alone: roots, if it is for them."""
    setting = found.get("rules")
    if setting is None:
        return sampler
    from tracekit.samplers.rules import RuleSampler

    with placed(setting.source):
        if isinstance(sampler, ParentBased):
            return sampler.with_root(RuleSampler(setting.value, sampler.root_sampler))
        return RuleSampler(setting.value, sampler)


def _made_sampler(factory: Any, argument: Setting) -> Sampler:
    from_argument: Callable[[Any], Sampler] = getattr(factory, "from_argument", factory)
    try:
        return from_argument(argument.value)
    except ValueError as error:
        if not argument.source.startswith("OTEL_"):
            raise
        # As the specification has it; whoever writes it in code or a file is told.
        # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
        _logger.warning("%s is ignored: %s", argument.source, error)
        return from_argument(None)
