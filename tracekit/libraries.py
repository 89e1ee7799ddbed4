"""Which libraries are watched: putting instrumentations on, ours and other people's."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tracekit import discovery, settings
from tracekit.errors import NotInstalledError
from tracekit.interfaces import Instrumentor
from tracekit.settings import Setting, Settings

__all__ = [
    "carry_context",
    "instrument",
    "instrumentations",
    "instrumented_only_within",
    "uninstrument",
]

_logger = logging.getLogger("tracekit")

CARRY = ("threading", "concurrent_futures", "multiprocessing", "subprocess")
"""Instrumentations that only carry context; configure() puts them on."""

_instrumentors: dict[str, Instrumentor] = {}
"""One of each, for as long as the process lives: what is put on must be taken off by the same."""

_asked_for: set[str] = set()
"""Names of those that were put on and not taken off again."""


def carry_context(found: Settings) -> None:
    """Let the current context follow threads, executors and processes."""
    for name in set(CARRY) - _disabled(found):
        _quietly(functools.partial(_put_on, name))


def _put_on(name: str, **options: Any) -> None:
    instrumentor = _instrumentor(name)
    instrumentor.instrument(**options)
    _asked_for.add(name.replace("-", "_"))


def _disabled(found: Settings) -> set[str]:
    text = found.get("disabled_instrumentations", Setting("", "")).value
    names = {name.replace("-", "_") for name in settings.names_in(text)}
    return {*discovery.own_names("instrumentation")} if "*" in names else names


def instrument(*names: str, exclude: Iterable[str] = (), **options: Any) -> None:
    """Watch libraries: those named, or every installed one that is known.

    Args:
        names: Import names, such as ``"httpx"``. Naming one makes its absence an error.
        exclude: Names to leave out when none are named.
        options: Passed to the one instrumentation that is named.

    Raises:
        UnknownNameError: No instrumentation has that name.
        NotInstalledError: The library is not installed.
    """
    if not names:
        disabled = _disabled(settings.load({})) | set(exclude)
        for name in discovery.own_names("instrumentation"):
            if name not in disabled:
                _quietly(functools.partial(_put_on, name))
        _instrument_others(disabled)
        return
    for name in names:
        instrumentor = _instrumentor(name)
        status = instrumentor.status
        distributions = getattr(instrumentor, "distributions", ())
        if distributions and status.installed is None:
            raise NotInstalledError(f"instrumentation {name!r}", distributions[0])
        _put_on(name, **options)


def _instrument_others(disabled: set[str]) -> None:
    """Hand the libraries that we do not cover to OpenTelemetry's own instrumentations."""
    from tracekit import contrib

    covered = [
        name
        for instrumentor in _instrumentors.values()
        if _is_taken(instrumentor.status.reason)
        for name in instrumentor.contrib
    ]
    off = {name.replace("_", "-") for name in disabled} | disabled
    contrib.load(covered, off)


def _is_taken(reason: str) -> bool:
    """Tell whether a library has its tracer: us, once it is imported, or one that was there first.

    What a package of OpenTelemetry's watches already is its own to tell.
    """
    left_to = reason.partition("already instrumented by ")[2]
    other = bool(left_to) and not left_to.startswith("opentelemetry-instrumentation")
    return other or reason in ("active", "waiting for import")


def uninstrument(*names: str) -> None:
    """Stop watching libraries: those named, or all."""
    if not names and "tracekit.contrib" in sys.modules:
        sys.modules["tracekit.contrib"].unload()
    for name in names or tuple(_instrumentors):
        if name.replace("-", "_") in _instrumentors:
            _instrumentor(name).uninstrument()
            _asked_for.discard(name.replace("-", "_"))


@contextmanager
def instrumented_only_within() -> Iterator[None]:
    """Take off at the end of the block what was put on in it; for tests.

    What was put on before stays. So do other people's instrumentations, if there were any.
    """
    before = set(_asked_for)
    had_others = _has_others()
    try:
        yield
    finally:
        for name in _asked_for - before:
            uninstrument(name)
        if _has_others() and not had_others:
            sys.modules["tracekit.contrib"].unload()


def _has_others() -> bool:
    contrib = sys.modules.get("tracekit.contrib")
    return contrib is not None and bool(contrib.active())


def instrumentations() -> list[Instrumentor]:
    """Return every instrumentation that tracekit has, put on or not."""
    return [_instrumentor(name) for name in discovery.own_names("instrumentation")]


def _instrumentor(name: str) -> Instrumentor:
    name = name.replace("-", "_")  # entry points of OpenTelemetry's have dashes
    if name not in _instrumentors:
        made: Instrumentor = discovery.find("instrumentation", name)()
        _instrumentors[name] = made
    return _instrumentors[name]


def _quietly(step: Callable[[], None]) -> None:
    """Run one library's instrumentation; a failure is its own and stops no other."""
    try:
        step()
    except Exception:
        _logger.warning("%r failed", step, exc_info=True)
