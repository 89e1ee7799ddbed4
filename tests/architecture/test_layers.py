"""Imports go down the rows of the house, never up and never sideways."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from architecture.sources import PACKAGE, Source, sources

ROWS: dict[str, int] = {
    "__init__": 6,
    "__main__": 6,
    "cli": 6,
    "viewer": 5,
    "testing": 5,
    "sdk": 5,
    "distro": 5,
    "configure": 4,
    "sources": 4,
    "core": 3,
    "samplers": 3,
    "processors": 3,
    "exporters": 3,
    "propagators": 3,
    "instrumentation": 3,
    "findings": 3,
    "libraries": 3,
    "self_metrics": 3,
    "ledger_file": 3,
    "sampling": 3,
    "interfaces": 2,
    "store": 2,
    "formats": 2,
    "model": 1,
    "discovery": 1,
    "contrib": 1,
    "settings": 1,
    "_local_trace": 1,
    "_ot_state": 1,
    "_rules": 1,
    "errors": 0,
    "semconv": 0,
    "_fork": 0,
    "_otel_baggage": 0,
    "_otel_propagate": 0,
    "_hangup": 0,
    "_otel_context": 0,
    "_ledger": 0,
    "_own_work": 0,
    "_remote_span": 0,
    "_sql": 0,
    "_url_secrets": 0,
    "_version": 0,
}

# Files that belong to their neighbour.
PART_OF = {
    "_door": "testing",
    "_finding_reasons": "configure",
    "_listening": "interfaces",
    "_records": "model",
    "_sql_summary": "_sql",
    "_head": "configure",
    "_stages": "configure",
    "_rule_text": "_rules",
    "captured": "testing",
    "settings_file": "settings",
    "pytest_plugin": "testing",
    "trace": "model",
}

# `python -m tracekit` is the command.
NEIGHBOURS_ALLOWED = {("__main__", "cli")}

# We are an SDK: these are what tracekit replaces, or what it does without (protobuf).
NEVER_IMPORTED = (
    "google.protobuf",
    "opentelemetry.exporter",
    "opentelemetry.instrumentation",
    "opentelemetry.propagators.aws",
    "opentelemetry.propagators.b3",
    "opentelemetry.propagators.jaeger",
    "opentelemetry.propagators.ot_trace",
    "opentelemetry.proto",
    "opentelemetry.sdk",
    "opentelemetry.semconv",
    "opentelemetry.semconv_ai",
    "opentelemetry.util.http",
)

# `opentelemetry-instrument` looks for the base class of its distros; only it loads this file, so
# that package is there when the line runs.
# pytest itself loads the module that imports it.
ALLOWED_THERE = {
    ("tracekit.distro", "opentelemetry.instrumentation.distro.BaseDistro"),
    ("tracekit._door.tracekit_pytest", "pytest"),
}

# What may be imported as soon as the module is; anything else waits for its first use.
ALWAYS_INSTALLED = {"opentelemetry", "wrapt", "contextvars_extras", "requests", "click"}


@dataclass(frozen=True)
class Import:
    """One imported name, absolute: `tracekit.core.span`, `tracekit.model.Event`, `json`."""

    name: str
    where: str
    at_module_level: bool


def imports_of(source: Source) -> Iterator[Import]:
    """Yield every import: in functions and under TYPE_CHECKING too, and by literal name."""
    on_load = set(_nodes_run_on_load(source.tree))
    for node in ast.walk(source.tree):
        for name in _names(node, source):
            yield Import(name, source.line(node), node in on_load)


def _nodes_run_on_load(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        yield child
        yield from _nodes_run_on_load(child)


def _names(node: ast.AST, source: Source) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        origin = _origin(node, source)
        return [f"{origin}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and _called(node) in ("import_module", "__import__"):
        return [arg.value for arg in node.args[:1] if _is_text(arg)]  # type: ignore[attr-defined]
    return []


def _origin(node: ast.ImportFrom, source: Source) -> str:
    if not node.level:
        return node.module or ""
    package = source.module.split(".")
    climb = node.level - 1 if source.is_package else node.level
    return ".".join([*package[: len(package) - climb], *([node.module] if node.module else [])])


def _called(call: ast.Call) -> str:
    if isinstance(call.func, ast.Attribute):
        return call.func.attr
    return call.func.id if isinstance(call.func, ast.Name) else ""


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def part_of(module: str) -> str:
    """Return the row's name for a dotted name inside tracekit."""
    _, _, rest = module.partition(".")
    first = rest.partition(".")[0]
    # `from tracekit import span` takes a name of the face, not a module.
    return PART_OF.get(first, first) if first in ROWS or _is_module(first) else "__init__"


