"""A busy program: fifty threads and two hundred tasks at once, and generators dropped half-way."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import Counter

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace

import tracekit
from tracekit.sdk import InMemorySpanExporter

THREADS, TASKS, STEPS = 50, 200, 4


@pytest.fixture
def exporter():
    exporter = InMemorySpanExporter()
    tracekit.configure(exporters=[exporter])
    return exporter


@tracekit.traced(name="countdown")
def countdown(number):
    while number:
        with tracekit.span("tick", number=number):
            yield number
        number -= 1


@tracekit.traced(name="stream")
async def stream(number):
    while number:
        await asyncio.sleep(0)
        with tracekit.span("chunk", number=number):
            yield number
        number -= 1


def step(who):
    """Make a small tree: step -> (half, countdown -> tick), with one countdown dropped."""
    with tracekit.span("step", who=who):
        with tracekit.span("half", who=who):
            pass
        for number in countdown(3):
            if number == 2:
                break


async def async_step(who):
    with tracekit.span("step", who=who):
        await asyncio.sleep(0)
        with tracekit.span("half", who=who):
            await asyncio.sleep(0)
        async for number in stream(3):
            if number == 2:
                break


def in_thread(who):
    with tracekit.span("thread", who=who):
        for _ in range(STEPS):
            step(who)


async def in_task(who):
    with tracekit.span("task", who=who):
        for _ in range(STEPS):
            await async_step(who)


async def all_tasks():
    with tracekit.span("tasks"):
        await asyncio.gather(*(in_task(f"task{number}") for number in range(TASKS)))


def run_all():
    threads = [
        threading.Thread(target=in_thread, args=(f"thread{number}",)) for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    asyncio.run(all_tasks())
    for thread in threads:
        thread.join()


def ledger_adds_up(stats):
    """Check that every started span is in exactly one place; return the exporter's part."""
    assert stats["started"] == stats["live"] + stats["ended"]
    received = 0
    for part in stats["processors"]:
        received += part["received"]
        handed = part["received"] - part["not_sampled"] - part["queued"]
        handed -= sum(part["dropped"].values())
        for lane in part["exporters"]:
            where = (sum(lane["failed"].values()), sum(lane["dropped"].values()), lane["pending"])
            assert handed == lane["exported"] + sum(where), part
    assert received == stats["ended"]
    return stats["processors"][0]["exporters"][0]


def test_every_parent_is_right_and_nothing_leaks_and_the_ledger_adds_up(exporter):
    outside = context_api.get_current()
    run_all()
    gc.collect()
    assert tracekit.current_span() is trace.INVALID_SPAN
    assert context_api.get_current() == outside == {}
    assert tracekit.flush(60)

    spans = exporter.get_finished_spans()
    by_id = {span.context.span_id: span for span in spans}
    assert len(by_id) == len(spans), "no id twice"
    workers = THREADS + TASKS
    steps = workers * STEPS
    assert Counter(span.name for span in spans) == {
        "thread": THREADS,
        "task": TASKS,
        "tasks": 1,
        "step": steps,
        "half": steps,
        "countdown": THREADS * STEPS,
        "tick": THREADS * STEPS * 2,
        "stream": TASKS * STEPS,
        "chunk": TASKS * STEPS * 2,
    }
    above = {
        "thread": None,
        "tasks": None,
        "task": "tasks",
        "half": "step",
        "countdown": "step",
        "stream": "step",
        "tick": "countdown",
        "chunk": "stream",
    }
    for span in spans:
        parent = by_id[span.parent.span_id] if span.parent else None
        if span.name == "step":
            assert parent is not None
            assert parent.name in ("thread", "task")
        else:
            assert (parent.name if parent else None) == above[span.name], span.name
        if parent is not None:
            assert parent.context.trace_id == span.context.trace_id
            assert parent.start_time <= span.start_time
        if "who" in span.attributes and parent is not None and "who" in parent.attributes:
            assert span.attributes["who"] == parent.attributes["who"]

    stats = tracekit.stats()
    lane = ledger_adds_up(stats)
    assert (stats["live"], lane["exported"], lane["pending"]) == (0, len(spans), 0)
    assert stats["late_writes"] == 0


def test_generators_dropped_half_way_leave_nothing_current_and_end(exporter, caplog):
    dropped = []
    with tracekit.span("caller") as caller:
        for _ in range(50):
            generator = countdown(5)
            next(generator)
            assert tracekit.current_span() is caller
            dropped.append(generator)
        del generator
        dropped.clear()
        gc.collect()
        assert tracekit.current_span() is caller
    assert tracekit.current_span() is trace.INVALID_SPAN
    assert tracekit.flush(10)
    spans = exporter.get_finished_spans()
    assert Counter(span.name for span in spans) == {"caller": 1, "countdown": 50, "tick": 50}
    abandoned = [span for span in spans if span.attributes.get("tracekit.abandoned")]
    assert {span.name for span in abandoned} == {"countdown"}
    assert len(abandoned) == 50
    assert tracekit.stats()["live"] == 0
    assert caplog.records == []


def test_generators_dropped_in_another_thread_than_they_ran_in(exporter, caplog):
    left = []

    def begin():
        with tracekit.span("beginner"):
            generator = countdown(3)
            next(generator)
            left.append(generator)

    beginner = threading.Thread(target=begin)
    beginner.start()
    beginner.join()
    with tracekit.span("dropper") as dropper:
        left.clear()
        gc.collect()
        assert tracekit.current_span() is dropper
    assert tracekit.current_span() is trace.INVALID_SPAN
    assert tracekit.flush(10)
    by_name = {span.name: span for span in exporter.get_finished_spans()}
    assert by_name["countdown"].parent.span_id == by_name["beginner"].context.span_id
    assert by_name["tick"].parent.span_id == by_name["countdown"].context.span_id
    assert caplog.records == []


def test_streams_that_are_cancelled_or_left_to_the_loops_end_are_quiet(exporter, caplog):
    async def consume(enough):
        async for _ in stream(1_000):
            await enough.wait()

    async def main():
        never = asyncio.Event()
        tasks = [asyncio.create_task(consume(never)) for _ in range(20)]
        await asyncio.sleep(0.01)
        for task in tasks[:10]:
            task.cancel()
        await asyncio.gather(*tasks[:10], return_exceptions=True)
        # The other ten are cancelled by asyncio.run(), after this returns.

    asyncio.run(main())
    gc.collect()
    assert tracekit.current_span() is trace.INVALID_SPAN
    assert tracekit.flush(10)
    assert Counter(span.name for span in exporter.get_finished_spans())["stream"] == 20
    ledger_adds_up(tracekit.stats())
    assert tracekit.stats()["live"] == 0
    assert [record for record in caplog.records if record.name != "asyncio"] == []


def test_half_of_it_dropped_by_the_sampler_adds_up_too():
    exporter = InMemorySpanExporter()
    tracekit.configure(exporters=[exporter], sampler=0.5)
    run_all()
    gc.collect()
    assert tracekit.current_span() is trace.INVALID_SPAN
    assert tracekit.flush(60)
    stats = tracekit.stats()
    lane = ledger_adds_up(stats)
    assert stats["sampled_out"] > 0
    assert lane["exported"] == stats["started"] == len(exporter.get_finished_spans())
    for span in exporter.get_finished_spans():
        assert span.context.trace_flags.sampled
