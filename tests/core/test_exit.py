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