def _is_module(name: str) -> bool:
    return bool(name) and ((PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").exists())


def test_every_file_has_a_row() -> None:
    strangers = {part_of(source.module) for source in sources()} - set(ROWS)
    assert not strangers, f"no row in the table for {sorted(strangers)}"


def test_imports_only_go_down() -> None:
    assert not list(_imports_going_up_or_sideways())


def _imports_going_up_or_sideways() -> Iterator[str]:
    for source in sources():
        here = part_of(source.module)
        for imported in imports_of(source):
            if imported.name.partition(".")[0] != "tracekit":
                continue
            there = part_of(imported.name)
            if {here, there} - set(ROWS):
                continue  # said by the test above
            if not _may_import(here, there):
                yield f"{imported.where}: {here} imports {there}: rows {ROWS[here]}, {ROWS[there]}"


def _may_import(here: str, there: str) -> bool:
    return here == there or ROWS[there] < ROWS[here] or (here, there) in NEIGHBOURS_ALLOWED


def test_what_tracekit_replaces_is_never_imported() -> None:
    found = [
        f"{imported.where}: {imported.name}"
        for source in sources()
        for imported in imports_of(source)
        if f"{imported.name}.".startswith(tuple(f"{name}." for name in NEVER_IMPORTED))
        and (source.module, imported.name) not in ALLOWED_THERE
    ]
    assert not found


def test_libraries_that_may_be_missing_are_imported_on_first_use() -> None:
    found = [
        f"{imported.where}: {imported.name}"
        for source in sources()
        for imported in imports_of(source)
        if imported.at_module_level
        and not _always_there(imported.name.partition(".")[0])
        and (source.module, imported.name) not in ALLOWED_THERE
    ]
    assert not found


def _always_there(name: str) -> bool:
    return name == "tracekit" or name in ALWAYS_INSTALLED or name in sys.stdlib_module_names


def test_libraries_that_are_watched_are_not_needed_by_the_core() -> None:
    """Requests is our transport and click our command line: nothing else starts them."""
    homes = {
        "requests": ("exporters", "instrumentation", "sources"),
        "click": ("cli",),
        "rich": ("cli", "exporters"),
    }
    found = [
        f"{imported.where}: {imported.name}"
        for source in sources()
        for imported in imports_of(source)
        for library, allowed in homes.items()
        if imported.name.partition(".")[0] == library and part_of(source.module) not in allowed
    ]
    assert not found


@pytest.mark.parametrize(
    ("here", "there", "allowed"),
    [
        ("core", "interfaces", True),
        ("core", "core", True),
        ("__main__", "cli", True),
        ("core", "configure", False),
        ("instrumentation", "core", False),
        ("interfaces", "store", False),
        ("store", "interfaces", False),
    ],
)
def test_only_lower_rows_may_be_imported(here: str, there: str, allowed: bool) -> None:
    assert _may_import(here, there) is allowed


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("from tracekit.store import reader", "tracekit.store.reader"),
        ("def f():\n    from ..core import span", "tracekit.core.span"),
        ("from . import base", "tracekit.samplers.base"),
        ("import importlib\nimportlib.import_module('tracekit.core')", "tracekit.core"),
        ("if TYPE_CHECKING:\n    import tracekit.core.span", "tracekit.core.span"),
    ],
)
def test_every_way_of_importing_is_seen(code: str, expected: str) -> None:
    source = Source(PACKAGE / "samplers" / "made_up.py", code, ast.parse(code))
    assert expected in [imported.name for imported in imports_of(source)]
