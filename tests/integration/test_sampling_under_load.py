"""Sampling is changed by a file while a server with several processes is under load."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from integration.serving import Server, serving, spans_of
from tracekit.ledger_file import read_all

pytestmark = pytest.mark.slow

GUNICORN = os.path.join(os.path.dirname(sys.executable), "gunicorn")
WORKERS = 3
WITHIN_S = 15.0
"""Ordinarily two or three seconds; this is a machine with other things to do."""

APP = """
import os
from flask import Flask, request
from opentelemetry import trace

app = Flask(__name__)

@app.get("/work")
def work():
    with trace.get_tracer("app").start_as_current_span("step", attributes={"n": request.args["n"]}):
        sampled = trace.get_current_span().get_span_context().trace_flags.sampled
    return f"{os.getpid()} {int(sampled)}"
"""


class Load:
    """Threads that send numbered requests, and what was answered."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._is_over = threading.Event()
        self._numbers = iter(range(1_000_000))
        self._lock = threading.Lock()
        self.answers: dict[int, tuple[str, bool, float]] = {}
        self._threads = [threading.Thread(target=self._send) for _ in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()

    def _send(self) -> None:
        while not self._is_over.is_set():
            with self._lock:
                number = next(self._numbers)
            began = time.monotonic()
            pid, sampled = self._server.get(f"/work?n={number}").split()
            self.answers[number] = (pid, sampled == "1", began)
            time.sleep(0.005)

    def wait_until_all_workers_answer(self, *, sampled: bool) -> float:
        """Return after how long the latest answers of each worker said so."""
        began = time.monotonic()
        while time.monotonic() < began + WITHIN_S:
            recent = [each for each in tuple(self.answers.values()) if each[2] > began]
            latest = {pid: was for pid, was, _ in sorted(recent, key=lambda each: each[2])}
            if len(latest) == WORKERS and set(latest.values()) == {sampled}:
                return time.monotonic() - began
            time.sleep(0.05)
        raise AssertionError(f"not within {WITHIN_S} s: {latest}")


def write(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


@pytest.mark.parametrize("preload", [True, False], ids=["preload", "no-preload"])
def test_every_worker_follows_the_file_and_every_span_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preload: bool
) -> None:
    (tmp_path / "shop.py").write_text(APP)
    config = tmp_path / "tracekit.toml"
    write(config, "sampler = 0.0\n")
    monkeypatch.setenv("TRACEKIT_CONFIG", str(config))
    store = tmp_path / "t.db"
    words = [GUNICORN, "--workers", str(WORKERS), "--worker-class", "gthread", "--threads", "2"]
    words += [*(["--preload"] if preload else []), "--bind", "fd://{fd}", "shop:app"]
    with serving(words, store, tmp_path) as server:
        with Load(server) as load:
            load.wait_until_all_workers_answer(sampled=False)
            write(config, "sampler = 'parentbased_always_on'\n")
            load.wait_until_all_workers_answer(sampled=True)
            write(config, "sampler = 1.0\n[[rules]\n")
            time.sleep(2.5)
            load.wait_until_all_workers_answer(sampled=True)
            write(config, "rules = 'drop'\n")
            load.wait_until_all_workers_answer(sampled=False)
            write(config, "sampler = 0.5\n")
            time.sleep(1.0)
        assert server.stop() == 0
    output = (tmp_path / "output.txt").read_text()
    assert output.count("is not valid TOML: line 2") == WORKERS

    steps = [span for span in spans_of(store) if span.name == "step"]
    kept = [number for number, (_, sampled, _) in load.answers.items() if sampled]
    assert Counter(int(span.attributes["n"]) for span in steps) == Counter(kept)
    assert len(load.answers) > len(kept) > 0

    stats = [ledger["stats"] for ledger in read_all() if ledger["stats"]["sampled_out"]]
    assert len(stats) == WORKERS
    # A request is two spans: the server's and the step.
    assert sum(each["started"] for each in stats) == 2 * len(kept)
    assert sum(each["started"] + each["sampled_out"] for each in stats) == 2 * len(load.answers)
    assert {each["sampling"]["by"] for each in stats} == {str(config)}
