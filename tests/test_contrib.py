"""Libraries that tracekit does not cover are handed to whichever instrumentation is installed."""

from __future__ import annotations

import importlib
import logging
import os
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from tracekit import contrib

LOADED_FROM = """
import os
class Instrumentor:
    calls, is_instrumented_by_opentelemetry = [], False
    def instrument(self, **options):
        self.calls.append(("instrument", os.environ.get("OTEL_SEMCONV_STABILITY_OPT_IN")))
    def uninstrument(self):
        self.calls.append(("uninstrument", None))
class Busy(Instrumentor):
    is_instrumented_by_opentelemetry = True
class Raising(Instrumentor):
    def instrument(self, **options): raise RuntimeError("their bug")
    def uninstrument(self): raise RuntimeError("their bug")
class DependencyConflictError(Exception): pass
class Conflicting(Instrumentor):
    def instrument(self, **options): raise DependencyConflictError("wants click<1")
class Missing(Instrumentor):
    def instrument(self, **options): raise ModuleNotFoundError("no", name="some_library")
class Stubborn(Instrumentor):
    def uninstrument(self): raise RuntimeError("their bug")
def hook(): Instrumentor.calls.append(("hook", None))
def bad_hook(): raise RuntimeError("their bug")
"""


class Package:
    """A distribution in front of the installed ones, with entry points of a test's choice."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.module_name = "their_instrumentation"
        (folder / f"{self.module_name}.py").write_text(LOADED_FROM)

    def declare(self, *requires: str, **points: str) -> None:
        """Write the metadata; points are instrumentors, or hooks when named pre_… and post_…."""
        metadata = self._folder / "their_instrumentation-1.5.dist-info"
        metadata.mkdir()
        lines = [f"Requires-Dist: {line}" for line in requires]
        head = ["Metadata-Version: 2.1", "Name: their-instrumentation", "Version: 1.5"]
        (metadata / "METADATA").write_text("\n".join([*head, *lines]) + "\n")
        groups = [
            f"[{self._group(name)}]\n{name} = {self.module_name}:{attribute}\n"
            for name, attribute in points.items()
        ]
        (metadata / "entry_points.txt").write_text("\n".join(groups))

    @staticmethod
    def _group(name: str) -> str:
        kind = name.partition("_")[0]
        named = {"pre": "opentelemetry_pre_instrument", "post": "opentelemetry_post_instrument"}
        return named.get(kind, "opentelemetry_instrumentor")

    @property
    def module(self) -> ModuleType:
        return importlib.import_module(self.module_name)

    def calls(self) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = self.module.Instrumentor.calls
        return found


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Package]:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = Package(tmp_path)
    yield package
    contrib.unload()
    sys.modules.pop(package.module_name, None)


@pytest.fixture
def installed() -> list[str]:
    """Return the names of instrumentations that are installed here, to be left out."""
    return [point.name for point in entry_points(group="opentelemetry_instrumentor")]


def statuses() -> dict[str, contrib.ContribStatus]:
    return {status.name: status for status in contrib.active() if status.reason != "disabled"}


def test_an_installed_instrumentation_is_put_on(package: Package, installed: list[str]) -> None:
    package.declare(theirs="Instrumentor")
    contrib.load([], installed)
    expected = contrib.ContribStatus("theirs", "their-instrumentation", "1.5", True, "active")
    assert statuses() == {"theirs": expected}
    assert len(package.calls()) == 1


def test_stable_conventions_are_on_before_the_first_one_loads(
    package: Package, installed: list[str]
) -> None:
    package.declare(theirs="Instrumentor")
    contrib.load([], installed)
    assert package.calls() == [("instrument", contrib.STABLE)]


def test_a_choice_of_conventions_is_kept(package: Package, installed: list[str]) -> None:
    os.environ[contrib.STABILITY_VARIABLE] = "http/dup"
    package.declare(theirs="Instrumentor")
    contrib.load([], installed)
    assert package.calls() == [("instrument", "http/dup")]


def test_what_is_covered_natively_is_left_out(package: Package, installed: list[str]) -> None:
    package.declare(theirs="Instrumentor", other="Instrumentor")
    contrib.load(["theirs"], installed)
    assert {name: each.reason for name, each in statuses().items()} == {
        "theirs": "covered by tracekit",
        "other": "active",
    }
    assert len(package.calls()) == 1


def test_what_is_switched_off_is_left_out(package: Package, installed: list[str]) -> None:
    package.declare(theirs="Instrumentor")
    contrib.load([], [*installed, "theirs"])
    assert statuses() == {}
    assert package.module_name not in sys.modules


def test_a_star_switches_everything_off(package: Package) -> None:
    package.declare(theirs="Instrumentor", pre_hook="hook")
    contrib.load([], ["*"])
    assert contrib.active() == []
    assert package.module_name not in sys.modules
    assert contrib.STABILITY_VARIABLE not in os.environ


def test_the_library_is_looked_for_before_anything_is_imported(
    package: Package, installed: list[str]
) -> None:
    package.declare("not-there-at-all>=1; extra == 'instruments'", theirs="Instrumentor")
    contrib.load([], installed)
    assert statuses()["theirs"].reason == "not-there-at-all is not installed"
    assert package.module_name not in sys.modules


@pytest.mark.parametrize("extra", ["instruments", "instruments-any"])
def test_one_of_several_libraries_will_do(
    extra: str, package: Package, installed: list[str]
) -> None:
    requires = [f"{name}>=0; extra == '{extra}'" for name in ("not-there-at-all", "click")]
    package.declare(*requires, theirs="Instrumentor")
    contrib.load([], installed)
    assert statuses()["theirs"].active


def test_what_the_package_itself_requires_is_no_library_that_it_watches(
    package: Package, installed: list[str]
) -> None:
    package.declare("not-there-at-all>=1", "neither; extra == 'test'", theirs="Instrumentor")
    contrib.load([], installed)
    assert statuses()["theirs"].active


def test_one_that_fails_does_not_stop_the_rest(
    package: Package, installed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    package.declare(a_first="Raising", b_gone="NotThere", c_last="Instrumentor")
    contrib.load([], installed)
    found = statuses()
    assert found["a_first"].reason == "RuntimeError: their bug"
    assert found["b_gone"].reason.startswith("AttributeError")
    assert found["c_last"].active
    warned = [each.getMessage() for each in caplog.records if each.levelno == logging.WARNING]
    assert warned == ["instrumentation a_first failed", "instrumentation b_gone failed"]


@pytest.mark.parametrize(
    ("attribute", "reason"),
    [
        ("Conflicting", "DependencyConflictError: wants click<1"),
        ("Missing", "some_library is not installed"),
    ],
)
def test_what_merely_does_not_fit_is_not_warned_of(
    attribute: str,
    reason: str,
    package: Package,
    installed: list[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    package.declare(theirs=attribute)
    contrib.load([], installed)
    assert statuses()["theirs"].reason == reason
    assert caplog.records == []


def test_loading_twice_instruments_once(package: Package, installed: list[str]) -> None:
    package.declare(theirs="Instrumentor")
    contrib.load([], installed)
    contrib.load([], installed)
    assert [call for call, _ in package.calls()] == ["instrument"]
    assert statuses()["theirs"].active


def test_what_somebody_else_has_put_on_is_left_to_them(
    package: Package, installed: list[str]
) -> None:
    package.declare(theirs="Busy")
    contrib.load([], installed)
    contrib.unload()
    assert package.calls() == []


def test_unloading_undoes_it(package: Package, installed: list[str]) -> None:
    package.declare(a_first="Stubborn", theirs="Instrumentor")
    contrib.load([], installed)
    contrib.unload()
    assert [call for call, _ in package.calls()] == ["instrument", "instrument", "uninstrument"]
    assert contrib.active() == []


def test_loading_again_after_unloading_instruments_again(
    package: Package, installed: list[str]
) -> None:
    package.declare(theirs="Instrumentor")
    contrib.load([], installed)
    contrib.unload()
    contrib.load([], installed)
    assert [call for call, _ in package.calls()] == ["instrument", "uninstrument", "instrument"]


def test_hooks_run_around_it_and_may_fail(
    package: Package, installed: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    package.declare(pre_one="hook", pre_two="bad_hook", theirs="Instrumentor", post_one="hook")
    contrib.load([], installed)
    assert [call for call, _ in package.calls()] == ["hook", "instrument", "hook"]
    assert "opentelemetry_pre_instrument hook pre_two failed" in caplog.text
