"""Importing does nothing: no thread, hook, environment read, file or heavy library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from architecture.sources import sources

# Each costs more than the rest of tracekit together, and is needed by a part of it only.
HEAVY = ["asyncio", "click", "contextvars_extras", "grpc", "numpy", "requests", "rich", "starlette"]

# Importing these is starting them: the interpreter does so by these names.
PROGRAMS = ("__main__", "sitecustomize")

# Reports as JSON what importing the given modules did to a fresh interpreter. Hooks are counted
# when they are ours: a library of the standard library may have its own.
PROBE = """
import atexit, importlib, json, os, sys, threading
from opentelemetry import baggage, context, propagate, trace

class Watched(type(os.environ)):
    reads = []
    def __getitem__(self, name):
        self.reads.append(name)
        return super().__getitem__(name)

hooks = []
def record(*positional, **named):
    hooks.extend(hook for hook in (*positional, *named.values()) if callable(hook))

def ours(things):
    names = [str(getattr(thing, "__module__", "")) for thing in things]
    return [name for name in names if name.startswith(tuple(sys.argv[1:])) or "tracekit" in name]

os.environ.__class__ = Watched
atexit.register = os.register_at_fork = record
provider, propagator = trace._TRACER_PROVIDER, propagate.get_global_textmap()
Watched.reads.clear()
loaded = set(sys.modules)

for module in sys.argv[1:]:
    importlib.import_module(module)

print(json.dumps({
    "threads": threading.active_count() - 1,
    "reads": [name for name in Watched.reads if name.startswith(("OTEL_", "TRACEKIT_", "XDG_"))],
    "globals": (trace._TRACER_PROVIDER, propagate.get_global_textmap()) != (provider, propagator),
    "hooks": ours(hooks),
    "import_hooks": ours(map(type, sys.meta_path)),
    "excepthook": ours([sys.excepthook]),
    "modules": sorted(set(sys.modules) - loaded),
}))
"""

NOTHING = {
    "threads": 0,
    "reads": [],
    "globals": False,
    "hooks": [],
    "import_hooks": [],
    "excepthook": [],
}


def _import(*modules: str, path: Path | None = None) -> tuple[dict[str, object], set[str]]:
    """Return what importing did, and which modules it loaded beside opentelemetry-api's."""
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *modules],
        env=os.environ | ({"PYTHONPATH": str(path)} if path else {}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return found, set(found.pop("modules"))


@pytest.mark.parametrize("module", ["tracekit", "tracekit.configure", "tracekit.testing"])
def test_importing_changes_nothing_in_the_process(module: str) -> None:
    done, loaded = _import(module)
    assert done == NOTHING
    assert sorted(loaded & set(HEAVY)) == []


def test_a_traced_program_does_not_load_the_records_of_what_is_read_back() -> None:
    _, loaded = _import("tracekit")
    assert "tracekit.model" in loaded
    assert "tracekit._records" not in loaded


def test_importing_every_module_changes_nothing_in_the_process() -> None:
    modules = [source.module for source in sources() if not source.module.endswith(PROGRAMS)]
    done, loaded = _import(*modules)
    assert done == NOTHING
    assert set(modules) <= loaded


def test_an_import_that_does_something_is_found_out(tmp_path: Path) -> None:
    (tmp_path / "meddler.py").write_text(
        "import atexit, os, sys, threading\n"
        "os.environ.get('OTEL_SERVICE_NAME')\n"
        "def hook(*_): pass\n"
        "class Finder: find_spec = staticmethod(hook)\n"
        "atexit.register(hook); sys.meta_path.append(Finder()); sys.excepthook = hook\n"
        "threading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    )
    done, _ = _import("meddler", path=tmp_path)
    assert done == {
        "threads": 1,
        "reads": ["OTEL_SERVICE_NAME"],
        "globals": False,
        "hooks": ["meddler"],
        "import_hooks": ["meddler"],
        "excepthook": ["meddler"],
    }
