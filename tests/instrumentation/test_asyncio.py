"""Tasks, callbacks and executors of an event loop have the parent that was current at their birth.

Python does this by itself: a task copies the ContextVars of whoever makes it. There is no
instrumentation to switch on but that of the pools, and these tests keep it that way.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry.trace import get_current_span

from instrumentation.carried import NOTHING, Seen, Spans, ids, ids_seen, see, watched
from tracekit.instrumentation.concurrent_futures import ConcurrentFuturesInstrumentor
from tracekit.instrumentation.threading import ThreadingInstrumentor

pytestmark = pytest.mark.usefixtures("instrumented")

LOCAL: contextvars.ContextVar[str] = contextvars.ContextVar("LOCAL", default="untouched")


@pytest.fixture
def instrumented() -> Iterator[None]:
    with watched(ThreadingInstrumentor, ConcurrentFuturesInstrumentor):
        yield


@pytest.fixture
def spans() -> Spans:
    return Spans()


async def see_later() -> tuple[int, int]:
    await asyncio.sleep(0)
    return ids_seen()


async def child(spans: Spans, name: str) -> None:
    with spans.span(name):
        await asyncio.sleep(0)


def test_tasks_of_one_gather_are_siblings(spans: Spans) -> None:
    async def main() -> None:
        with spans.span("parent"):
            await asyncio.gather(*(child(spans, f"child {n}") for n in range(10)))

    asyncio.run(main())
    parent = spans.ended["parent"].context.span_id
    children = [span for name, span in spans.ended.items() if name != "parent"]
    assert [span.parent.span_id for span in children] == [parent] * 10


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with 3.11")
def test_tasks_of_a_task_group_are_siblings(spans: Spans) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:  # type: ignore[attr-defined,unused-ignore]
            with spans.span("parent"):
                for number in range(10):
                    group.create_task(child(spans, f"child {number}"))

    asyncio.run(main())
    parent = spans.ended["parent"].context.span_id
    children = [span for name, span in spans.ended.items() if name != "parent"]
    assert [span.parent.span_id for span in children] == [parent] * 10


def test_a_task_that_outlives_its_span_keeps_the_parent(spans: Spans) -> None:
    async def main() -> tuple[Any, Any]:
        go = asyncio.Event()

        async def late() -> tuple[int, int]:
            await go.wait()
            return ids_seen()

        with spans.span() as span:
            task = asyncio.create_task(late())
            await asyncio.sleep(0)
        go.set()
        return await task, ids(span)

    seen, expected = asyncio.run(main())
    assert seen == expected


def test_what_a_task_starts_does_not_reach_its_maker(spans: Spans) -> None:
    async def main() -> None:
        with spans.span("parent") as parent:
            task = asyncio.create_task(child(spans, "child"))
            await asyncio.sleep(0)
            assert ids(get_current_span()) == ids(parent)
            await task
        assert ids_seen() == NOTHING

    asyncio.run(main())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="create_task(context=) came with 3.11")
def test_a_context_given_to_the_task_is_the_programs_choice(spans: Spans) -> None:
    async def main() -> tuple[int, int]:
        with spans.span():
            empty = contextvars.Context()
            return await asyncio.create_task(see_later(), context=empty)  # type: ignore[call-arg,unused-ignore]

    assert asyncio.run(main()) == NOTHING


@pytest.mark.parametrize("method", ["call_soon", "call_later", "call_at", "call_soon_threadsafe"])
def test_a_callback_has_the_parent_of_whoever_asked_for_it(spans: Spans, method: str) -> None:
    async def main() -> tuple[Any, Any]:
        loop = asyncio.get_running_loop()
        seen: asyncio.Future[Any] = loop.create_future()
        when = {"call_later": (0,), "call_at": (loop.time(),)}.get(method, ())
        with spans.span() as span:
            getattr(loop, method)(*when, lambda: seen.set_result(ids_seen()))
        return await seen, ids(span)

    seen, expected = asyncio.run(main())
    assert seen == expected


@pytest.mark.parametrize("custom", [False, True])
def test_work_in_an_executor_runs_below_the_task(spans: Spans, custom: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as pool:
            executor = pool if custom else None
            with spans.span() as span:
                assert await loop.run_in_executor(executor, ids_seen) == ids(span)
            assert await loop.run_in_executor(executor, ids_seen) == NOTHING

    asyncio.run(main())


def test_to_thread_takes_all_context_variables_and_the_live_span(spans: Spans) -> None:
    def look() -> tuple[str, Seen]:
        return LOCAL.get(), see()

    async def main() -> None:
        LOCAL.set("changed")
        with spans.span() as span:
            local, seen = await asyncio.to_thread(look)
        assert local == "changed"
        assert seen[:4] == (*ids(span), False, True)

    asyncio.run(main())


def test_a_coroutine_sent_to_a_loop_in_another_thread_has_its_senders_parent(spans: Spans) -> None:
    async def main() -> tuple[Any, Any]:
        loop = asyncio.get_running_loop()

        def send() -> tuple[Any, Any]:
            with spans.span() as span:
                return asyncio.run_coroutine_threadsafe(see_later(), loop).result(10), ids(span)

        return await asyncio.to_thread(send)

    seen, expected = asyncio.run(main())
    assert seen == expected


def test_two_hundred_tasks_at_once_have_each_their_own_parent(spans: Spans) -> None:
    async def request(number: int) -> bool:
        loop = asyncio.get_running_loop()
        with spans.span(str(number)) as span:
            await asyncio.sleep(0)
            seen = await asyncio.gather(
                see_later(), asyncio.to_thread(ids_seen), loop.run_in_executor(None, ids_seen)
            )
            return seen == [ids(span)] * 3

    async def main() -> None:
        assert all(await asyncio.gather(*map(request, range(200))))
        assert ids_seen() == NOTHING

    asyncio.run(main())
