"""House rules that a reader relies on: size, docstrings, plug-in declarations, stdout, links."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from architecture.sources import PACKAGE, ROOT, Source, pages, sources

LONGEST_FILE = 500
LONGEST_INIT = 80

# Nouns that say nothing about what lives there.
EMPTY_NAMES = re.compile(r"(Manager|Helper|Util|Utils|Common|Handler|Impl)$")
EMPTY_FILES = {"util.py", "utils.py", "helper.py", "helpers.py", "common.py", "misc.py"}

# Whoever starts these asked for output.
MAY_PRINT = ("tracekit/cli/", "tracekit/exporters/console.py")

every_source = pytest.mark.parametrize("source", sources(), ids=lambda source: source.where)
every_page = pytest.mark.parametrize(
    "page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix()
)


@every_source
def test_a_file_is_read_in_one_sitting(source: Source) -> None:
    longest = LONGEST_INIT if source.is_package else LONGEST_FILE
    assert len(source.text.splitlines()) <= longest


@every_source
def test_a_module_says_what_lives_in_it(source: Source) -> None:
    docstring = ast.get_docstring(source.tree)
    assert docstring, "needs a docstring"
    assert docstring.splitlines()[0].endswith("."), "its first line is a sentence"


@every_source
def test_nothing_is_left_for_later(source: Source) -> None:
    found = [
        f"{source.where}:{number}"
        for number, line in enumerate(source.text.splitlines(), 1)
        if re.search(r"\b(TODO|FIXME|XXX|HACK)\b", line)
    ]
    assert not found


@every_source
def test_names_say_what_a_thing_is(source: Source) -> None:
    assert source.path.name not in EMPTY_FILES
    classes = [node for node in ast.walk(source.tree) if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes if EMPTY_NAMES.search(node.name)] == []


@every_source
def test_stdout_belongs_to_the_program(source: Source) -> None:
    if source.where.startswith(MAY_PRINT):
        return
    calls = [node for node in ast.walk(source.tree) if isinstance(node, ast.Call)]
    printed = [
        node for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"
    ]
    assert [source.line(node) for node in printed] == []


@pytest.mark.parametrize(
    "source",
    [source for source in sources() if source.is_plugin],
    ids=lambda source: source.module,
)
def test_a_plugin_ends_with_its_typed_declaration(source: Source) -> None:
    last = source.tree.body[-1]
    assert isinstance(last, ast.AnnAssign), "the last statement is `plugin: type[...] = ...`"
    assert ast.unparse(last.target) == "plugin"
    assert last.value is not None


def test_the_package_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()


@every_page
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    assert list(_broken_links(page)) == []


def _broken_links(page: Path) -> Iterator[str]:
    text = _without_code(page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(\s*<?([^)\s>]+)>?[^)]*\)", text):
        if re.match(r"[a-z][a-z0-9+.-]*:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists():
            yield f"{target}: no such file"
        elif anchor and linked.suffix == ".md" and anchor not in _anchors(linked):
            yield f"{target}: no such heading"


def _without_code(text: str) -> str:
    text = re.sub(r"^(```+|~~~+).*?^\1\s*$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]*`", "code", text)


def _anchors(page: Path) -> set[str]:
    """Return the anchors that the headings of a page get, here and on a code forge."""
    text = re.sub(r"^(```+).*?^\1\s*$", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    return {_slug(heading) for heading in re.findall(r"^#+\s+(.+?)\s*#*$", text, re.MULTILINE)}


def _slug(heading: str) -> str:
    words = re.sub(r"[^\w\- ]", "", heading.lower())
    return words.strip().replace(" ", "-")
