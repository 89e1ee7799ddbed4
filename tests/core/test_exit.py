"""How a process ends: its spans arrive, it takes no longer than it may, and it dies as it would."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

from programs import EXPORTERS, environment, other_pythons, run

EXIT_S = 8.0


@pytest.mark.parametrize("python", [sys.executable, *other_pythons()])
def test_the_last_spans_of_a_short_program_arrive(python):
    """Python 3.12 lets no thread start while it exits; what needs one must have it before."""
    began = time.monotonic()
    done = run(
        EXPORTERS
        + """
tracekit.configure(exporters=[ToStderr()])
with tracekit.span("only"):
    pass
""",
        python=python,
    )
    assert done.stderr.split()[1:] == ["only"], done.stderr
    assert time.monotonic() - began < 4.5


@pytest.mark.parametrize("python", [sys.executable, *other_pythons()])
def test_a_span_that_first_ends_while_the_interpreter_exits_arrives(python):
    done = run(
        "import atexit\n"
        + EXPORTERS
        + """
tracekit.configure(exporters=[ToStderr()])
def at_exit():
    with tracekit.span("late"):
        pass
atexit.register(at_exit)
""",
        python=python,
    )
    assert done.stderr.split()[1:] == ["late"], done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("python", [sys.executable, *other_pythons()])
def test_a_hanging_exporter_does_not_hold_the_exit_up(python):
    """otel-python#4043: neither its export nor the lock that its shutdown waits for."""
    process = start(
        """
tracekit.configure(exporters=[Hanging()], schedule_delay_millis=10)
with tracekit.span("a"):
    pass
print("ready", flush=True)
""",
        python,
    )
    began = time.monotonic()
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == 0, stderr
    assert time.monotonic() - began < EXIT_S


def test_the_exit_code_and_an_uncaught_error_are_the_programs_own():
    done = run(
        EXPORTERS
        + """
tracekit.configure(exporters=[ToStderr()])
with tracekit.span("fails"):
    raise SystemExit(7)
"""
    )
    assert done.returncode == 7
    assert "fails" in done.stderr


def start(program, python=sys.executable):
    """Start a program and return once it has said that it is ready."""
    process = subprocess.Popen(
        [python, "-W", "ignore", "-c", EXPORTERS + program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        env=environment(),
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_sigterm_flushes_and_the_process_dies_of_it():
    process = start(
        """
tracekit.configure(exporters=[ToStderr()])
with tracekit.span("a"):
    pass
print("ready", flush=True)
time.sleep(60)
"""
    )
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    assert stderr.split()[1:] == ["a"]


def test_sigterm_writes_nothing_that_the_program_would_not_have_written():
    """A process that dies of a signal loses what it did not flush; that stays so."""
    process = start(
        """
tracekit.configure(exporters=[ToStderr()])
print("ready", flush=True)
sys.stdout.write("not flushed")
sys.stderr.write("go")
sys.stderr.flush()
time.sleep(60)
"""
    )
    assert process.stderr is not None
    assert process.stderr.read(2) == "go"
    process.send_signal(signal.SIGTERM)
    stdout, _ = process.communicate(timeout=20)
    assert (stdout, process.returncode) == ("", -signal.SIGTERM)


def test_a_sigterm_handler_of_the_program_stays_in_charge():
    process = start(
        """
import signal
def mine(*_):
    raise SystemExit(3)
signal.signal(signal.SIGTERM, mine)
tracekit.configure(exporters=[ToStderr()])
assert signal.getsignal(signal.SIGTERM) is mine
with tracekit.span("a"):
    pass
print("ready", flush=True)
time.sleep(60)
"""
    )
    process.send_signal(signal.SIGTERM)
    _, stderr = process.communicate(timeout=20)
    assert process.returncode == 3
    assert stderr.split()[1:] == ["a"]


def test_configuring_outside_of_the_main_thread_sets_no_signal_handler():
    done = run(
        """
import signal, threading, tracekit
thread = threading.Thread(target=lambda: tracekit.configure(exporters="none"))
thread.start()
thread.join()
print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
"""
    )
    assert done.stdout == "True\n", done.stderr


# os._exit ----------------------------------------------------------------------------------


def test_os_exit_flushes_and_keeps_its_code():
    done = run(
        EXPORTERS
        + """
tracekit.configure(exporters=[ToStderr()])
with tracekit.span("a"):
    pass
os._exit(3)
"""
    )
    assert (done.returncode, done.stderr.split()[1:]) == (3, ["a"])


def test_a_child_forked_by_hand_flushes_what_it_made_and_nothing_else():
    done = run(
        EXPORTERS
        + """
tracekit.configure(exporters=[ToStderr()], schedule_delay_millis=60_000)
with tracekit.span("parent"):
    pass
for name in ("first", "second", ""):
    if not os.fork():
        if name:
            with tracekit.span(name):
                pass
        os._exit(0)
    os.wait()
"""
    )
    assert sorted(line.split()[1] for line in done.stderr.splitlines()) == [
        "first",
        "parent",
        "second",
    ]


@pytest.mark.slow
def test_os_exit_is_not_held_up_by_an_exporter_that_hangs():
    began = time.monotonic()
    done = run(
        EXPORTERS
        + """
tracekit.configure(exporters=[Hanging()], schedule_delay_millis=10)
with tracekit.span("a"):
    pass
os._exit(4)
"""
    )
    assert done.returncode == 4
    assert time.monotonic() - began < EXIT_S


def test_os_exit_is_the_real_one_again_after_a_reset():
    done = run(
        """
import os, tracekit
from tracekit.testing import reset
real = os._exit
tracekit.configure(exporters="none")
tracekit.configure(exporters="none")
assert os._exit is not real
reset()
assert os._exit is real
print("same")
"""
    )
    assert done.stdout == "same\n", done.stderr


# Spans that are open at the end -------------------------------------------------------------

UNFINISHED = """
import os, signal, sys, threading, time
import tracekit
tracekit.configure(exporters="store", service_name="shop")

def hang():
    with tracekit.span("hangs", order=7):
        waiting.set()
        print("ready", flush=True)
        time.sleep(60)

waiting = threading.Event()
"""


def unfinished_names():
    from tracekit.store.reader import StoreReader

    with StoreReader() as reader:
        return sorted((row.span.name, row.lost) for row in reader.unfinished())


@pytest.mark.parametrize("end", ["", "raise SystemExit(1)", "1 / 0", "os._exit(5)"])
def test_what_is_open_at_the_end_is_in_the_store_as_unfinished(end):
    run(
        UNFINISHED
        + "threading.Thread(target=hang, daemon=True).start(); waiting.wait()\n"
        + "with tracekit.span('ends'): pass\n"
        + end
    )
    assert unfinished_names() == [("hangs", True)]


def test_what_sigterm_interrupts_is_in_the_store_as_unfinished():
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            UNFINISHED + "with tracekit.span('outer'):\n    hang()\n",
        ],
        stdout=subprocess.PIPE,
        env=environment(),
    )
    assert process.stdout is not None
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGTERM
    assert unfinished_names() == [("hangs", True), ("outer", True)]


def test_where_nothing_is_open_nobody_searches(monkeypatch):
    import gc

    import tracekit

    tracekit.configure(exporters="store")
    with tracekit.span("ends"):
        pass
    monkeypatch.setattr(gc, "get_objects", lambda: pytest.fail("searched"))
    tracekit.shutdown()
