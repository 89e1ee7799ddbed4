"""Settings and where each came from: a file, arguments, the environment, pyproject, defaults."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from tracekit.errors import ConfigurationError, UnknownNameError
from tracekit.settings_file import SettingsFile, toml_table

__all__ = [
    "Setting",
    "Settings",
    "ignored",
    "lenient",
    "load",
    "load_file",
    "load_without_file",
    "names_in",
    "over",
    "refusing",
    "set_log_level",
]


class Setting(NamedTuple):
    """A value and its source, such as ``OTEL_TRACES_EXPORTER`` or ``pyproject.toml``."""

    value: Any
    source: str


_logger = logging.getLogger("tracekit")

Settings = dict[str, Setting]

VARIABLES: Mapping[str, tuple[str, ...]] = {
    "service_name": ("OTEL_SERVICE_NAME",),
    "exporters": ("TRACEKIT_EXPORTERS", "OTEL_TRACES_EXPORTER"),
    "sampler": ("OTEL_TRACES_SAMPLER",),
    "sampler_argument": ("OTEL_TRACES_SAMPLER_ARG",),
    "rules": ("TRACEKIT_RULES",),
    "propagators": ("OTEL_PROPAGATORS",),
    "id_generator": ("OTEL_PYTHON_ID_GENERATOR",),
    "resource_detectors": ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS",),
    "disabled_instrumentations": ("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",),
    "schedule_delay_millis": ("OTEL_BSP_SCHEDULE_DELAY",),
    "redact": ("TRACEKIT_REDACT",),
    "tail": ("TRACEKIT_TAIL",),
    "drop": ("TRACEKIT_DROP",),
    "compress": ("TRACEKIT_COMPRESS",),
    "log_level": ("OTEL_LOG_LEVEL",),
}
"""Environment variables of each setting, the first one that is set wins."""

DEFAULTS: Mapping[str, Any] = {
    "propagators": "tracecontext,baggage",
    "sampler": "parentbased_always_on",
}


def load(
    arguments: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    folder: str | os.PathLike[str] | None = None,
) -> Settings:
    """Return every setting that has a value, from the strongest source that gives one.

    That is the file that ``TRACEKIT_CONFIG`` names, which whoever operates the program writes.

    Args:
        arguments: What was passed in code; None means not given.
        folder: Where the search for ``pyproject.toml`` begins; the current folder by default.

    Raises:
        ConfigurationError: A file is malformed or has an unknown key.
    """
    found = load_without_file(arguments, environ, folder)
    file = SettingsFile.of(environ)
    return found if file is None else over(found, load_file(file))


def load_file(file: SettingsFile) -> Settings:
    """Return what a file says; its places are the sources.

    Raises:
        ConfigurationError: It is malformed or has an unknown key.
    """
    return {key: Setting(*found) for key, found in file.read(VARIABLES).items()}


def over(found: Settings, stronger: Settings) -> Settings:
    """Return settings with those of a stronger source in their place.

    A sampler is said together with its argument and the rules in front of it: those that were
    meant for another one would turn what is asked for into something else.
    """
    weaker = found
    if "sampler" in stronger:
        weaker = {key: found[key] for key in found if key not in ("sampler_argument", "rules")}
    return {**weaker, **stronger}


def load_without_file(
    arguments: Mapping[str, Any],
    environ: Mapping[str, str] = os.environ,
    folder: str | os.PathLike[str] | None = None,
) -> Settings:
    """Return what ``load()`` would without a file that ``TRACEKIT_CONFIG`` names."""
    project = _from_pyproject(folder)
    found: Settings = {}
    for key in {*VARIABLES, *arguments, *project, *DEFAULTS}:
        setting = _first(key, arguments, environ, project)
        if setting is not None:
            found[key] = setting
    return found


def _first(
    key: str, arguments: Mapping[str, Any], environ: Mapping[str, str], project: Settings
) -> Setting | None:
    if arguments.get(key) is not None:
        return Setting(arguments[key], "argument")
    for variable in VARIABLES.get(key, ()):
        # An empty variable counts as not set.
        # https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
        text = environ.get(variable, "").strip()
        if text:
            return Setting(text, variable)
    if key in project:
        return project[key]
    return Setting(DEFAULTS[key], "default") if key in DEFAULTS else None


def _from_pyproject(folder: str | os.PathLike[str] | None) -> Settings:
    path = _pyproject(folder)
    if path is None:
        return {}
    tool = _read_toml(path).get("tool")
    table = tool.get("tracekit", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise ConfigurationError(f"tool.tracekit in {path} is not a table: write [tool.tracekit]")
    for key in table:
        if key not in VARIABLES:
            raise UnknownNameError("setting", key, VARIABLES, f"[tool.tracekit] in {path}")
    return {key: Setting(value, f"[tool.tracekit] in {path}") for key, value in table.items()}


def _pyproject(folder: str | os.PathLike[str] | None) -> str | None:
    """Find the project that the folder belongs to."""
    try:
        place = os.path.abspath(os.getcwd() if folder is None else folder)
    except OSError:  # the current folder was removed
        return None
    while True:
        path = os.path.join(place, "pyproject.toml")
        if os.path.isfile(path):
            return path
        parent = os.path.dirname(place)
        if parent == place:
            return None
        place = parent


def _read_toml(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except (OSError, ValueError):
        return {}
    # Most projects have a pyproject.toml and few say anything to us in it.
    if "tool.tracekit" not in text:
        return {}
    return toml_table(text, path)


def names_in(value: Any) -> list[Any]:
    """Return the parts of a list, or of a text with commas, each once and without "none"."""
    listed = value.split(",") if isinstance(value, str) else value
    parts: list[Any] = []
    for part in listed if isinstance(listed, (list, tuple, set)) else [listed]:
        name = part.strip() if isinstance(part, str) else part
        is_none = isinstance(name, str) and name.lower() in ("", "none")
        # Compared by identity: what an object thinks of equality is its own affair.
        if not is_none and not any(name is known or _same_name(name, known) for known in parts):
            parts.append(name)
    return parts


def _same_name(one: Any, other: Any) -> bool:
    return isinstance(one, str) and isinstance(other, str) and one.lower() == other.lower()


_LOG_LEVELS = {
    "none": logging.CRITICAL + 1,
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "info": logging.INFO,
    "debug": logging.DEBUG,
}


def set_log_level(found: Settings) -> None:
    """Set how much tracekit's own loggers say; an unknown level is reported and ignored."""
    setting = found.get("log_level")
    if setting is None:
        return
    level = _LOG_LEVELS.get(str(setting.value).strip().lower())
    if level is None:
        _logger.warning(
            "%s=%r is ignored: expected one of %s",
            setting.source,
            setting.value,
            ", ".join(_LOG_LEVELS),
        )
    else:
        _logger.setLevel(level)


