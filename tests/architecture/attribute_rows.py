"""Keep the rows of docs/reference/attributes.md what the code writes.

    python tests/architecture/attribute_rows.py

A name that the code writes and the page has not is put behind the name that is most like it, with
what `semconv.py` says beside it; the row of one that nothing writes any more is taken out. What a
row says stays: it may be more than fits beside a constant.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path

if __name__ == "__main__":
    sys.path[:0] = [str(Path(__file__).parent.parent), str(Path(__file__).parent.parent.parent)]

from architecture.sources import ROOT, sources
from tracekit import semconv

__all__ = ["mended", "on_page", "written"]

PAGE = ROOT / "docs" / "reference" / "attributes.md"

LITERALLY = {"exception.escaped"}
"""Written by its name: the constant says that it is deprecated."""
WRITERS = (
    "tracekit.core.",
    "tracekit.instrumentation.",
    "tracekit.processors.compress",
    "tracekit.processors.redact",
)
NOT_ATTRIBUTES = {"SCHEMA_URL", "METHOD_OTHER", "REQUEST_KEY"}

_ROW = re.compile(r"\| `([^`]+)`")


def written() -> set[str]:
    """Return every name that the code writes."""
    found = set(LITERALLY)
    for source in sources():
        if source.module.startswith(WRITERS):
            found |= {*_conventional(source.tree), *_own(source.tree)}
    return found


def on_page(text: str) -> set[str]:
    return {match[1] for line in text.splitlines() if (match := _ROW.match(line))}


def mended(text: str, names: set[str]) -> str:
    """Return the page with a row for each of `names`, and none for any other."""
    lines = [line for line in text.splitlines() if _name_of(line) in {None, *names}]
    for name in sorted(names - on_page(text)):
        lines.insert(_place_of(name, lines), f"| `{name}` | {_said_of(name)} |")
    return "\n".join(lines) + "\n"


def _name_of(line: str) -> str | None:
    match = _ROW.match(line)
    return match[1] if match else None


def _place_of(name: str, lines: list[str]) -> int:
    """Return where a name's row belongs: behind the last of those that begin most like it."""
    alike = [_shared(name, _name_of(line) or "") for line in lines]
    best = max(alike)
    first = alike.index(best)
    while first + 1 < len(lines) and alike[first + 1] == best:
        first += 1
    return first + 1


def _shared(name: str, other: str) -> int:
    """Count the first parts of two names that are the same."""
    pairs = zip(name.split("."), other.split("."), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _said_of(name: str) -> str:
    """Return the comment beside a name's constant."""
    text = Path(semconv.__file__).read_text(encoding="utf-8")
    found = re.search(rf'^\w+: Final = "{re.escape(name)}"(?:  # (.+))?$', text, re.MULTILINE)
    return (found and found[1]) or ""


def _conventional(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "semconv":
            name = getattr(semconv, node.attr)
            if isinstance(name, str) and node.attr not in NOT_ATTRIBUTES:
                yield name


def _own(tree: ast.Module) -> Iterator[str]:
    """Yield the values of constants such as ``RESULT = "tracekit.result"``."""
    for node in tree.body:
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Constant):
            continue
        (target, value) = (ast.unparse(node.targets[0]), node.value.value)
        if target.isupper() and target not in NOT_ATTRIBUTES and _is_own(value):
            yield str(value)


def _is_own(value: object) -> bool:
    return isinstance(value, str) and value.startswith("tracekit.")


if __name__ == "__main__":
    PAGE.write_text(mended(PAGE.read_text(encoding="utf-8"), written()), encoding="utf-8")
