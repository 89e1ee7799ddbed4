"""The command line as a whole."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest

import tracekit.cli
from tracekit._version import __version__
from tracekit.cli._group import group

COMMANDS = sorted(
    path.stem.replace("_", "-")
    for path in Path(tracekit.cli.__file__).parent.glob("*.py")
    if not path.stem.startswith("_")
)


def test_every_file_is_a_command_and_is_listed(tracekit) -> None:
    listed = tracekit("--help").output
    assert [name for name in COMMANDS if f"  {name} " not in listed] == []
    assert {"run", "ls", "show", "doctor", "import", "send", "collector-config"} <= set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_and_its_options(tracekit, name: str) -> None:
    command = group.get_command(None, name)
    assert command.short_help.endswith(".")
    options = [param for param in command.params if isinstance(param, click.Option)]
    assert [option.name for option in options if not option.help] == []
    assert tracekit(name, "-h").exit_code == 0


def test_an_unknown_command_is_a_usage_error(tracekit) -> None:
    result = tracekit("shwo")
    assert result.exit_code == 2
    assert "Did you mean 'show'?" in result.stderr


def test_the_version_is_told(tracekit) -> None:
    assert tracekit("--version").output == f"tracekit {__version__}\n"


def test_a_command_does_not_import_what_another_needs() -> None:
    """Also what `tracekit run` costs each process that it traces: no command line at all."""
    code = "import sys, tracekit.cli._startup; print({'click', 'sqlite3'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_output_into_a_closed_pipe_is_no_traceback(store: Path) -> None:
    words = [sys.executable, "-m", "tracekit", "show", "--store", str(store)]
    reader = subprocess.Popen(["true"], stdin=subprocess.PIPE)
    reader.wait()
    done = subprocess.run(words, stdout=reader.stdin, stderr=subprocess.PIPE, check=False)
    reader.stdin.close()
    assert b"Traceback" not in done.stderr
