"""Run one documentation page as its reader would: its Python in one program, its commands beside.

`python run_page.py PAGE`, in an empty folder. It is a program of its own, not a function of the
tests, so that a page may configure tracekit for its whole process.
"""

from __future__ import annotations

import doctest
import subprocess
import sys
from pathlib import Path
from typing import Any

from page_blocks import Block, Command, agrees, blocks, commands

COMMAND_TIMEOUT_S = 60


def run(page: Path) -> None:
    """Run every block in reading order.

    Raises:
        Whatever a block raises; its traceback names the page and the line.
    """
    # The program of this page is `__main__`: dataclasses, pickling and tracebacks look there.
    program = sys.modules["__main__"].__dict__
    found = [block for block in blocks(page.read_text(encoding="utf-8")) if not block.no_run]
    shell = "\n".join(block.text for block in found if block.language == "console")
    for block in found:
        if block.language == "console":
            _flush()
            for command in commands(block):
                _run_command(command, page)
        elif block.language in ("python", "pycon"):
            _save(block)
            # What a command runs from its file is not run a second time here.
            if not block.file_name or block.file_name not in shell:
                _run_python(block, page, program)


def _save(block: Block) -> None:
    if block.file_name:
        path = Path(block.file_name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(block.text, encoding="utf-8")


def _run_python(block: Block, page: Path, program: dict[str, Any]) -> None:
    if block.text.startswith(">>> "):
        _run_session(block, page, program)
        return
    # Blank lines in front make the line numbers of a traceback those of the page.
    source = "\n" * (block.line - 1) + block.text
    exec(compile(source, str(page), "exec"), program)


def _run_session(block: Block, page: Path, program: dict[str, Any]) -> None:
    options = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    session = doctest.DocTestParser().get_doctest(
        block.text, program, page.name, str(page), block.line - 1
    )
    session.globs = program
    runner = doctest.DocTestRunner(optionflags=options, verbose=False)
    if runner.run(session, clear_globs=False).failed:
        raise SystemExit(f"{page}:{block.line}: the session went differently")


def _run_command(command: Command, page: Path) -> None:
    done = subprocess.run(
        ["bash", "-c", command.line],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=COMMAND_TIMEOUT_S,
        check=False,
    )
    where = f"{page}:{command.number}: $ {command.line}"
    if done.returncode:
        raise SystemExit(f"{where}\nexit code {done.returncode}, and it printed\n{done.stdout}")
    if not agrees(command.shown, done.stdout):
        raise SystemExit(f"{where}\nshown\n{command.shown}\n\nprinted\n{done.stdout}")


def _flush() -> None:
    """Let commands see the spans of the Python above them."""
    tracekit = sys.modules.get("tracekit")
    if tracekit is not None:
        tracekit.flush()


if __name__ == "__main__":
    run(Path(sys.argv[1]))
