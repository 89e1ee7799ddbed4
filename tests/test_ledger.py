"""Counters lose nothing, whoever counts at once."""

from __future__ import annotations

import sys
import threading

import pytest

from tracekit._ledger import Counter


@pytest.fixture(params=[True, False], ids=["one thread at a time", "free-threaded"])
def counter(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Counter:
    """A counter as it is with a GIL, and as it is without."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: request.param, raising=False)
    return Counter()


def test_threads_that_count_at_once_lose_nothing(counter: Counter) -> None:
    def count() -> None:
        for _ in range(5_000):
            counter.add()

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counter.read() == 20_000


def test_reading_counts_nothing(counter: Counter) -> None:
    counter.add()
    assert [counter.read() for _ in range(3)] == [1, 1, 1]


def test_a_child_begins_at_zero_and_counts_by_the_same_function(counter: Counter) -> None:
    add = counter.add
    add()
    counter.after_fork_in_child()
    add()
    assert counter.read() == 1
