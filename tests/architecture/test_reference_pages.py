"""The reference pages list what there is: signatures, settings, variables and attribute names."""

from __future__ import annotations

import ast
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import filter as filter_names
from fnmatch import fnmatch
from typing import Any

import pytest

import tracekit
from architecture.attribute_rows import mended, on_page, written
from architecture.page_blocks import agrees, blocks, commands
from architecture.sources import ROOT, sources
from tracekit import discovery, errors, sdk, settings, testing

REFERENCE = ROOT / "docs" / "reference"


def section(page: str, heading: str) -> str:
    """Return what stands below one heading of a reference page, up to the next one."""
    text = (REFERENCE / page).read_text(encoding="utf-8")
    found = re.search(
        rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL
    )
    assert found, f"docs/reference/{page} needs the heading ## {heading}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """Return the cells of every table row; headings and rulers are left out."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rulers = [number for number, row in enumerate(cells) if set("".join(row)) == {"-"}]
    skipped = {*rulers, *(number - 1 for number in rulers)}
    return [row for number, row in enumerate(cells) if number not in skipped]


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


# api.md --------------------------------------------------------------------------------------

FUNCTIONS = [name for name in tracekit.__all__ if name != "__version__"]
STARS: dict[Any, str] = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}


def parameters(subject: Any) -> list[inspect.Parameter]:
    return list(inspect.signature(subject).parameters.values())


def spelled(parameter: inspect.Parameter) -> str:
    return STARS.get(parameter.kind, "") + parameter.name


def default_of(parameter: inspect.Parameter) -> str:
    if parameter.kind in STARS:
        return ""
    if parameter.default is inspect.Parameter.empty:
        return "required"
    return f"`{parameter.default}`"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_api_page_has_the_arguments_of_each_function(name: str) -> None:
    shown = [row[:2] for row in rows(section("api.md", f"`tracekit.{name}`"))]
    real = [
        [f"`{spelled(parameter)}`", default_of(parameter)]
        for parameter in parameters(getattr(tracekit, name))
    ]
    assert shown == real


@pytest.mark.parametrize("module", [sdk, testing], ids=["sdk", "testing"])
def test_api_page_has_every_name_of_a_module(module: Any) -> None:
    shown = [quoted(row[0])[0] for row in rows(section("api.md", f"`{module.__name__}`"))]
    assert sorted(shown) == sorted(module.__all__)


@pytest.mark.parametrize("module", [sdk, testing], ids=["sdk", "testing"])
def test_api_page_has_the_arguments_of_each_class(module: Any) -> None:
    table = rows(section("api.md", f"`{module.__name__}`"))
    shown = {quoted(row[0])[0]: quoted(row[1]) for row in table if row[1]}
    real = {name: [spelled(p) for p in parameters(getattr(module, name))] for name in shown}
    assert shown == real


def test_api_page_has_the_tree_of_exceptions() -> None:
    (tree,) = blocks(section("api.md", "Exceptions"))
    shown = [re.split(r"(?<=\w)\s{2,}", line.rstrip())[0] for line in tree.text.splitlines()]
    assert shown == list(_tree(errors.TracekitError))


def _tree(cls: type[BaseException], depth: int = 0) -> Iterator[str]:
    yield "  " * depth + cls.__name__
    for below in cls.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from _tree(below, depth + 1)


# configuration.md ----------------------------------------------------------------------------

OURS = re.compile(r"(OTEL|TRACEKIT)_[A-Z_]*[A-Z]")
FIELD = "<>"
"""Stands for what an f-string or a page leaves open: OTEL_PYTHON_<LIBRARY>_EXCLUDED_URLS."""


def test_configuration_page_has_every_setting_with_its_variables() -> None:
    table = rows(section("configuration.md", "Settings of `configure()`"))
    shown = {quoted(row[0])[0]: tuple(quoted(row[2])) for row in table}
    assert shown == dict(settings.VARIABLES)


def test_configuration_page_says_which_settings_are_arguments() -> None:
    table = rows(section("configuration.md", "Settings of `configure()`"))
    arguments = inspect.signature(tracekit.configure).parameters
    for name, is_argument, *_ in table:
        assert (name, is_argument) == (name, "yes" if quoted(name)[0] in arguments else "no")


def test_configuration_page_has_the_defaults() -> None:
    table = rows(section("configuration.md", "Settings of `configure()`"))
    shown = {quoted(row[0])[0]: (quoted(row[3]) or [""])[0] for row in table}
    assert {name: shown[name] for name in settings.DEFAULTS} == dict(settings.DEFAULTS)


@pytest.mark.parametrize("kind", ["exporter", "sampler", "propagator", "instrumentation"])
def test_configuration_page_has_every_name_of_a_kind(kind: str) -> None:
    table = rows(section("configuration.md", "Names"))
    shown = {name for row in table if row[0] == kind for name in quoted(row[1])}
    # "none" is nobody's file; "parentbased" goes in front of another sampler's name.
    assert shown - {"none", "parentbased_"} == set(discovery.own_names(kind)) - {"parentbased"}


@pytest.mark.parametrize(
    ("heading", "subject"),
    [("Limits of one span", sdk.SpanLimits), ("Batches", sdk.BatchSpanProcessor)],
)
def test_configuration_page_has_the_arguments_of_a_class(heading: str, subject: Any) -> None:
    shown = [quoted(row[0])[0] for row in rows(section("configuration.md", heading))]
    assert shown == [p.name for p in parameters(subject) if p.name != "span_exporter"]


def test_configuration_page_has_every_variable_that_is_read() -> None:
    shown = _variables_on_page()
    assert sorted(name for name in _variables_in_code() if not _is_among(name, shown)) == []


