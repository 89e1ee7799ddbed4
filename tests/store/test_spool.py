"""The spool's file: order, bounds, claims, and what a bad file does."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from pathlib import Path

import pytest

from programs import run
from tracekit.errors import ConfigurationError, StoreError
from tracekit.store import spool as spool_module
from tracekit.store.spool import KeptRequest, Spool

HERE, THERE = "http://here", "http://there"


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool.db")


def request(text: str, spans: int = 1) -> KeptRequest:
    return KeptRequest(text.encode(), spans)


def emptied(spool: Spool, destination: str = HERE) -> list[str]:
    """Take and remove everything, as a sender does that succeeds."""
    found = []
    while (kept := spool.take(destination)[0]) is not None:
        found.append(kept.body.decode())
        spool.remove(kept)
    return found


def spans_waiting(spool: Spool) -> dict[str, int]:
    return {row.destination: row.spans for row in spool.waiting()}


def test_requests_leave_in_the_order_in_which_they_came(spool: Spool) -> None:
    for number in range(5):
        spool.put(HERE, [request(f"{number}a"), request(f"{number}b")])
    assert emptied(spool) == [f"{number}{part}" for number in range(5) for part in "ab"]


def test_a_request_comes_back_as_it_was_put_in(spool: Spool) -> None:
    body = bytes(range(256)) * 100
    spool.put(HERE, [KeptRequest(body, 7, (("x-count", "7"), ("x-é", "ü")))])
    kept, _ = spool.take(HERE)
    assert kept is not None
    assert (kept.body, kept.spans, kept.headers) == (body, 7, (("x-count", "7"), ("x-é", "ü")))


def test_what_is_for_one_destination_is_not_given_to_another(spool: Spool) -> None:
    spool.put(HERE, [request("a")])
    assert spool.take(THERE) == (None, {})
    assert emptied(spool, HERE) == ["a"]


def test_what_was_not_sent_is_taken_again_and_first(spool: Spool) -> None:
    spool.put(HERE, [request("a"), request("b")])
    kept, _ = spool.take(HERE)
    assert kept is not None
    spool.put_back(kept)
    assert emptied(spool) == ["a", "b"]


def test_what_a_killed_sender_had_taken_is_taken_again(spool: Spool) -> None:
    spool.put(HERE, [request("a")])
    spool.take(HERE)
    assert emptied(spool) == ["a"]


def test_no_file_is_made_before_something_is_put_in(spool: Spool) -> None:
    assert spool.take(HERE) == (None, {})
    assert (spool.waiting(), spool.own_spans(HERE), spool.exists()) == ([], 0, False)
    assert list(spool.path.parent.iterdir()) == []


def test_the_file_is_for_its_owner_only(spool: Spool) -> None:
    spool.put(HERE, [request("a")])
    assert spool.path.stat().st_mode & 0o077 == 0


def test_beyond_its_size_the_oldest_are_dropped_and_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool.db", max_bytes=512 * 1024)
    dropped = 0
    for number in range(40):
        noise = os.urandom(30_000)  # it cannot be compressed
        dropped += spool.put(HERE, [KeptRequest(noise + bytes([number]), 3)])["spool_full"]
    left = []
    while (kept := spool.take(HERE)[0]) is not None:
        left.append(kept.body[-1])
        spool.remove(kept)
    assert left == list(range(40 - len(left), 40)), "the newest stay"
    assert 8 < len(left) < 18
    assert dropped == 3 * (40 - len(left))
    assert spool.path.stat().st_size < 2 * 512 * 1024


def test_what_is_under_way_is_not_dropped_for_room(tmp_path: Path) -> None:
    """Its destination may have it already: it would be counted as lost, and received."""
    spool = Spool(tmp_path / "spool.db", max_bytes=256 * 1024)
    spool.put(HERE, [KeptRequest(os.urandom(100_000), 1)])
    kept, _ = spool.take(HERE)
    assert kept is not None
    for _ in range(5):
        spool.put(HERE, [KeptRequest(os.urandom(100_000), 1)])
    again, _ = spool.take(HERE)
    assert again is not None
    assert again.id == kept.id


def test_what_is_too_old_is_dropped_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, now = Spool(tmp_path / "spool.db", max_age_s=100), time.time()
    monkeypatch.setattr(spool_module.time, "time", lambda: now)
    spool.put(HERE, [request("old", 4)])
    monkeypatch.setattr(spool_module.time, "time", lambda: now + 90)
    spool.put(HERE, [request("new")])
    monkeypatch.setattr(spool_module.time, "time", lambda: now + 150)
    kept, dropped = spool.take(HERE)
    assert (kept and kept.body, dropped) == (b"new", {"spool_expired": 4})


def test_a_clock_that_is_set_back_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, now = Spool(tmp_path / "spool.db", max_age_s=100), time.time()
    spool.put(HERE, [request("a")])
    monkeypatch.setattr(spool_module.time, "time", lambda: now - 3600)
    spool.put(HERE, [request("b")])
    assert emptied(spool) == ["a", "b"]


@pytest.mark.parametrize("limits", [{"max_bytes": 1000}, {"max_age_s": 0}, {"max_age_s": -1}])
def test_a_limit_that_cannot_work_is_refused(tmp_path: Path, limits: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(limits))):
        Spool(tmp_path / "spool.db", **limits)


# Claims ------------------------------------------------------------------------------------


def test_one_at_a_time_has_the_claim(spool: Spool) -> None:
    with spool.claim(HERE) as first, spool.claim(HERE) as second, spool.claim(THERE) as other:
        assert (first is None, second is None, other is None) == (False, True, False)
    with spool.claim(HERE) as again:
        assert again is not None


def test_another_thread_has_not_the_claim_of_this_one(spool: Spool) -> None:
    seen: list[bool] = []

    def look() -> None:
        with spool.claim(HERE) as claim:
            seen.append(claim is None)

    with spool.claim(HERE):
        thread = threading.Thread(target=look)
        thread.start()
        thread.join()
    assert seen == [True]


CLAIMING = """
import os, signal, sys
from tracekit.store.spool import Spool
claim = Spool(sys.argv[1]).claim("http://here")
assert (claim.__enter__() is None) == (sys.argv[2] == "taken")
if sys.argv[2] == "die":
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_claim_of_another_process_counts_and_dies_with_it(spool: Spool) -> None:
    with spool.claim(HERE):
        done = run(CLAIMING, str(spool.path), "taken")
        assert done.returncode == 0, done.stderr
    assert run(CLAIMING, str(spool.path), "die").returncode == -9
    with spool.claim(HERE) as claim:
        assert claim is not None


