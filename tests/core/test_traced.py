"""The decorator: one for everything that can be called, changing nothing but the trace."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
import logging

import pytest
from opentelemetry import trace

import tracekit
from tracekit.testing import capture_spans


@pytest.fixture
def exporter():
    with capture_spans() as exporter:
        yield exporter


def by_name(exporter):
    return {span.name.rpartition(".")[2]: span for span in exporter.get_finished_spans()}


def names(exporter):
    return [span.name.rpartition(".")[2] for span in exporter.get_finished_spans()]


def test_function_returns_what_it_returned_and_makes_a_span(exporter):
    @tracekit.traced
    def price(cart, *, tax=0.2):
        """Price a cart."""
        return len(cart) + tax

    assert price([1, 2], tax=0.5) == 2.5
    assert names(exporter) == ["price"]
    assert price.__doc__ == "Price a cart."
    assert str(inspect.signature(price)) == "(cart, *, tax=0.2)"


def test_exception_of_the_function_reaches_the_caller_unchanged(exporter):
    error = ValueError("no")

    @tracekit.traced
    def fail():
        raise error

    with pytest.raises(ValueError, match="no") as caught:
        fail()
    assert caught.value is error
    assert exporter.get_finished_spans()[0].status.description == "ValueError: no"


def test_options_name_the_span_and_record_arguments_and_result(exporter):
    @tracekit.traced(name="shop.price", attributes={"a": 1}, record_args=True, record_result=True)
    def price(cart, tax=0.2, *more, **options):
        return {"total": 3}

    price([1], 0.5, 7, x=8)
    (span,) = exporter.get_finished_spans()
    assert span.name == "shop.price"
    assert dict(span.attributes) == {
        "a": 1,
        "tracekit.argument.cart": (1,),
        "tracekit.argument.tax": 0.5,
        "tracekit.argument.more": (7,),
        "tracekit.argument.options": {"x": 8},
        "tracekit.result": {"total": 3},
    }


def test_record_args_by_name_leaves_the_others_out(exporter):
    @tracekit.traced(record_args=["user"])
    def login(user, password):
        return None

    login("ada", "secret")
    assert dict(exporter.get_finished_spans()[0].attributes) == {"tracekit.argument.user": "ada"}


def test_a_call_with_wrong_arguments_fails_as_without_tracing(exporter):
    @tracekit.traced(record_args=True)
    def one(argument):
        return argument

    with pytest.raises(TypeError, match="positional argument"):
        one(1, 2)


def test_coroutine_function_stays_one_and_is_current_while_it_runs(exporter):
    @tracekit.traced
    async def fetch():
        with tracekit.span("inner"):
            await asyncio.sleep(0)
        return 7

    assert inspect.iscoroutinefunction(fetch)
    assert asyncio.run(fetch()) == 7
    spans = by_name(exporter)
    assert spans["inner"].parent.span_id == spans["fetch"].context.span_id


def test_generator_is_current_only_while_its_body_runs(exporter):
    @tracekit.traced
    def numbers():
        with tracekit.span("inner"):
            received = yield 1
            yield received
        return 9

    assert inspect.isgeneratorfunction(numbers)
    with tracekit.span("caller") as caller:
        generator = numbers()
        assert next(generator) == 1
        assert tracekit.current_span() is caller
        with tracekit.span("between"):
            assert generator.send(5) == 5
        assert tracekit.current_span() is caller
        with pytest.raises(StopIteration) as stop:
            next(generator)
        assert stop.value.value == 9
    spans = by_name(exporter)
    assert spans["inner"].parent.span_id == spans["numbers"].context.span_id
    assert spans["between"].parent.span_id == spans["caller"].context.span_id
    assert spans["numbers"].parent.span_id == spans["caller"].context.span_id


def test_exception_thrown_into_a_generator_reaches_its_body(exporter):
    @tracekit.traced
    def numbers():
        try:
            yield 1
        except KeyError:
            yield 2

    generator = numbers()
    next(generator)
    assert generator.throw(KeyError()) == 2
    generator.close()


def test_generator_that_fails_has_the_error(exporter):
    @tracekit.traced
    def numbers():
        yield 1
        raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        list(numbers())
    assert by_name(exporter)["numbers"].status.description == "ValueError: half-way"


def test_abandoned_generator_ends_its_span(exporter, caplog):
    @tracekit.traced
    def numbers():
        with tracekit.span("inner"):
            yield 1
            yield 2

    with caplog.at_level(logging.DEBUG):
        for _ in numbers():
            break
        gc.collect()
    assert caplog.records == []
    spans = by_name(exporter)
    assert spans["numbers"].attributes["tracekit.abandoned"] is True
    assert "inner" in spans
    assert tracekit.current_span() is trace.INVALID_SPAN


def test_async_generator_is_current_only_while_its_body_runs(exporter):
    @tracekit.traced
    async def numbers():
        with tracekit.span("inner"):
            yield 1
            await asyncio.sleep(0)
            yield 2

    async def main():
        with tracekit.span("caller") as caller:
            seen = []
            async for number in numbers():
                assert tracekit.current_span() is caller
                seen.append(number)
            return seen

    assert inspect.isasyncgenfunction(numbers)
    assert asyncio.run(main()) == [1, 2]
    spans = by_name(exporter)
    assert spans["inner"].parent.span_id == spans["numbers"].context.span_id


def test_async_generator_dropped_half_way_ends_its_span_quietly(exporter, caplog):
    @tracekit.traced
    async def numbers():
        with tracekit.span("inner"):
            yield 1
            yield 2

    async def consume():
        async for _ in numbers():
            break

    async def main():
        await asyncio.gather(*(consume() for _ in range(5)))
        gc.collect()
        await asyncio.sleep(0)

    with caplog.at_level(logging.DEBUG):
        asyncio.run(main())
    assert [record for record in caplog.records if record.name != "asyncio"] == []
    assert sorted(names(exporter)) == ["inner"] * 5 + ["numbers"] * 5


def test_cancelled_coroutine_ends_its_span_without_an_error(exporter):
    @tracekit.traced
    async def forever():
        await asyncio.sleep(60)

    async def main():
        task = asyncio.ensure_future(forever())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    (span,) = exporter.get_finished_spans()
    assert (span.events, span.status.status_code) == ((), trace.StatusCode.UNSET)


class _Base:
    def inherited(self):
        return "inherited"


@tracekit.traced
class Shop(_Base):
    """A shop."""

    class Inner:
        pass

    factory = dict

    def __init__(self, name):
        self.name = name

    def hello(self):
        return f"hello {self.name}"

    @staticmethod
    def static(number):
        return number

    @classmethod
    def make(cls, name):
        return cls(name)

    @property
    def title(self):
        return self.name.title()

    def _private(self):
        return "private"


def test_decorated_class_stays_a_class_and_its_own_methods_are_traced(exporter):
    shop = Shop.make("ada")
    assert isinstance(Shop, type)
    assert (shop.hello(), Shop.static(3), shop.title) == ("hello ada", 3, "Ada")
    assert (shop.inherited(), shop._private()) == ("inherited", "private")
    assert (Shop.Inner.__name__, Shop.factory) == ("Inner", dict)
    assert [span.name for span in exporter.get_finished_spans()] == [
        "Shop.make",
        "Shop.hello",
        "Shop.static",
        "Shop.title",
    ]


def test_decorators_work_in_either_order(exporter):
    class Both:
        @tracekit.traced
        @staticmethod
        def a():
            return 1

        @staticmethod
        @tracekit.traced
        def b():
            return 2

        @tracekit.traced
        @classmethod
        def c(cls):
            return cls

        @classmethod
        @tracekit.traced
        def d(cls):
            return cls

        @tracekit.traced
        @property
        def e(self):
            return 5

        @property
        @tracekit.traced
        def f(self):
            return 6

    both = Both()
    assert (both.a(), both.b(), both.c(), both.d(), both.e, both.f) == (1, 2, Both, Both, 5, 6)
    assert names(exporter) == list("abcdef")


def test_partial_and_callable_objects_are_traced(exporter):
    class Callable:
        def __call__(self, number):
            return number

    assert tracekit.traced(functools.partial(max, 3))(1) == 3
    assert tracekit.traced(Callable())(4) == 4
    assert len(exporter.get_finished_spans()) == 2


def test_unconfigured_everything_runs_and_nothing_is_recorded():
    @tracekit.traced
    def generator():
        yield tracekit.current_span().get_span_context().is_valid

    @tracekit.traced
    def plain():
        with tracekit.span("x") as span, tracekit.attributes(a=1):
            span.set_attribute("k", "v")
            return span.is_recording()

    assert plain() is False
    assert list(generator()) == [False]
    assert tracekit.inject({}) == {}
    assert tracekit.flush() is True


def test_decorated_before_configure_is_traced_after_it():
    @tracekit.traced
    def late():
        return 1

    @tracekit.span("scope")
    def later():
        return 2

    with capture_spans() as exporter:
        assert (late(), later()) == (1, 2)
    assert names(exporter) == ["late", "scope"]
