"""What every test needs: a clean environment, a store of its own, tracekit as if just imported."""

from __future__ import annotations

import gc
import importlib.util
import itertools
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

_SETTINGS = ("OTEL_", "TRACEKIT_", "TRACEPARENT", "TRACESTATE", "BAGGAGE")

# Before anything is collected: opentelemetry-api reads some of these when it is imported.
for _name in [name for name in os.environ if name.startswith(_SETTINGS)]:
    del os.environ[_name]

# A deadline measures the machine. CI explores the same examples each time, so that a red run is
# the change's doing; a developer's runs look for new ones.
settings.register_profile("developer", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
# For the Pythons that run the quick tests: what examples find seldom depends on the version.
settings.register_profile("quick", settings.get_profile("ci"), max_examples=25)
settings.load_profile("ci" if os.environ.get("CI") else "developer")

# A failed assertion in a contract that several test files share explains itself like one in a test.
_shared = {path.stem for path in Path(__file__).parent.iterdir() if path.name[0] not in "._"}
pytest.register_assert_rewrite(*sorted(_shared - set(sys.modules)))

_numbers = itertools.count()

_LONGEST = {"backends", "benchmarks", "findings", "formats", "integration"}
"""Folders with files that take longest, of few tests though they may be."""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Leave the tests themselves out of garbage collections: each would take half a second."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Have the longest files come first where xdist shares files out to processes.

    The last one to be taken would keep one process busy while the others are done.
    """
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.parent.name not in _LONGEST)


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Give the test a state folder of its own, and take back whatever it set or started."""
    before = dict(os.environ)
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.getbasetemp() / f"state{next(_numbers)}")
    os.environ["NO_COLOR"] = "1"
    # What runs the tests may say how wide its own terminal is.
    os.environ.pop("COLUMNS", None)
    yield
    _reset_tracekit()
    _let_a_provider_be_set()
    _restore_environment(before)


def _reset_tracekit() -> None:
    """Shut down and forget, unless the test never got as far as configuring."""
    if "tracekit.configure" in sys.modules and importlib.util.find_spec("tracekit.testing"):
        from tracekit.testing import reset

        reset()


def _let_a_provider_be_set() -> None:
    """Take back that a provider was set, where a test hid the global one and put none back."""
    api: Any = sys.modules.get("opentelemetry.trace")
    if api is not None and api._TRACER_PROVIDER is None:
        api._TRACER_PROVIDER_SET_ONCE._done = False


def _restore_environment(before: dict[str, str]) -> None:
    # pytest writes a variable of its own between setup and teardown.
    for name in set(os.environ) - set(before) - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update({name: before[name] for name in before if name != "PYTEST_CURRENT_TEST"})


@pytest.fixture
def anyio_backend() -> str:
    """Run tests marked `anyio` on asyncio alone: trio's tasks carry contextvars the same way."""
    return "asyncio"


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the folder that holds pyproject.toml."""
    return Path(__file__).resolve().parent.parent
