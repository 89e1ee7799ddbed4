"""Row 3: a dead back end blocks neither the program nor its exit, and is told of once.

opentelemetry-python#4043, #3309, #2284, #1670. How a process ends: tests/core/test_exit.py.
"""

from __future__ import annotations

import time

import pytest

import tracekit
from processors.doubles import Hanging, Raising
from programs import EXPORTERS, run


@pytest.fixture
def hanging():
    exporter = Hanging()
    yield exporter
    exporter.may_go_on.set()


def test_the_program_is_not_blocked(hanging):
    tracekit.configure(exporters=[hanging], schedule_delay_millis=1)
    with tracekit.span("first"):
        pass
    assert hanging.entered.acquire(timeout=10)
    began = time.monotonic()
    for _ in range(20_000):
        with tracekit.span("while it hangs"):
            pass
    assert time.monotonic() - began < 5
    assert tracekit.stats()["ended"] == 20_001


def test_flush_and_shutdown_keep_to_their_time(hanging):
    tracekit.configure(exporters=[hanging])
    with tracekit.span("a"):
        pass
    began = time.monotonic()
    assert not tracekit.flush(0.2)
    tracekit.shutdown(0.2)
    assert time.monotonic() - began < 3


@pytest.mark.slow
def test_the_exit_of_a_process_is_bounded():
    began = time.monotonic()
    done = run(
        EXPORTERS
        + """
tracekit.configure(exporters=[Hanging(), Hanging(), ToStderr()], schedule_delay_millis=5)
for number in range(2_000):
    with tracekit.span("a"):
        pass
"""
    )
    assert done.returncode == 0
    assert time.monotonic() - began < 10
    arrived = [line for line in done.stderr.splitlines() if line.endswith(" a")]
    assert len(arrived) == 2_000, "the living exporter got all of them"


def test_a_back_end_that_fails_is_told_of_once(caplog):
    tracekit.configure(exporters=[Raising()], schedule_delay_millis=1)
    for _ in range(5):
        with tracekit.span("a"):
            pass
        assert not tracekit.flush(10)
    warnings = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(warnings) == 1
    assert "Raising" in warnings[0].getMessage()
