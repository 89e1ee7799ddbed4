"""Row 9: tasks are siblings, may outlive their parent, and can be given another one.

sentry-python#772, #1187, #4241, ddtrace#8637, #910, PR#20279.
"""

from __future__ import annotations

import asyncio
import sys

import pytest
from opentelemetry import trace
from opentelemetry.context import Context

import tracekit


def parents(exporter):
    spans = {span.context.span_id: span for span in exporter.get_finished_spans()}
    return {
        span.name: spans[span.parent.span_id].name if span.parent else None
        for span in spans.values()
    }


async def work(name, turns=1):
    with tracekit.span(name):
        for _ in range(turns):
            await asyncio.sleep(0)
        with tracekit.span(f"{name} inner"):
            await asyncio.sleep(0)


def test_gathered_tasks_are_siblings(exporter):
    async def main():
        with tracekit.span("root"):
            await asyncio.gather(work("a", 3), work("b", 1), work("c", 2))

    asyncio.run(main())
    found = parents(exporter)
    assert {found[name] for name in "abc"} == {"root"}
    assert [found[f"{name} inner"] for name in "abc"] == ["a", "b", "c"]


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup came with Python 3.11")
def test_tasks_of_a_group_are_siblings(exporter):
    async def main():
        with tracekit.span("root"):
            async with asyncio.TaskGroup() as group:
                for name in "ab":
                    group.create_task(work(name))

    asyncio.run(main())
    assert {parents(exporter)[name] for name in "ab"} == {"root"}


def test_a_task_that_outlives_its_parent_stays_its_child(exporter):
    async def main():
        go = asyncio.Event()

        async def late():
            await go.wait()
            await work("late")

        with tracekit.span("request"):
            task = asyncio.create_task(late())
        with tracekit.span("next request"):
            go.set()
            await task

    asyncio.run(main())
    assert parents(exporter)["late"] == "request"


def test_a_task_can_be_given_another_parent_or_none(exporter):
    async def main():
        with tracekit.span("request") as request, tracekit.span("elsewhere"):
            with tracekit.span("given", context=trace.set_span_in_context(request)):
                await asyncio.sleep(0)
            with tracekit.span("alone", context=Context()):
                await asyncio.sleep(0)

    asyncio.run(main())
    found = parents(exporter)
    assert (found["given"], found["alone"]) == ("request", None)


def test_callbacks_of_the_loop_have_the_context_of_where_they_were_scheduled(exporter):
    async def main():
        done = asyncio.Event()

        def callback():
            with tracekit.span("callback"):
                done.set()

        with tracekit.span("scheduler"):
            asyncio.get_running_loop().call_later(0.001, callback)
        await done.wait()

    asyncio.run(main())
    assert parents(exporter)["callback"] == "scheduler"