def test_a_forked_child_has_not_the_claim_of_its_parent(spool: Spool) -> None:
    with spool.claim(HERE):
        pid = os.fork()
        if not pid:
            with spool.claim(HERE) as claim:
                os._exit(0 if claim is None else 1)
        assert os.waitpid(pid, 0)[1] == 0
        with spool.claim(HERE) as claim:
            assert claim is None, "the child's end took it away"


# Bad files ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"x" * 5000]
)
def test_a_corrupt_file_is_set_aside_and_said(
    spool: Spool, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    spool.path.write_bytes(content)
    spool.put(HERE, [request("a")])
    assert emptied(spool) == ["a"]
    (kept,) = spool.path.parent.glob("*.corrupt-*")
    assert kept.read_bytes() == content
    assert [kept.name in message for message in caplog.messages] == [True]


def test_a_request_that_became_unreadable_is_in_nobodys_way(spool: Spool) -> None:
    spool.put(HERE, [request("a", 5)])
    with sqlite3.connect(spool.path) as db:
        db.execute("UPDATE requests SET body = x'00'")
    db.close()
    spool.put(HERE, [request("b")])
    kept, dropped = spool.take(HERE)
    assert (kept and kept.body, dropped) == (b"b", {"spool_unreadable": 5})


def test_somebody_elses_database_is_not_touched(spool: Spool) -> None:
    with sqlite3.connect(spool.path) as db:
        db.execute("CREATE TABLE mine (a)")
    db.close()
    before = spool.path.read_bytes()
    with pytest.raises(StoreError, match="TRACEKIT_SPOOL"):
        spool.put(HERE, [request("a")])
    assert spool.path.read_bytes() == before


def test_a_file_that_somebody_locks_is_given_up_soon(spool: Spool) -> None:
    spool.put(HERE, [request("a")])
    db = sqlite3.connect(spool.path, isolation_level=None)
    db.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(StoreError, match="locked"):
        spool.put(HERE, [request("b")])
    assert time.monotonic() - began < 5
    db.close()
    assert emptied(spool) == ["a"]


def test_a_folder_that_may_not_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        Spool(tmp_path / "file" / "spool.db").put(HERE, [request("a")])


def test_threads_of_one_process_may_all_put_and_a_fork_may_come_between(spool: Spool) -> None:
    stop = threading.Event()
    put: list[int] = []

    def putting() -> None:
        while not stop.is_set():
            spool.put(HERE, [request("parent")])
            put.append(1)

    threads = [threading.Thread(target=putting) for _ in range(3)]
    for thread in threads:
        thread.start()
    children = []
    for _ in range(10):
        pid = os.fork()
        if not pid:
            try:
                spool.put(THERE, [request("child")])
                os._exit(0)
            finally:
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0] * 10
    stop.set()
    for thread in threads:
        thread.join(20)
    assert spans_waiting(spool) == {HERE: len(put), THERE: 10}
