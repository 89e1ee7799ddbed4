"""Several processes share a spool: nothing is lost or sent twice, whoever dies half-way."""

from __future__ import annotations

import collections
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from exporters.destinations import OK, Destination, Received, Reply
from programs import environment
from tracekit.cli._fate import Fate, fate_of
from tracekit.ledger_file import read_all
from tracekit.store.spool import Spool

PROGRAM = """
import sys, time
import tracekit
from tracekit.exporters.otlp import OTLPSpanExporter, RetryPolicy

url, name, count, flush_s, wait_s = sys.argv[1], sys.argv[2], *map(float, sys.argv[3:])
quick = RetryPolicy(first_delay_s=0.02, max_delay_s=0.1, first_pause_s=0.05, max_pause_s=0.2)
tracekit.configure(
    name,
    exporters=[OTLPSpanExporter(url, timeout=10, retry_policy=quick)],
    schedule_delay_millis=20,
)
for number in range(int(count)):
    with tracekit.span(f"{name} {number}"):
        pass
    if not number % 5:
        time.sleep(0.01)
if flush_s:
    tracekit.flush(flush_s)
print("ready", flush=True)
time.sleep(wait_s)
"""


class Processes:
    """Programs that send spans to one address, started by a test and ended with it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.running: list[subprocess.Popen[str]] = []

    def start(self, name: str, count: int, flush_s: float = 0, wait_s: float = 0) -> Any:
        words = [
            sys.executable,
            "-c",
            PROGRAM,
            self.url,
            name,
            str(count),
            str(flush_s),
            str(wait_s),
        ]
        process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment()
        )
        self.running.append(process)
        return process

    def ready(self, process: Any) -> None:
        assert process.stdout.readline() == "ready\n"

    def empty_the_spool(self, name: str) -> None:
        """Start one that makes one span, and end it when nothing waits any more."""
        process = self.start(name, 1, wait_s=60)
        until_empty()
        process.terminate()
        process.communicate(timeout=20)
        self.running.remove(process)

    def end(self) -> list[int]:
        return [self._code(process) for process in self.running]

    def _code(self, process: subprocess.Popen[str]) -> int:
        process.communicate(timeout=30)
        return process.returncode


@pytest.fixture
def destination() -> Iterator[Destination]:
    with Destination(Reply(503)) as destination:
        yield destination


@pytest.fixture
def processes(destination: Destination) -> Iterator[Processes]:
    processes = Processes(destination.url)
    yield processes
    for process in processes.running:
        process.kill()
        process.communicate()


def taken(destination: Destination) -> list[str]:
    """Return the names of the spans in requests that were answered with a success."""
    return [name for received in accepted(destination) for name in received.span_names()]


def accepted(destination: Destination) -> list[Received]:
    return getattr(destination, "accepted", [])


def come_back(destination: Destination, wait: Callable[[], None] = lambda: None) -> None:
    """Take every request from now on, and remember them in order."""
    lock = threading.Lock()
    destination.accepted = []  # type: ignore[attr-defined]

    def answer(received: Received) -> Reply:
        wait()
        with lock:
            accepted(destination).append(received)
        return OK

    destination.script[:] = [answer]


def made(*names: str, count: int) -> list[str]:
    return sorted(f"{name} {number}" for name in names for number in range(count))


def total() -> Fate:
    """Add up the ledgers that the processes have left."""
    fates = [fate_of(ledger) for ledger in read_all()]
    whole = Fate()
    for fate in fates:
        whole.started += fate.started
        whole.spooled += fate.spooled
        whole.recovered += fate.recovered
        whole.waiting += fate.waiting
        whole.lost.update(fate.lost)
        whole.lost_from_spool.update(fate.lost_from_spool)
        whole.exported["all"] = whole.exported.get("all", 0) + sum(fate.exported.values())
    return whole


def until_empty() -> None:
    ends_at = time.monotonic() + 40
    while waiting():
        assert time.monotonic() < ends_at, f"{waiting()} spans still wait"
        time.sleep(0.01)


def waiting() -> int:
    return sum(row.spans for row in Spool().waiting())


def test_what_processes_left_is_sent_by_the_next_one_once(
    destination: Destination, processes: Processes
) -> None:
    for name in ("a", "b", "c"):
        processes.start(name, 100)
    assert processes.end() == [0, 0, 0]
    assert waiting() == 300
    come_back(destination)
    processes.empty_the_spool("d")
    assert sorted(taken(destination)) == sorted([*made("a", "b", "c", count=100), "d 0"])
    found = total()
    assert (found.started, found.spooled, found.recovered, waiting()) == (301, 300, 300, 0)
    assert found.exported["all"] == 1
    assert not +found.lost


def test_many_senders_at_once_send_nothing_twice_and_in_order(
    destination: Destination, processes: Processes
) -> None:
    for name in ("a", "b"):
        processes.start(name, 150)
    assert processes.end() == [0, 0]
    come_back(destination, lambda: time.sleep(0.005))
    senders = [processes.start(name, 20, wait_s=60) for name in ("c", "d", "e", "f")]
    for sender in senders:
        processes.ready(sender)
    until_empty()
    for sender in senders:
        sender.terminate()
    processes.end()
    arrived = taken(destination)
    counted = collections.Counter(arrived)
    assert [name for name, times in counted.items() if times > 1] == []
    assert sorted(arrived) == sorted(
        [*made("a", "b", count=150), *made("c", "d", "e", "f", count=20)]
    )
    for name in ("a", "b"):
        numbers = [int(text.split()[1]) for text in arrived if text.startswith(f"{name} ")]
        assert numbers == sorted(numbers), "in the order in which they were made"


def test_a_sender_that_is_killed_half_way_leaves_the_rest_to_another(
    destination: Destination, processes: Processes
) -> None:
    processes.start("a", 200)
    assert processes.end() == [0]
    (row,) = Spool().waiting()
    assert row.requests > 5, "there is a half-way"
    under_way, may_go_on = threading.Semaphore(0), threading.Event()

    def hold_the_third() -> None:
        if len(accepted(destination)) == 3:
            under_way.release()
            may_go_on.wait(20)

    come_back(destination, hold_the_third)
    killed = processes.start("b", 0, flush_s=0, wait_s=0)
    assert processes.end()[-1] == 0, "one without spans does not even look"
    killed = processes.start("b", 1, flush_s=30, wait_s=30)
    assert under_way.acquire(timeout=20)
    killed.send_signal(signal.SIGKILL)
    killed.wait(10)
    may_go_on.set()
    processes.empty_the_spool("c")
    counted = collections.Counter(taken(destination))
    assert set(made("a", count=200)) <= set(counted)
    twice = {name for name, times in counted.items() if times > 1}
    # What was under way when it was killed had arrived, and nobody could know.
    held = accepted(destination)[3]
    assert twice <= set(held.span_names())
    assert waiting() == 0


@pytest.mark.slow
def test_the_sums_come_out_across_processes_when_the_server_flickers(
    destination: Destination, processes: Processes
) -> None:
    lock, seen = threading.Lock(), []

    def flicker(received: Received) -> Reply:
        with lock:
            seen.append(received)
            if len(seen) % 3:
                return Reply(503)
            destination.__dict__.setdefault("accepted", []).append(received)
            return OK

    destination.script[:] = [flicker]
    for name in ("a", "b", "c", "d"):
        processes.start(name, 120)
    assert processes.end() == [0] * 4
    found = total()
    arrived = taken(destination)
    assert len(arrived) == len(set(arrived)), "nothing twice"
    assert found.started == 480
    lost = sum(found.lost.values()) + sum(found.lost_from_spool.values())
    assert lost == 0
    assert len(arrived) == found.exported["all"] + found.recovered
    assert found.spooled - found.recovered == waiting()
    assert len(arrived) + waiting() == 480


def test_a_worker_that_outlives_its_parent_sends_for_it(
    destination: Destination, processes: Processes, tmp_path: Path
) -> None:
    """Forked children put into, and send from, the same spool as everybody."""
    program = (
        PROGRAM.partition("for number")[0]
        + """
import os
def work(name):
    for number in range(20):
        with tracekit.span(f"{name} {number}"):
            pass
work("parent")
children = []
for name in ("x", "y"):
    pid = os.fork()
    if not pid:
        work(name)
        os._exit(0)
    children.append(pid)
for pid in children:
    os.waitpid(pid, 0)
"""
    )
    words = [sys.executable, "-c", program, destination.url, "fork", "0", "0", "0"]
    done = subprocess.run(
        words, check=False, env=environment(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert waiting() == 60
    come_back(destination)
    processes.empty_the_spool("next")
    assert sorted(taken(destination)) == sorted([*made("parent", "x", "y", count=20), "next 0"])
    assert json.dumps(total().lost) == "{}"
    assert os.path.exists(Spool().path)
