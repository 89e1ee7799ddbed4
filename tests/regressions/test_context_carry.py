"""Context lost, doubled or kept too long in threads, pools, tasks and processes elsewhere."""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import multiprocessing
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.trace import get_current_span

from instrumentation.carried import NOTHING, Spans, ids, ids_seen, see, watched
from tracekit.instrumentation.concurrent_futures import ConcurrentFuturesInstrumentor
from tracekit.instrumentation.logging import LoggingInstrumentor
from tracekit.instrumentation.multiprocessing import MultiprocessingInstrumentor
from tracekit.instrumentation.threading import ThreadingInstrumentor

pytestmark = [
    pytest.mark.usefixtures("instrumented"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


@pytest.fixture
def instrumented() -> Iterator[None]:
    with watched(
        ThreadingInstrumentor,
        ConcurrentFuturesInstrumentor,
        MultiprocessingInstrumentor,
        LoggingInstrumentor,
    ):
        yield


@pytest.fixture
def spans() -> Spans:
    return Spans()


def test_a_pool_is_not_the_child_of_whoever_used_it_first(spans: Spans) -> None:
    """contrib#1009, contrib#1010: lost in pools. Carried too far it would stay there for good."""
    current: list[Any] = []
    with spans.span("first"):
        pool = ThreadPoolExecutor(1, initializer=lambda: current.append(ids_seen()))
        pool.submit(ids_seen).result()
    with pool, spans.span("second") as second:
        assert pool.submit(ids_seen).result() == ids(second)
    assert current == [NOTHING]


def test_a_thread_that_is_run_and_not_started_runs(spans: Spans) -> None:
    """contrib#4245: AttributeError when `run` is called without `start`."""
    seen: list[Any] = []
    with spans.span() as span:
        threading.Thread(target=lambda: seen.append(ids_seen())).run()
    assert seen == [ids(span)]


def test_a_thread_finds_all_that_its_starter_had(spans: Spans) -> None:
    """contrib#737, contrib#2253: all of the context goes along, not just the span."""
    seen: list[Any] = []
    with spans.span():
        token = context.attach(context.set_value("mine", 1))
        thread = threading.Thread(target=lambda: seen.append(dict(context.get_current())))
        thread.start()
        thread.join()
        here = dict(context.get_current())
        context.detach(token)
    assert seen == [here]


def test_spans_of_gathered_tasks_do_not_nest(spans: Spans) -> None:
    """sentry-python#772, sentry-python#1187: siblings became each other's children."""

    async def step(name: str, turns: int) -> None:
        with spans.span(name):
            for _ in range(turns):
                await asyncio.sleep(0)

    async def main() -> None:
        with spans.span("parent"):
            # Each ends while the next ones are current elsewhere.
            await asyncio.gather(*(step(str(turns), turns) for turns in (3, 1, 2)))
            assert get_current_span().get_span_context().is_valid

    asyncio.run(main())
    parent = spans.ended["parent"].context.span_id
    assert [spans.ended[name].parent.span_id for name in "123"] == [parent] * 3


def test_a_task_may_outlive_the_span_it_was_made_in(spans: Spans) -> None:
    """sentry-python#5989: what a task did after the request had ended was lost."""

    async def main() -> None:
        go = asyncio.Event()

        async def late() -> None:
            await go.wait()
            with spans.span("late"):
                pass

        with spans.span("request"):
            task = asyncio.create_task(late())
        with spans.span("next request"):
            go.set()
            await task

    asyncio.run(main())
    assert spans.ended["late"].parent.span_id == spans.ended["request"].context.span_id


def test_a_forked_worker_does_not_write_to_its_parents_span(spans: Spans) -> None:
    """otel-python#1567, otel-python#4215: after a fork, two processes held one live span."""
    with (
        spans.span() as span,
        ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool,
    ):
        seen = pool.submit(see).result(60)
    assert seen[:2] == ids(span)
    assert not seen.is_recording


def test_a_record_logged_in_an_exception_handler_has_a_span_id(spans: Spans) -> None:
    """otel-python#3477: zeros where the failure was logged, of all places."""
    seen: list[Any] = []
    logger = logging.Logger("handler")
    logger.addFilter(lambda record: bool(seen.append(record.otelSpanID)))  # type: ignore[func-returns-value]
    with spans.span() as span:
        try:
            raise ValueError
        except ValueError:
            logger.exception("failed")
    assert seen == [f"{ids(span)[1]:016x}"]


PATCH = "from gevent import monkey; monkey.patch_all()"
GEVENT = """
import asyncio, concurrent.futures, logging, subprocess, threading, sys, os
from opentelemetry import trace
from instrumentation.carried import NOTHING, Spans, ids, ids_seen, watched
from tracekit.instrumentation import (
    concurrent_futures, logging as log_records, multiprocessing, subprocess as programs,
    threading as threads,
)
modules = (concurrent_futures, log_records, multiprocessing, programs, threads)
plugins = [module.plugin for module in modules]
spans = Spans()
wrong = []

def request(number, pool):
    with spans.span(str(number)) as span:
        seen = [pool.submit(ids_seen).result(), *pool.map(ids_seen, range(2))]
        thread = threading.Thread(target=lambda: seen.append(ids_seen()))
        thread.start()
        thread.join()
        timer = threading.Timer(0.001, lambda: seen.append(ids_seen()))
        timer.start()
        timer.join()
        seen.append(ids_seen())
        if seen != [ids(span)] * 6:
            wrong.append(seen)

with watched(*plugins):
    with concurrent.futures.ThreadPoolExecutor(5) as pool:
        requests = [threading.Thread(target=request, args=(n, pool)) for n in range(50)]
        for thread in requests: thread.start()
        for thread in requests: thread.join()
        assert pool.submit(ids_seen).result() == NOTHING
    with spans.span() as span:
        tell = "import os; print(os.environ['TRACEPARENT'])"
        child = subprocess.check_output([sys.executable, "-S", "-c", tell])
        assert f"{ids(span)[1]:016x}" in child.decode()
        logging.getLogger().warning("a line")
    assert ids_seen() == NOTHING
assert not wrong, wrong
assert len(spans.ended) == 51
print("every parent right")
"""


@pytest.mark.skipif(not importlib.util.find_spec("gevent"), reason="gevent is not installed")
@pytest.mark.parametrize("when", ["first", "after the imports"])
def test_threads_that_gevent_made_greenlets_have_the_right_parents(
    repository: Path, when: str
) -> None:
    """contrib#2758, contrib#2426, sentry-python#80677: recursion, or the hub stopped for good."""
    head, _, body = GEVENT.partition("modules =")
    program = [PATCH, head] if when == "first" else [head, PATCH]
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", "\n".join([*program, "modules =" + body])],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={"PYTHONPATH": f"{repository}:{repository / 'tests'}", "PATH": "/usr/bin:/bin"},
    )
    assert done.stdout == "every parent right\n", textwrap.shorten(done.stderr[-3000:], 3000)
