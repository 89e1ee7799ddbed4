"""The documentation is true: its programs run, its commands print what it shows."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from architecture.page_blocks import Block, agrees, blocks, commands
from architecture.sources import ROOT, pages

RUNNER = Path(__file__).with_name("run_page.py")
RUN = ("console", "pycon", "python")

# Shown for reading only, so what they show must need a network, a checkout or an administrator.
SHELL = ("bash", "sh", "shell")
NOT_OURS_TO_RUN = re.compile(r"(apt-get|brew|cd|docker|export|git|make|pip|sudo|uv|#)\b|#|\.ci/|$")

every_page = pytest.mark.parametrize(
    "page", pages(), ids=lambda page: page.relative_to(ROOT).as_posix()
)


@every_page
@pytest.mark.matrix_skip
@pytest.mark.timeout(300)
def test_a_page_runs(page: Path, tmp_path: Path) -> None:
    if not [block for block in _blocks_of(page) if block.language in RUN and not block.no_run]:
        return
    folder = tmp_path / "reader"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    done = subprocess.run(
        [sys.executable, str(RUNNER), str(page)],
        cwd=folder,
        env=_readers_environment(tmp_path),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout


def _readers_environment(home: Path) -> dict[str, str]:
    return os.environ | {
        "HOME": str(home),
        "XDG_STATE_HOME": str(home / "state"),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": "-p no:asyncio",  # a reader may not have it; it speaks of its settings
    }


@every_page
def test_what_is_not_run_says_why(page: Path) -> None:
    assert [block.line for block in _blocks_of(page) if block.no_run == ""] == []


@every_page
def test_shell_blocks_show_only_what_cannot_be_run_here(page: Path) -> None:
    escaped = [
        f"{block.line}: {line}"
        for block in _blocks_of(page)
        if block.language in SHELL and not block.no_run
        for line in block.text.splitlines()
        if not NOT_OURS_TO_RUN.match(line.removeprefix("$ ").strip())
    ]
    assert not escaped, "use a console block, which is run"


@every_page
def test_every_block_names_its_language(page: Path) -> None:
    assert [block.line for block in _blocks_of(page) if not block.language] == []


@every_page
def test_a_file_of_the_project_is_shown_as_it_is(page: Path) -> None:
    shown = [block for block in _blocks_of(page) if block.no_run and block.file_name]
    files = {block.file_name: block.text.partition("\n")[2] for block in shown}
    ours = {name: text for name, text in files.items() if (ROOT / str(name)).is_file()}
    assert [name for name, text in ours.items() if text not in _text_of(str(name))] == []


def _text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _blocks_of(page: Path) -> list[Block]:
    return blocks(page.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("checkout  3.02 s", "checkout 2.87 s"),
        ("trace 4bf92f3577b34da6", "trace 00f067aa0ba902b7"),
        ("first\n...\nlast", "first\nsecond\nthird\nlast"),
        ("kept ... spans", "kept 12 or more spans"),
        ("a ████████ 5 ms", "a ███ 12 ms"),
        ("", "anything"),
    ],
)
def test_output_that_differs_only_between_runs_agrees(shown: str, real: str) -> None:
    assert agrees(shown, real)


@pytest.mark.parametrize(
    ("shown", "real"),
    [
        ("checkout 3.02 s", "payment 3.02 s"),
        ("first\nlast", "first\nsecond\nlast"),
        ("first ...", "before first and after"),
        ("5 ms", "5 errors"),
        ("something", ""),
    ],
)
def test_output_that_says_something_else_does_not_agree(shown: str, real: str) -> None:
    assert not agrees(shown, real)


def test_a_command_may_go_on_over_lines() -> None:
    block = Block("console", "$ echo a \\\n    b\na b\n$ true\n", 10, None)
    assert [(c.line, c.shown, c.number) for c in commands(block)] == [
        ("echo a \\\n    b", "a b", 10),
        ("true", "", 13),
    ]


@pytest.mark.parametrize(
    "page",
    [
        "```python\nraise ValueError('here')\n```\n",
        "```console\n$ false\n```\n",
        "```console\n$ echo one\ntwo\n```\n",
        "```python\n>>> 1 + 1\n3\n```\n",
        "```python\n# saved.py\nraise SystemExit(3)\n```\n\n```console\n$ python saved.py\n```\n",
    ],
)
@pytest.mark.matrix_skip
def test_a_page_that_is_wrong_is_found_out(page: str, tmp_path: Path) -> None:
    assert _run(page, tmp_path).returncode != 0


@pytest.mark.matrix_skip
def test_blocks_of_a_page_share_one_program_and_its_files(tmp_path: Path) -> None:
    page = (
        "```python\nanswer = 42\n```\n"
        "```python\n# saved.py\nprint('saved')\n```\n"
        "```console\n$ python saved.py\nsaved\n```\n"
        "```python\n>>> answer\n42\n```\n"
        "<!-- no-run: it would end the page -->\n```python\nraise SystemExit(1)\n```\n"
    )
    done = _run(page, tmp_path)
    assert (done.returncode, done.stdout) == (0, "")


def _run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    page = folder / "page.md"
    page.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, str(RUNNER), str(page)],
        cwd=folder,
        env=_readers_environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
