"""Counting steps: the same figures each time, and only of what tracing itself executes."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.matrix_skip
needs_monitoring = pytest.mark.skipif(
    not hasattr(sys, "monitoring"), reason="sys.monitoring came with Python 3.12"
)

TRACING = """
def outer(shape, left, right):
    return inner(shape) + (left | right)

def inner(shape):
    return shape.sides
"""


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, repository: Path) -> Any:
    monkeypatch.syspath_prepend(str(repository))
    return importlib.import_module("benchmarks.steps")


class Shape:
    def __init__(self, sides: int) -> None:
        self.sides = sides


def _program() -> Any:
    names: dict[str, Any] = {}
    exec(compile(TRACING, "<tracing>", "exec"), names)
    return names["outer"]


def _is_tracing(file: str) -> bool:
    return file == "<tracing>"


@needs_monitoring
def test_frames_and_bytecodes_of_one_call_are_counted_and_are_the_same_again(steps: Any) -> None:
    outer, shape = _program(), Shape(4)

    def do(calls: int) -> None:
        for number in range(calls):
            outer(shape, number, 1)

    frames = steps.count(do, _is_tracing, warm=50)
    assert [(frame.name, frame.entered) for frame in frames] == [("outer", 1), ("inner", 1)]
    assert all(frame.bytecodes == int(frame.bytecodes) > 0 for frame in frames)
    assert steps.count(do, _is_tracing, warm=50) == frames


@needs_monitoring
def test_what_the_interpreter_could_not_replace_is_named_with_its_line(steps: Any) -> None:
    outer, shape = _program(), Shape(4)

    def do(calls: int) -> None:
        for number in range(calls):
            outer(shape, number, 1)

    generic = {frame.name: frame.generic for frame in steps.count(do, _is_tracing, warm=50)}
    assert generic["outer"] == [(3, "BINARY_OP |")]
    assert generic["inner"] == []


@needs_monitoring
def test_what_one_call_in_many_does_belongs_to_none(steps: Any) -> None:
    outer, shape = _program(), Shape(4)

    def do(calls: int) -> None:
        for number in range(calls):
            if number % 10 == 0:
                outer(shape, number, 1)

    assert steps.count(do, _is_tracing, warm=50) == []


@needs_monitoring
def test_other_threads_are_not_counted(steps: Any) -> None:
    outer, shape = _program(), Shape(4)

    def do(calls: int) -> None:
        for number in range(calls):
            worker = threading.Thread(target=outer, args=(shape, number, 1))
            worker.start()
            worker.join()

    assert steps.count(do, _is_tracing, warm=5) == []


@needs_monitoring
def test_an_unknown_subject_is_refused_with_the_names_that_exist(steps: Any) -> None:
    with pytest.raises(SystemExit, match=r"nothing is called nonsense; there are .*http\.requests"):
        steps.main(["nonsense"])


def test_a_python_without_monitoring_is_told_which_has_it(
    steps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(sys, "monitoring", raising=False)
    with pytest.raises(SystemExit, match=r"Python 3\.12"):
        steps.main(["spans.root"])


@needs_monitoring
@pytest.mark.slow
@pytest.mark.parametrize("side", ["tracekit", "opentelemetry"])
@pytest.mark.parametrize("subject", ["spans.tree", "dropped.ratio", "http.flask", "redis"])
def test_a_call_is_counted_on_either_side(subject: str, side: str, repository: Path) -> None:
    command = f"-m benchmarks.steps {subject} --side {side} --details"
    done = subprocess.run(
        [sys.executable, *command.split()],
        cwd=repository,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    heading, *details, total = done.stdout.splitlines()
    assert heading == "bytecodes  frames  generic"
    assert any(side in line for line in details)
    assert not any("benchmarks/" in line for line in details)
    counted = re.fullmatch(rf"{subject}, {side}: (\d+) frames, (\d+) bytecodes, \d+ .*", total)
    assert counted
    assert 0 < int(counted[1]) < int(counted[2])
