"""All instrumentations at once: on and off again, libraries are as they were."""

from __future__ import annotations

import importlib
import inspect
from typing import Any

import pytest

from instrumentation.conftest import Instrument
from instrumentation.redis_contract import entries
from tracekit import discovery
from tracekit.instrumentation._patch import LibraryInstrumentor


def _plugins() -> list[type[LibraryInstrumentor]]:
    return [
        discovery.find("instrumentation", name) for name in discovery.own_names("instrumentation")
    ]


def _entries() -> dict[tuple[str, str, str], Any]:
    found: dict[tuple[str, str, str], Any] = {}
    for plugin in _plugins():
        if not plugin.distributions or plugin().status.installed:
            found |= entries(plugin)
    return found


def _signatures(found: dict[tuple[str, str, str], Any]) -> dict[tuple[str, str, str], str]:
    signatures = {}
    for place, entry in found.items():
        function = entry.__func__ if isinstance(entry, (classmethod, staticmethod)) else entry
        try:
            signatures[place] = str(inspect.signature(function))
        except (TypeError, ValueError):  # no function, or one of C
            continue
    return signatures


@pytest.fixture(autouse=True)
def django() -> None:
    """Some of its modules cannot be imported before it is configured."""
    pytest.importorskip("django")
    importlib.import_module("django_site").configure()


@pytest.mark.parametrize("last_first", [False, True])
def test_what_is_taken_off_leaves_nothing_behind(instrument: Instrument, last_first: bool) -> None:
    before = _entries()
    made = [instrument(plugin) for plugin in _plugins()]
    during = _entries()
    changed = [place for place in before if during[place] is not before[place]]
    for instrumentor in reversed(made) if last_first else made:
        instrumentor.uninstrument()
    after = _entries()
    assert len(changed) > 100
    assert after.keys() == before.keys()
    assert [place for place in before if after[place] is not before[place]] == []


def test_signatures_stay_while_everything_is_watched(instrument: Instrument) -> None:
    before = _signatures(_entries())
    for plugin in _plugins():
        instrument(plugin)
    during = _signatures(_entries())
    assert {place: during.get(place) for place in before} == before
