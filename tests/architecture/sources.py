"""The parsed source files of tracekit, and the pages of its documentation."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "tracekit"

# Folders in which every file without a leading underscore is one plug-in.
PLUGIN_FOLDERS = ("exporters", "formats", "instrumentation", "propagators", "samplers")


@dataclass(frozen=True)
class Source:
    """One file of the package."""

    path: Path
    text: str
    tree: ast.Module

    @property
    def where(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def module(self) -> str:
        """Return the dotted name: `tracekit.core.span`, `tracekit.core` for its `__init__`."""
        parts = self.path.relative_to(ROOT).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def is_private(self) -> bool:
        parts = self.module.split(".")
        return any(part.startswith("_") and not part.startswith("__") for part in parts)

    @property
    def is_plugin(self) -> bool:
        parts = self.module.split(".")
        return len(parts) == 3 and parts[1] in PLUGIN_FOLDERS and not parts[2].startswith("_")

    def line(self, node: ast.AST) -> str:
        return f"{self.where}:{getattr(node, 'lineno', 1)}"


@cache
def sources() -> tuple[Source, ...]:
    """Parse every Python file of the package once."""
    return tuple(_parse(path) for path in sorted(PACKAGE.rglob("*.py")))


def _parse(path: Path) -> Source:
    text = path.read_text(encoding="utf-8")
    return Source(path, text, ast.parse(text, filename=str(path)))


@cache
def pages() -> tuple[Path, ...]:
    """Return the README and every page of the documentation."""
    readme = ROOT / "README.md"
    docs = sorted((ROOT / "docs").rglob("*.md"))
    return (*([readme] if readme.exists() else []), *docs)
