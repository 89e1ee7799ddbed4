"""Programs that start processes, under `tracekit run`: spans of all of them, each once."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from integration.serving import run, spans_of

PROGRAM = """
import multiprocessing, sys
from opentelemetry import trace

tracer = trace.get_tracer("app")

def task(n):
    with tracer.start_as_current_span("task", attributes={"n": n}):
        return n

def with_processes(context):
    processes = [context.Process(target=task, args=(n,)) for n in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(20)
        assert process.exitcode == 0

def with_pool(context):
    with context.Pool(2) as pool:
        assert pool.map(task, range(4), chunksize=1) == [0, 1, 2, 3]
        pool.close()
        pool.join()

def with_executor(context):
    from concurrent.futures import ProcessPoolExecutor
    with ProcessPoolExecutor(2, mp_context=context) as executor:
        assert list(executor.map(task, range(4))) == [0, 1, 2, 3]

if __name__ == "__main__":
    method, way = sys.argv[1:]
    with tracer.start_as_current_span("main"):
        globals()[way](multiprocessing.get_context(method))
"""


def _assert_tasks_are_there_once_below_main(spans: list[Any], tasks: int) -> None:
    (main,) = [span for span in spans if span.name == "main"]
    found = [span for span in spans if span.name == "task"]
    assert Counter(span.attributes["n"] for span in found) == Counter(range(tasks))
    assert {span.parent.span_id for span in found} == {main.context.span_id}
    assert {span.context.trace_id for span in found} == {main.context.trace_id}
    assert len(spans) == tasks + 1


@pytest.mark.parametrize("way", ["with_processes", "with_pool", "with_executor"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(tmp_path: Path, method: str, way: str) -> None:
    (tmp_path / "app.py").write_text(PROGRAM)
    store = tmp_path / "traces.db"
    done = run("--store", str(store), "app.py", method, way, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    _assert_tasks_are_there_once_below_main(spans_of(store), 4)


def test_a_pool_that_is_terminated_as_its_context_manager_does(tmp_path: Path) -> None:
    """``Pool.__exit__`` sends SIGTERM to the workers: their spans are written all the same."""
    program = PROGRAM.replace("        pool.close()\n        pool.join()\n", "")
    (tmp_path / "app.py").write_text(program)
    store = tmp_path / "traces.db"
    done = run("--store", str(store), "app.py", "fork", "with_pool", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    _assert_tasks_are_there_once_below_main(spans_of(store), 4)


def test_a_python_that_a_shell_starts(tmp_path: Path) -> None:
    (tmp_path / "child.py").write_text(
        "from opentelemetry import trace\ntrace.get_tracer('app').start_span('child').end()\n"
    )
    store = tmp_path / "traces.db"
    words = ["sh", "-c", f"{sys.executable} child.py && {sys.executable} -m child"]
    done = run("--store", str(store), *words, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert [span.name for span in spans_of(store)] == ["child", "child"]


def test_a_program_started_below_a_span_continues_its_trace(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import subprocess, sys\n"
        "from opentelemetry import trace\n"
        "with trace.get_tracer('app').start_as_current_span(sys.argv[1]):\n"
        "    if sys.argv[2:]:\n"
        "        subprocess.run([sys.executable, *sys.argv[:1], *sys.argv[2:]], check=True)\n"
    )
    store = tmp_path / "traces.db"
    done = run("--store", str(store), "app.py", "a", "b", "c", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    spans = {span.name: span for span in spans_of(store)}
    assert spans["a"].parent is None
    assert spans["b"].parent.span_id == spans["a"].context.span_id
    assert spans["c"].parent.span_id == spans["b"].context.span_id
    assert spans["c"].parent.is_remote


def test_sigterm_during_the_last_flush_waits_for_it(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import multiprocessing, pathlib, time\n"
        "import tracekit\n"
        "from tracekit.interfaces import SpanExportResult\n"
        "begun = multiprocessing.Event()\n"
        "class Slow:\n"
        "    def export(self, spans):\n"
        "        begun.set()\n"
        "        time.sleep(0.5)\n"
        "        pathlib.Path('exported').write_text(spans[0].name)\n"
        "        return SpanExportResult.SUCCESS\n"
        "    def shutdown(self): pass\n"
        "def work():\n"
        "    with tracekit.span('work'): pass\n"
        "tracekit.configure(exporters=[Slow()], schedule_delay_millis=60_000)\n"
        "child = multiprocessing.get_context('fork').Process(target=work)\n"
        "child.start()\n"
        "assert begun.wait(20)\n"
        "child.terminate()\n"
        "child.join(20)\n"
        "print(child.exitcode)\n"
    )
    done = run("app.py", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("-15\n", "")
    assert (tmp_path / "exported").read_text() == "work"


def test_sigterm_that_comes_right_before_a_wait_ends_the_child(tmp_path: Path) -> None:
    """Python has noted the signal, and its main thread waits for a lock that nobody releases.

    ``PyErr_SetInterruptEx`` notes a signal without interrupting the wait, as happens to workers of
    ``with Pool()`` about once in a hundred times.
    """
    (tmp_path / "app.py").write_text(
        "import ctypes, multiprocessing, threading\n"
        "def work(lock):\n"
        "    note = ctypes.pythonapi.PyErr_SetInterruptEx\n"
        "    threading.Timer(0.2, note, [15]).start()\n"
        "    lock.acquire()\n"
        "if __name__ == '__main__':\n"
        "    context = multiprocessing.get_context('fork')\n"
        "    lock = context.Lock()\n"
        "    lock.acquire()\n"
        "    child = context.Process(target=work, args=[lock], daemon=True)\n"
        "    child.start()\n"
        "    child.join(20)\n"
        "    print(child.exitcode)\n"
    )
    done = run("--exporter", "none", "app.py", cwd=tmp_path)
    assert (done.stdout, done.stderr) == ("-15\n", "")
