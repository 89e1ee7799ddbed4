"""The stages that ended spans pass through, made of settings: part of ``configure``."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from tracekit import discovery
from tracekit.errors import ConfigurationError
from tracekit.interfaces import SpanExporter
from tracekit.settings import Setting, Settings, names_in, placed

if TYPE_CHECKING:
    from tracekit.processors._drop_rules import DropRules
    from tracekit.processors.tail import TailSettings

__all__ = [
    "checked",
    "compression",
    "drop_rules",
    "stage_changes",
    "stages",
    "tail_settings",
    "tail_stage",
]

LOCAL_DELAY_MILLIS = 1_000
"""A trace on the developer's own screen should not wait for the specification's 5 s."""


def checked(setting: str, part: Any, method: str) -> Any:
    """Return a part that was passed as an object, if it is one that can work."""
    if isinstance(part, type) or not callable(getattr(part, method, None)):
        raise ConfigurationError(
            f"{setting}: {part!r} is neither a name nor an object with a method {method}()"
        )
    return part


def stages(found: Settings) -> list[Any]:
    """Return what stands behind other people's processors, from the rules to the exporters.

    Redaction comes behind theirs: it sees what they write at the end.

    Raises:
        ConfigurationError: A name is unknown, or a value cannot be used.
    """
    # Exporters, which may hold something open, come last.
    rules, redaction = drop_rules(found), _redaction(found)
    tail, above = tail_stage(found), compression(found)
    following = _compressing(above, _batch(found))
    if tail is not None and following:
        following = [tail(following[0])]
    return [*redaction, *_dropping(rules, found, following)]


def _redaction(found: Settings) -> list[Any]:
    setting = found.get("redact")
    if setting is None:
        return []
    from tracekit.processors.redact import RedactionProcessor

    made = RedactionProcessor.from_setting(*setting)
    return [] if made is None else [made]


def drop_rules(found: Settings) -> DropRules:
    """Return what ``drop`` says."""
    from tracekit.processors._drop_rules import DropRules

    return DropRules.from_setting(*_drop(found))


def _drop(found: Settings) -> Setting:
    return found.get("drop", Setting(True, "default"))


def _dropping(rules: DropRules, found: Settings, following: list[Any]) -> list[Any]:
    """Put the drop stage in front of what exports; first of all, it spares the rest the work.

    It is there without rules too, which costs nothing, and can be given some while it runs.
    """
    from tracekit.processors.drop import DropProcessor, DropsAtStart

    if following:
        return [DropProcessor(following[0], rules)]
    # Nothing is exported from here: what was not asked for is left to those who look on.
    return [] if _drop(found).source == "default" else [DropsAtStart(rules)]


def compression(found: Settings) -> int | None:
    """Return how many siblings stay as they are; None where all do."""
    setting = found.get("compress")
    if setting is None:
        return None
    from tracekit.processors.compress import CompressionProcessor

    return CompressionProcessor.above_of(*setting)


def _compressing(above: int | None, following: list[Any]) -> list[Any]:
    """Put compression right in front of what exports: all others see every span."""
    if above is None or not following:
        return following
    from tracekit.processors.compress import CompressionProcessor

    return [CompressionProcessor(following[0], above)]


def _batch(found: Settings) -> list[Any]:
    """Return the batch processor over the exporters that were asked for, or nothing."""
    setting = found.get("exporters") or Setting(_default_exporter(), "default")
    made = [_exporter(part, setting.source) for part in names_in(setting.value)]
    if not made:
        return []
    from tracekit.processors.batch import BatchSpanProcessor

    delay = found.get("schedule_delay_millis", Setting(LOCAL_DELAY_MILLIS, "default"))
    # Of the environment the processor takes what can be used, and ignores what cannot.
    millis = None if delay.source.startswith("OTEL_") else delay.value
    return [BatchSpanProcessor(made, schedule_delay_millis=millis)]


def tail_stage(found: Settings) -> Callable[[Any], Any] | None:
    """Return what puts a tail sampler in front of a processor, if one was asked for."""
    settings = tail_settings(found)
    if settings is None:
        return None
    from tracekit.processors.tail import TailSampler

    return lambda following: TailSampler(following, settings)


def tail_settings(found: Settings) -> TailSettings | None:
    """Return what ``tail`` says; None for no tail sampler."""
    setting = found.get("tail")
    if setting is None:
        return None
    from tracekit._finding_reasons import finder
    from tracekit.processors.tail import TailSettings

    with placed(setting.source):
        return TailSettings.from_setting(*setting, finder)


def _default_exporter() -> str:
    endpoints = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return "otlp" if any(os.environ.get(name, "").strip() for name in endpoints) else "store"


def _exporter(part: Any, source: str) -> SpanExporter:
    made = discovery.find("exporter", part, source)() if isinstance(part, str) else part
    exporter: SpanExporter = checked("exporters", made, "export")
    return exporter


# While they run ----------------------------------------------------------------------------


def stage_changes(provider: Any) -> dict[str, Callable[[Settings], Callable[[], None]]]:
    """Return, by setting, what makes other settings ready for a stage that is there.

    It returns what puts them in force, and raises a ConfigurationError where they cannot work.
    """
    return {"tail": partial(_other_tail, provider), "drop": partial(_other_drop, provider)}


def _other_tail(provider: Any, found: Settings) -> Callable[[], None]:
    from tracekit.processors.tail import TailSampler, TailSettings

    settings = tail_settings(found)
    stage = _stage_of(provider, TailSampler)
    if stage is not None:
        # It cannot go away with what it holds, but keep everything.
        return partial(stage.use, settings or TailSettings(share=1.0))
    if settings is None:
        return _nothing_to_do
    raise ConfigurationError(
        f"{found['tail'].source}: there is no tail sampler that could be changed. Start with "
        "one, as with TRACEKIT_TAIL=100%, which keeps everything until it is told otherwise."
    )


def _other_drop(provider: Any, found: Settings) -> Callable[[], None]:
    from tracekit.processors.drop import DropProcessor, DropsAtStart

    rules = drop_rules(found)
    stage = _stage_of(provider, DropProcessor, DropsAtStart)
    if stage is not None:
        return partial(stage.use, rules)
    if not rules.names:
        return _nothing_to_do
    raise ConfigurationError(
        f"{_drop(found).source}: there is no drop stage that could be changed, since nothing is "
        "exported. Name an exporter, or say drop= when tracing is configured."
    )


def _nothing_to_do() -> None:
    """What is asked for is so already."""


def _stage_of(provider: Any, *kinds: type[Any]) -> Any:
    """Return the stage of one of these kinds, if there is one."""
    for processor in provider.span_processors:
        part = processor
        while part is not None:
            if isinstance(part, kinds):
                return part
            part = getattr(part, "next", None)
    return None
