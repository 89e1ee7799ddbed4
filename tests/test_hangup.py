"""SIGHUP asks to read the settings again, and still ends who lost the terminal."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys

import pytest

# Whoever runs the tests may have them ignore the signal, which programs inherit.
PROGRAM = """
import signal, time
from tracekit import _hangup
signal.signal(signal.SIGHUP, signal.SIG_DFL)
told = []
assert _hangup.on_sighup(lambda: told.append(1))
print("ready", flush=True)
deadline = time.monotonic() + 20
while time.monotonic() < deadline and not told:
    time.sleep(0.01)
time.sleep(0.2)
print("still here", flush=True)
"""


def test_a_program_with_a_terminal_outlives_the_signal():
    """And one without: what a supervisor sends is a wish."""
    words = [sys.executable, "-c", PROGRAM]
    for has_terminal in (True, False):
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            words,
            stdin=theirs if has_terminal else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.stdout.read() == "still here\n"
        assert process.wait(20) == 0
        process.stdout.close()
        os.close(ours)
        os.close(theirs)


def test_a_program_whose_terminal_is_closed_ends_as_without_us():
    pid, terminal = pty.fork()
    if pid == 0:
        os.execv(sys.executable, [sys.executable, "-c", PROGRAM])
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 100)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGHUP


@pytest.mark.parametrize("again", [1, 2])
def test_taking_it_back_leaves_what_the_program_put_there_since(again):
    from tracekit import _hangup

    before = signal.getsignal(signal.SIGHUP)
    try:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        for _ in range(again):
            assert _hangup.on_sighup(lambda: None)
        mine = lambda number, frame: None  # noqa: E731
        signal.signal(signal.SIGHUP, mine)
        _hangup.not_on_sighup()
        assert signal.getsignal(signal.SIGHUP) is mine
    finally:
        signal.signal(signal.SIGHUP, before)
