"""The matrix of versions has every library, and begins where the library's support does."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

import tracekit.instrumentation
from compat.matrix import LIBRARIES
from tracekit.instrumentation._patch import LibraryInstrumentor, _is_supported

FOLDER = Path(tracekit.instrumentation.__file__).parent
PLUGINS: dict[str, type[LibraryInstrumentor]] = {
    path.stem: module.plugin
    for path in sorted(FOLDER.glob("[a-z]*.py"))
    for module in [importlib.import_module(f"tracekit.instrumentation.{path.stem}")]
    if getattr(module, "plugin", None) is not None
}


VERSIONED = {name for name, plugin in PLUGINS.items() if plugin.supported}
# What AWS brings with its runtimes, and what watches no calls.
OTHERS = {"aws_lambda", "pytest"}


def test_every_library_with_versions_is_in_the_matrix() -> None:
    assert set(LIBRARIES) == VERSIONED | OTHERS


@pytest.mark.parametrize("name", sorted(VERSIONED))
def test_the_oldest_that_is_tested_is_the_oldest_that_is_supported(name: str) -> None:
    supported, oldest = PLUGINS[name].supported, LIBRARIES[name].oldest
    assert _is_supported(oldest, supported)
    lowest = supported.partition(",")[0].removeprefix(">=")
    assert [int(part) for part in oldest.split(".")[: lowest.count(".") + 1]] == [
        int(part) for part in lowest.split(".")
    ]


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_tests_of_a_library_are_there(name: str) -> None:
    tests = LIBRARIES[name].tests or [f"test_{name}.py"]
    folder = Path(__file__).parent.parent / "instrumentation"
    assert all((folder / test).exists() for test in tests)
    assert {path.name for path in folder.glob(f"test_{name}_*.py")} <= set(tests)
