"""The public surface: what users may type, and nothing by accident."""

from __future__ import annotations

import ast
import importlib

import pytest

from architecture.sources import Source, sources

FACE = [
    "attributes",
    "configure",
    "continue_trace",
    "current_span",
    "extract",
    "flush",
    "get_tracer",
    "inject",
    "instrument",
    "keep",
    "set_sampling",
    "shutdown",
    "span",
    "stats",
    "traced",
    "uninstrument",
]

PUBLIC = [source for source in sources() if not source.is_private]


def test_the_face_is_these_names() -> None:
    tracekit = importlib.import_module("tracekit")
    assert sorted(tracekit.__all__) == sorted([*FACE, "__version__"])
    assert [name for name in tracekit.__all__ if not hasattr(tracekit, name)] == []


@pytest.mark.parametrize("source", PUBLIC, ids=lambda source: source.module)
def test_a_public_module_says_what_is_public(source: Source) -> None:
    if _is_empty(source) or source.module == "tracekit.__main__":
        return
    assert source.is_plugin or _declared(source) is not None, "needs __all__"


@pytest.mark.parametrize("source", PUBLIC, ids=lambda source: source.module)
def test_every_name_declared_public_exists(source: Source) -> None:
    bound = _bound(source.tree)
    if "__getattr__" in bound:
        bound |= set(_declared(source) or ())
    assert [name for name in _declared(source) or () if name not in bound] == []


def _is_empty(source: Source) -> bool:
    """Say whether there is nothing beside a docstring: a folder's `__init__`, most often."""
    return all(isinstance(node, ast.Expr | ast.ImportFrom) for node in source.tree.body) and all(
        not isinstance(node, ast.ImportFrom) or node.module == "__future__"
        for node in source.tree.body
    )


def _declared(source: Source) -> list[str] | None:
    for node in source.tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if isinstance(node, ast.AnnAssign):
            targets = [node.target]
        if any(isinstance(target, ast.Name) and target.id == "__all__" for target in targets):
            return list(ast.literal_eval(node.value))  # type: ignore[attr-defined]
    return None


def _bound(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names