def test_configuration_page_has_no_variable_that_nothing_reads() -> None:
    read = _variables_in_code()
    ours = {name for name in _variables_on_page() if OURS.match(name)}
    assert sorted(name for name in ours if not any(_is_among(one, {name}) for one in read)) == []


def _is_among(name: str, others: set[str]) -> bool:
    """Say whether a name is among others; FIELD stands for anything in it and in them."""
    return any(
        _pattern(name).fullmatch(other) or _pattern(other).fullmatch(name) for other in others
    )


def _pattern(name: str) -> re.Pattern[str]:
    return re.compile(re.escape(name).replace(re.escape(FIELD), ".+"))


def _variables_on_page() -> set[str]:
    text = _without_blocks((REFERENCE / "configuration.md").read_text(encoding="utf-8"))
    names = {name.partition("=")[0] for name in quoted(text)}
    return {re.sub(r"<\w+>", FIELD, name) for name in names if re.match(r"[A-Z<>_]{4,}$", name)}


def _without_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def _variables_in_code() -> set[str]:
    return {name for source in sources() for name in _variables(source.tree)}


def _variables(tree: ast.Module) -> Iterator[str]:
    pieces = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            name = "".join(
                str(getattr(part, "value", "")) if isinstance(part, ast.Constant) else FIELD
                for part in node.values
            )
            if re.fullmatch(r"(OTEL|TRACEKIT)_[A-Z_<>]+", name):
                yield name
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if OURS.fullmatch(node.value) and id(node) not in pieces:
                yield node.value
        elif isinstance(node, (ast.Call, ast.Subscript)):
            yield from _read_of_environment(node)


def _read_of_environment(node: ast.Call | ast.Subscript) -> Iterator[str]:
    """Yield X of `os.environ["X"]`, `os.environ.get("X")` and their like."""
    if isinstance(node, ast.Subscript):
        holder, keys = node.value, [node.slice]
    else:
        holder, keys = getattr(node.func, "value", node.func), node.args[:1]
    if ast.unparse(holder) == "os.environ":
        yield from (str(key.value) for key in keys if isinstance(key, ast.Constant))


# attributes.md -------------------------------------------------------------------------------

ATTRIBUTES = REFERENCE / "attributes.md"


def test_attributes_page_has_the_names_that_are_written_and_no_other() -> None:
    page = ATTRIBUTES.read_text(encoding="utf-8")
    assert mended(page, written()) == page, "run python tests/architecture/attribute_rows.py"


def test_a_name_that_is_new_gets_a_row_beside_those_like_it() -> None:
    page = "| `url.full` | all |\n| `db.name` | old |\n| `db.system` | which |\n\ntext\n"
    names = {"url.full", "db.system", "db.namespace", "server.address"}
    new = mended(page, names - {"server.address"})
    assert new == "| `url.full` | all |\n| `db.system` | which |\n| `db.namespace` |  |\n\ntext\n"
    assert "tracekit.pool.wait_s` | what was waited for a free connection |" in mended(
        page, {"tracekit.pool.wait_s"}
    )


def test_names_on_the_page_are_read_from_its_rows() -> None:
    assert on_page("| `a` | `b` |\n`c`\n") == {"a"}


# performance.md ------------------------------------------------------------------------------

MEANINGS, RUN = "What the rows mean", "A run"


def test_performance_page_says_what_every_row_of_the_benchmarks_means() -> None:
    names = _named(MEANINGS)
    assert [row for row in _measured() if not any(fnmatch(row, name) for name in names)] == []


@pytest.mark.parametrize("heading", [MEANINGS, RUN])
def test_performance_page_has_no_row_that_is_not_measured(heading: str) -> None:
    measured = _measured()
    assert [name for name in _named(heading) if not filter_names(measured, name)] == []


def test_performance_page_keeps_figures_apart_from_meanings() -> None:
    for name, *meaning in rows(section("performance.md", MEANINGS)):
        assert (name, len(meaning)) == (name, 1)
        assert not _is_figure(meaning[0]), name
    for name, *figures in rows(section("performance.md", RUN)):
        assert (name, len(figures)) == (name, 5)
        assert all(map(_is_figure, figures)), name


def _named(heading: str) -> list[str]:
    """Return the names of a table's rows: `spans.root`, or `memory.span`, `.setup`, or `http.*`."""
    names = []
    for first, *others in (quoted(row[0]) for row in rows(section("performance.md", heading))):
        theme = first.partition(".")[0]
        names += [first, *(theme + name if name[0] == "." else name for name in others)]
    return names


def _measured() -> list[str]:
    """Return the rows that there are, as they stand in the sources: importing them takes long."""
    texts = (path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py"))
    return [
        name for text in texts for name in re.findall(r'^@row\(\s*"([^"]+)"', text, re.MULTILINE)
    ]


def _is_figure(cell: str) -> bool:
    """Tell `2.61 s`, `0 lost`, `6.40 µs (without)` or `-` from a sentence."""
    return bool(re.fullmatch(r"-|-?[\d,.]+( [A-Za-zµ]+)?( \(\w+\))?", cell))


# README.md -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.matrix_skip
def test_the_readme_shows_what_the_demo_prints() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = next(
        command.shown
        for block in blocks(readme)
        if block.language == "console"
        for command in commands(block)
        if command.line == "make demo"
    )
    done = subprocess.run(
        [sys.executable, "examples/slow_checkout/run.py"],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert agrees(_without_bars(shown), _without_bars(done.stdout)), done.stdout


def _without_bars(text: str) -> str:
    """Leave out what a busy machine moves: where a bar begins, how long it is."""
    return re.sub(r"▕[^▏\n]*▏|[█▉▊▋▌▍▎▏]+", "", text)
