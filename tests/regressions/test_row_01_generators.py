"""Row 1: no "created in a different Context", no leak out of generators, abandoned streams end.

opentelemetry-python#2606, logfire#1424, adk-python#6559, #4894, openllmetry#3061, langfuse#13590,
openinference#1769.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging

import pytest
from opentelemetry import trace

import tracekit


@pytest.fixture(autouse=True)
def quiet(caplog):
    with caplog.at_level(logging.DEBUG):
        yield
    noisy = [record for record in caplog.records if record.name != "asyncio"]
    assert noisy == [], "somebody would read an error that is none"


def by_name(exporter):
    return {span.name: span for span in exporter.get_finished_spans()}


def test_the_consumers_spans_are_not_children_of_the_generator(exporter):
    @tracekit.traced(name="generator")
    def numbers():
        yield from range(3)

    with tracekit.span("consumer"):
        for number in numbers():
            with tracekit.span(f"between {number}"):
                pass
    spans = by_name(exporter)
    consumer = spans["consumer"].context.span_id
    for name in ("generator", "between 0", "between 1", "between 2"):
        assert spans[name].parent.span_id == consumer


def test_a_generator_left_early_ends_its_span_and_is_marked(exporter):
    @tracekit.traced(name="generator")
    def numbers():
        yield from range(3)

    for _ in numbers():
        break
    gc.collect()
    assert by_name(exporter)["generator"].attributes["tracekit.abandoned"] is True
    assert tracekit.current_span() is trace.INVALID_SPAN


def test_an_async_stream_closed_in_another_task_is_quiet(exporter):
    """What web frameworks do when a client goes away."""

    @tracekit.traced(name="stream")
    async def stream():
        with tracekit.span("inside"):
            for number in range(10):
                yield number

    async def main():
        running = stream()
        await running.__anext__()
        await asyncio.create_task(close(running))

    async def close(running):
        await running.aclose()

    asyncio.run(main())
    spans = by_name(exporter)
    assert spans["inside"].parent.span_id == spans["stream"].context.span_id
    assert tracekit.current_span() is trace.INVALID_SPAN


def test_a_span_held_open_by_an_undecorated_async_generator_is_quiet_when_it_is_dropped(exporter):
    """The pattern that other tracers tell users not to write: `with span: yield`."""

    async def stream():
        with tracekit.span("inside"):
            yield 1
            yield 2

    async def main():
        async for _ in stream():
            break
        await asyncio.sleep(0)

    asyncio.run(main())
    gc.collect()
    assert "inside" in by_name(exporter)
    assert tracekit.stats()["live"] == 0
    assert tracekit.current_span() is trace.INVALID_SPAN


def test_a_span_in_a_context_manager_made_of_an_async_generator(exporter):
    @contextlib.asynccontextmanager
    async def session():
        with tracekit.span("session"):
            yield

    async def main():
        async with session():
            with tracekit.span("work"):
                await asyncio.sleep(0)

    asyncio.run(main())
    spans = by_name(exporter)
    assert spans["work"].parent.span_id == spans["session"].context.span_id
    assert tracekit.current_span() is trace.INVALID_SPAN


def test_a_cancelled_stream_ends_its_span_without_an_error(exporter):
    @tracekit.traced(name="stream")
    async def stream():
        while True:
            yield 1
            await asyncio.sleep(60)

    async def consume():
        async for _ in stream():
            pass

    async def main():
        task = asyncio.create_task(consume())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert by_name(exporter)["stream"].status.status_code is trace.StatusCode.UNSET