# Variables that say something wrong ----------------------------------------------------------

_REPORT, _REFUSE, _LENIENT = "report", "refuse", "lenient"
_mode: ContextVar[str] = ContextVar("tracekit-wrong-variables", default=_REPORT)


@contextmanager
def refusing() -> Iterator[None]:
    """Make an error of what ``ignored`` would report: somebody called ``configure()``.

    Where the specification has a value reported and ignored, it speaks of programs that nobody
    is looking at; whoever calls ``configure()`` is told at once.
    """
    token = _mode.set(_LENIENT if _mode.get() == _LENIENT else _REFUSE)
    try:
        yield
    finally:
        _mode.reset(token)


@contextmanager
def placed(place: str) -> Iterator[None]:
    """Put in front of what a part says is wrong where it was asked for, unless it says so itself.

    Raises:
        ConfigurationError: What was raised within, with the place.
    """
    try:
        yield
    except UnknownNameError:
        raise
    except ConfigurationError as error:
        if str(error).startswith(f"{place}="):
            raise
        raise ConfigurationError(f"{place}: {error}") from None


@contextmanager
def lenient() -> Iterator[None]:
    """Report and ignore also within ``refusing``: nobody called anything."""
    token = _mode.set(_LENIENT)
    try:
        yield
    finally:
        _mode.reset(token)


def ignored(source: str, what: str, expected: str) -> None:
    """Report that what a variable says is ignored, or refuse it within ``refusing``.

    Raises:
        ConfigurationError: The same in one sentence.
    """
    if _mode.get() == _REFUSE:
        raise ConfigurationError(f"{source}{what} is not valid: expected {expected}.")
    _logger.warning("%s%s is ignored: expected %s", source, what, expected)
