"""A forked child starts anew: nothing of the parent's is sent twice, nothing of its own is lost."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from programs import EXPORTERS, other_pythons, run


def forked(program, **options):
    """Run a program that calls ``tell(**values)``; return what it told and what was exported."""
    done = run(
        EXPORTERS
        + """
class Counting(ToStderr):
    def export(self, spans):
        for span in spans:
            # Not sys.stderr: its lock may be held by another thread when the process forks.
            os.write(2, (json.dumps([
                os.getpid(), span.name, f"{span.context.trace_id:x}",
                span.resource.attributes["service.instance.id"],
                span.resource.attributes["process.pid"],
                f"{span.parent.span_id:x}" if span.parent else None,
            ]) + chr(10)).encode())
        return SpanExportResult.SUCCESS

def tell(**values):
    sys.stdout.write(json.dumps({"pid": os.getpid(), **values}) + chr(10))
    sys.stdout.flush()

tracekit.configure(exporters=[Counting()], schedule_delay_millis=60_000)
"""
        + program,
        **options,
    )
    assert done.returncode == 0, done.stderr
    told = [json.loads(line) for line in done.stdout.splitlines()]
    return told, [json.loads(line) for line in done.stderr.splitlines() if line[:1] == "["]


FORK = """
with tracekit.span("before"):
    pass
child = os.fork()
if child == 0:
    with tracekit.span("in child"):
        pass
    flushed = tracekit.flush(10)
    tell(flushed=flushed, stats=tracekit.stats())
    os._exit(0)
os.waitpid(child, 0)
with tracekit.span("after"):
    pass
tell(flushed=tracekit.flush(10))
"""


def test_each_span_is_exported_once_by_the_process_that_made_it():
    told, spans = forked(FORK)
    child, parent = told
    assert child["flushed"]
    assert parent["flushed"]
    by_name = {span[1]: span for span in spans}
    assert sorted(span[1] for span in spans) == ["after", "before", "in child"]
    assert by_name["in child"][0] == by_name["in child"][4] == child["pid"]
    assert by_name["before"][0] == by_name["after"][4] == parent["pid"]


def test_the_child_has_an_instance_id_and_trace_ids_of_its_own():
    _, spans = forked(FORK)
    by_name = {span[1]: span for span in spans}
    assert by_name["before"][3] == by_name["after"][3] != by_name["in child"][3]
    assert len({span[2] for span in spans}) == 3


def test_the_ledger_of_the_child_begins_at_zero_and_adds_up():
    (child, _), _ = forked(FORK)
    stats = child["stats"]
    assert (stats["started"], stats["ended"], stats["live"]) == (1, 1, 0)
    assert stats["processors"][0]["exporters"][0]["exported"] == 1


def test_a_span_open_at_the_fork_is_the_parents_and_parent_of_both():
    told, spans = forked(
        """
with tracekit.span("open"):
    child = os.fork()
    with tracekit.span("child" if child == 0 else "parent"):
        pass
if child == 0:
    tell(inherited=tracekit.stats()["inherited_by_fork"], flushed=tracekit.flush(10))
    os._exit(0)
os.waitpid(child, 0)
tracekit.flush(10)
"""
    )
    assert told[0]["inherited"] == 1
    assert sorted(span[1] for span in spans) == ["child", "open", "parent"]
    assert len({span[2] for span in spans}) == 1
    assert len({span[5] for span in spans if span[1] != "open"}) == 1


def test_forking_while_other_threads_trace_hangs_nobody():
    told, _ = forked(
        """
stop = threading.Event()
def work():
    while not stop.is_set():
        with tracekit.span("busy"):
            tracekit.stats()
threads = [threading.Thread(target=work) for _ in range(4)]
for thread in threads:
    thread.start()
children = []
for _ in range(10):
    child = os.fork()
    if child == 0:
        with tracekit.span("in child"):
            pass
        tell(flushed=tracekit.flush(10))
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
stop.set()
for thread in threads:
    thread.join()
""",
        timeout=100,
    )
    assert [line["flushed"] for line in told] == [True] * 10


def test_a_child_of_a_child_starts_anew_too():
    _, spans = forked(
        """
def fork_and(name, then=lambda: None):
    child = os.fork()
    if child == 0:
        with tracekit.span(name):
            then()
        tracekit.flush(10)
        os._exit(0)
    os.waitpid(child, 0)
fork_and("child", lambda: fork_and("grandchild"))
"""
    )
    assert sorted(span[1] for span in spans) == ["child", "grandchild"]
    assert len({span[3] for span in spans}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_multiprocessing_flush_although_they_leave_without_atexit(tmp_path, method):
    program = tmp_path / "program.py"
    program.write_text(
        EXPORTERS
        + f"""
import multiprocessing
def work(name):
    tracekit.configure(exporters=[ToStderr()], schedule_delay_millis=60_000)
    with tracekit.span(name):
        pass
if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    children = [context.Process(target=work, args=(f"child{{n}}",)) for n in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
"""
    )
    began = time.monotonic()
    # Started from a file: children that are not forked import the program by its path.
    start = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
    done = run(start, str(program))
    names = sorted(re.findall(r"child\d", done.stderr))
    assert names == ["child0", "child1", "child2"], done.stderr
    assert time.monotonic() - began < 30


@pytest.mark.parametrize("python", other_pythons())
def test_forking_works_on_the_other_versions(python):
    told, spans = forked(FORK, python=python)
    assert [line["flushed"] for line in told] == [True, True]
    assert sorted(span[1] for span in spans) == ["after", "before", "in child"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_fork_that_python_was_not_told_of_is_noticed_when_the_worker_is_needed():
    """otel-python#2266: uWSGI forks in C, and at-fork hooks do not run."""
    told, spans = forked(
        """
import ctypes
child = ctypes.PyDLL(None).fork()
if child == 0:
    for name in ("first", "second"):
        with tracekit.span(name):
            pass
    tell(flushed=tracekit.flush(10))
    os._exit(0)
os.waitpid(child, 0)
"""
    )
    assert told[0]["flushed"]
    assert [span[1] for span in spans] == ["first", "second"]
    assert {span[0] for span in spans} == {told[0]["pid"]}
    # The first one began before anybody noticed, as the parent's.
    assert spans[1][4] == told[0]["pid"] != spans[0][4]
