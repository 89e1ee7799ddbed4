"""Row 30: one decorator for everything, and what it decorates stays what it was.

opentelemetry-python#62, #3270, PR#3595, #2621, traceroot#119. That types stay is proved by
tests/typing/api.py, the kinds one by one by tests/core/test_traced.py.
"""

from __future__ import annotations

import asyncio
import inspect

import pytest

import tracekit


def names(exporter):
    return sorted(span.name for span in exporter.get_finished_spans())


def plain(a, b=1):
    return a + b


async def coroutine(a, b=1):
    return a + b


def generator(a, b=1):
    yield a + b


async def stream(a, b=1):
    yield a + b


def result_of(function):
    outcome = function(1, b=2)
    if inspect.iscoroutine(outcome):
        return asyncio.run(outcome)
    if inspect.isgenerator(outcome):
        return next(iter(list(outcome)))
    if inspect.isasyncgen(outcome):

        async def first():
            return [value async for value in outcome]

        return asyncio.run(first())[0]
    return outcome


KINDS = [plain, coroutine, generator, stream]
WAYS = {
    "bare": lambda function: tracekit.traced(function),
    "with options": lambda function: tracekit.traced(name=function.__name__)(function),
    "a span as decorator": lambda function: tracekit.span(function.__name__)(function),
    "a tracer's span": lambda function: tracekit.get_tracer().start_as_current_span(
        function.__name__
    )(function),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("function", KINDS)
def test_every_kind_works_in_every_way(exporter, function, way):
    decorated = WAYS[way](function)
    assert result_of(decorated) == 3
    assert result_of(decorated) == 3
    assert names(exporter) == [function.__name__] * 2
    assert inspect.signature(decorated) == inspect.signature(function)
    for question in (
        inspect.iscoroutinefunction,
        inspect.isgeneratorfunction,
        inspect.isasyncgenfunction,
    ):
        assert question(decorated) is question(function)
    assert (decorated.__name__, decorated.__module__) == (function.__name__, function.__module__)


@pytest.mark.parametrize("function", KINDS)
def test_the_spans_of_a_body_are_below_the_calls_own(exporter, function):
    def body():
        with tracekit.span("inside"):
            return 3

    wrappers = {
        plain: lambda: result_of(tracekit.traced(name="call")(lambda a, b: body())),
    }

    @tracekit.traced(name="call")
    async def calls_coroutine(a, b):
        return body()

    @tracekit.traced(name="call")
    def calls_generator(a, b):
        yield body()

    @tracekit.traced(name="call")
    async def calls_stream(a, b):
        yield body()

    wrappers[coroutine] = lambda: result_of(calls_coroutine)
    wrappers[generator] = lambda: result_of(calls_generator)
    wrappers[stream] = lambda: result_of(calls_stream)
    assert wrappers[function]() == 3
    inside, call = exporter.get_finished_spans()
    assert (inside.name, call.name) == ("inside", "call")
    assert inside.parent.span_id == call.context.span_id
