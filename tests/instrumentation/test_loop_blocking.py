"""A span that holds the event loop up is told so, with the line that did."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
from typing import Any

import pytest

from tracekit.errors import InvalidValueError
from tracekit.instrumentation.asyncio import AsyncioInstrumentor

BLOCK_S = 0.15
LIMIT_MS = 40


def blocked(span: Any) -> list[Any]:
    return [event for event in span.events if event.name == "tracekit.loop.blocked"]


def test_a_span_that_blocks_is_marked_with_how_long_and_where(spans, instrument) -> None:
    instrument(AsyncioInstrumentor, blocked_ms=LIMIT_MS)

    async def handle() -> None:
        with spans.tracer.start_as_current_span("request"):
            with spans.tracer.start_as_current_span("good"):
                await asyncio.sleep(BLOCK_S)
            with spans.tracer.start_as_current_span("bad"):
                time.sleep(BLOCK_S)

    asyncio.run(handle())
    by_name = {span.name: span for span in spans.ended}
    (event,) = blocked(by_name["bad"])
    assert event.attributes["code.file.path"] == __file__
    assert event.attributes["code.function.name"].endswith("handle")
    assert LIMIT_MS <= by_name["bad"].attributes["tracekit.loop.blocked_ms"] <= 10_000
    assert blocked(by_name["good"]) == blocked(by_name["request"]) == []


def test_the_length_is_exact_where_the_span_outlives_the_block(spans, instrument) -> None:
    instrument(AsyncioInstrumentor, blocked_ms=LIMIT_MS)

    async def handle() -> None:
        with spans.tracer.start_as_current_span("request"):
            time.sleep(BLOCK_S)
            await asyncio.sleep(0)

    asyncio.run(handle())
    (span,) = spans.ended
    assert span.attributes["tracekit.loop.blocked_ms"] >= BLOCK_S * 1000
    assert len(blocked(span)) == 1


def test_each_block_is_an_event_and_the_longest_is_the_attribute(spans, instrument) -> None:
    instrument(AsyncioInstrumentor, blocked_ms=LIMIT_MS)

    async def handle() -> None:
        with spans.tracer.start_as_current_span("request"):
            for factor in (2, 1):
                time.sleep(BLOCK_S * factor)
                await asyncio.sleep(0)

    asyncio.run(handle())
    (span,) = spans.ended
    assert len(blocked(span)) == 2
    assert span.attributes["tracekit.loop.blocked_ms"] >= 2 * BLOCK_S * 1000


def test_a_plain_callback_is_seen_too(spans, instrument) -> None:
    instrument(AsyncioInstrumentor, blocked_ms=LIMIT_MS)

    async def handle() -> None:
        with spans.tracer.start_as_current_span("request"):
            asyncio.get_running_loop().call_soon(time.sleep, BLOCK_S)
            await asyncio.sleep(0.01)

    asyncio.run(handle())
    assert len(blocked(spans.ended[0])) == 1


def test_c_code_that_keeps_the_lock_is_noticed_at_its_end(spans, instrument) -> None:
    instrument(AsyncioInstrumentor, blocked_ms=LIMIT_MS)

    async def handle() -> None:
        with spans.tracer.start_as_current_span("request"):
            _keep_the_lock(BLOCK_S)
            await asyncio.sleep(0)

    before = sys.getswitchinterval()
    sys.setswitchinterval(60)  # as good as C code that does not give the lock up
    try:
        asyncio.run(handle())
    finally:
        sys.setswitchinterval(before)
    (span,) = spans.ended
    assert len(blocked(span)) == 1
    assert span.attributes["tracekit.loop.blocked_ms"] >= LIMIT_MS


def _keep_the_lock(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def test_outside_of_a_span_nothing_happens(instrument) -> None:
    instrument(AsyncioInstrumentor, blocked_ms=LIMIT_MS)

    async def handle() -> int:
        time.sleep(BLOCK_S)
        return 1

    assert asyncio.run(handle()) == 1


def test_an_exception_of_a_callback_takes_its_way(instrument) -> None:
    instrument(AsyncioInstrumentor, blocked_ms=LIMIT_MS)

    async def fails() -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        asyncio.run(fails())


def test_loops_of_several_threads_are_told_apart(spans, instrument) -> None:
    instrument(AsyncioInstrumentor, blocked_ms=LIMIT_MS)

    async def handle(name: str, sleep_s: float) -> None:
        with spans.tracer.start_as_current_span(name):
            time.sleep(sleep_s)
            await asyncio.sleep(0)

    def run(name: str, sleep_s: float) -> None:
        asyncio.run(handle(name, sleep_s))

    threads = [
        threading.Thread(target=run, args=("slow", BLOCK_S)),
        threading.Thread(target=run, args=("fast", 0)),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    by_name = {span.name: span for span in spans.ended}
    assert len(blocked(by_name["slow"])) == 1


def test_without_a_limit_nothing_is_patched(instrument) -> None:
    before = asyncio.events.Handle.__dict__["_run"]
    instrumentor = instrument(AsyncioInstrumentor)
    assert asyncio.events.Handle.__dict__["_run"] is before
    assert instrumentor.status.reason == "no limit is set (TRACEKIT_LOOP_BLOCKED_MS)"


def test_the_environment_may_set_the_limit(instrument, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEKIT_LOOP_BLOCKED_MS", "100")
    assert instrument(AsyncioInstrumentor).status.active


@pytest.mark.parametrize("wrong", ["soon", "-1", "inf", "nan", object()])
def test_a_limit_that_is_none_is_an_error(instrument, wrong: Any) -> None:
    with pytest.raises(InvalidValueError, match="milliseconds, such as 100"):
        instrument(AsyncioInstrumentor, blocked_ms=wrong)


def test_taken_off_again_the_loop_and_the_threads_are_as_before(instrument) -> None:
    before = asyncio.events.Handle.__dict__["_run"]
    instrumentor = instrument(AsyncioInstrumentor, blocked_ms=LIMIT_MS)
    asyncio.run(asyncio.sleep(0))
    (watch,) = [each for each in threading.enumerate() if each.name == "tracekit-loop-watch"]
    instrumentor.uninstrument()
    watch.join(5)
    assert not watch.is_alive()
    assert asyncio.events.Handle.__dict__["_run"] is before
    gc.collect()
