"""Row 8: the context follows into threads, pools and processes with nothing written for it.

contrib#737, #1009, #1010, sentry-python PR#111451, weaviate#1653. The cases one by one are in
tests/regressions/test_context_carry.py and tests/instrumentation.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

import tracekit


def current_id():
    return tracekit.current_span().get_span_context().span_id


def by_thread():
    seen = []
    thread = threading.Thread(target=lambda: seen.append(current_id()))
    thread.start()
    thread.join()
    return seen[0]


def by_timer():
    seen = []
    timer = threading.Timer(0.001, lambda: seen.append(current_id()))
    timer.start()
    timer.join()
    return seen[0]


def by_submit():
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(current_id).result()


def by_map():
    with ThreadPoolExecutor(1) as pool:
        return next(iter(pool.map(lambda _: current_id(), [0])))


def by_executor():
    async def main():
        return await asyncio.get_running_loop().run_in_executor(None, current_id)

    return asyncio.run(main())


def by_to_thread():
    return asyncio.run(asyncio.to_thread(current_id))


def by_process():
    tell = "import os; print(os.environ['TRACEPARENT'])"
    told = subprocess.check_output([sys.executable, "-S", "-c", tell], text=True)
    return int(told.split("-")[2], 16)


WAYS = [by_thread, by_timer, by_submit, by_map, by_executor, by_to_thread, by_process]


@pytest.mark.parametrize("way", WAYS)
def test_configured_the_context_follows(exporter, way):
    with tracekit.span("here") as span:
        assert way() == span.get_span_context().span_id


@pytest.mark.parametrize("way", WAYS[:-1])
def test_without_a_span_there_is_none_elsewhere(exporter, way):
    assert way() == 0
    assert "TRACEPARENT" not in os.environ
