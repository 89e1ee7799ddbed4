"""The text of a stack trace is Python's own, and a recursion to death does not cost minutes."""

from __future__ import annotations

import builtins
import inspect
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import tracekit
from tracekit.core import stack_trace as written
from tracekit.core.stack_trace import MAX_FRAMES, stack_trace
from tracekit.testing import capture_spans

newer = pytest.mark.skipif(sys.version_info < (3, 11), reason="frames are written in one piece")


@pytest.fixture(autouse=True)
def nothing_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "_remembered", {})


def raised(function: Callable[[], object]) -> Exception:
    try:
        function()
    except Exception as error:
        return error
    raise AssertionError("nothing was raised")


def plain() -> None:
    raise ValueError(1 / len([]))


def caused() -> None:
    try:
        {}["missing"]  # type: ignore[index]
    except KeyError as error:
        error.__cause__ = raised(plain)
        raise RuntimeError("on severallines") from error


def unreadable_code() -> None:
    exec("def broken(:\n  pass")


def without_source() -> None:
    exec("len(5)")


def deep(levels: int = 60) -> None:
    if levels:
        deep(levels - 1)
    [].pop()


def grouped() -> None:
    group: Any = vars(builtins)["ExceptionGroup"]
    raise group("several", [raised(plain), raised(caused)])


KINDS = [plain, caused, unreadable_code, without_source, deep]


@pytest.mark.parametrize("function", KINDS)
def test_it_is_what_python_prints_also_the_second_time(function: Callable[[], object]) -> None:
    error = raised(function)
    expected = "".join(traceback.format_exception(error))
    assert stack_trace(error) == expected
    assert stack_trace(error) == expected


@newer
def test_so_are_groups_and_notes() -> None:
    error = raised(grouped)
    error.add_note("while it rained")  # type: ignore[attr-defined]
    assert stack_trace(error) == "".join(traceback.format_exception(error))


def test_of_a_long_traceback_the_innermost_frames_are_kept() -> None:
    error = raised(lambda: deep(3 * MAX_FRAMES))
    expected = traceback.format_exception(
        type(error), error, error.__traceback__, limit=-MAX_FRAMES
    )
    assert stack_trace(error) == "".join(expected)


@pytest.fixture
def formatted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Every frame that is formatted, which is what takes the time."""
    frames: list[object] = []
    original = traceback.StackSummary.format_frame_summary  # type: ignore[attr-defined]

    def counting(self: object, frame: traceback.FrameSummary, **options: object) -> str:
        frames.append(frame)
        text: str = original(self, frame, **options)
        return text

    monkeypatch.setattr(traceback.StackSummary, "format_frame_summary", counting)
    return frames


@newer
def test_an_exception_that_passes_many_spans_has_each_place_written_once(
    formatted: list[object],
) -> None:
    def passing(levels: int) -> None:
        with tracekit.span("level"):
            passing(levels - 1) if levels else plain()

    with capture_spans() as exporter:
        assert raised(lambda: passing(50))
        spans = exporter.get_finished_spans()
    texts = [span.events[0].attributes["exception.stacktrace"] for span in spans]
    assert len(texts) == 51
    assert all(str(text).endswith("ZeroDivisionError: division by zero\n") for text in texts)
    assert len(formatted) < 10


@newer
def test_a_recursion_to_death_is_written_down_at_each_level_at_little_cost(
    formatted: list[object],
) -> None:
    def bottomless() -> None:
        with tracekit.span("level"):
            bottomless()

    before = sys.getrecursionlimit()
    with capture_spans() as exporter:
        sys.setrecursionlimit(len(inspect.stack(0)) + 300)
        try:
            assert isinstance(raised(bottomless), RecursionError)
        finally:
            sys.setrecursionlimit(before)
        spans = exporter.get_finished_spans()
    assert len(spans) > 100
    # The very last ones may have had no stack left to write anything with.
    assert sum(1 for span in spans if span.events) > len(spans) - 20
    assert len(formatted) < 2 * len(spans)


@newer
def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(written, "MAX_REMEMBERED", 4)
    for number in range(20):
        error = raised(lambda: exec(compile("\n" * number + "len(5)", "made", "exec")))  # noqa: B023
        assert stack_trace(error) == "".join(traceback.format_exception(error))
    assert len(written._remembered) <= 4


def test_a_file_that_changes_is_read_again(tmp_path: object) -> None:
    path = f"{tmp_path}/changing.py"
    for line in ("len(5)  # before", "len(5)  # after"):
        with open(path, "w") as file:
            file.write(f"{line}\n")
        error = raised(lambda: exec(compile(line, path, "exec")))  # noqa: B023
        assert line in stack_trace(error)
