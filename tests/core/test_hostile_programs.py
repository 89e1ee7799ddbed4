"""A program is not changed by being traced, and whatever it records costs no other span."""

from __future__ import annotations

import collections
import contextlib
import enum
import importlib
import inspect
import json
import math
import sys
import threading
import types
from datetime import datetime, timezone

import pytest
from opentelemetry import context as context_api
from opentelemetry import trace
from opentelemetry.trace import SpanContext, Status, StatusCode

import tracekit
from programs import run
from tracekit.sdk import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    InMemorySpanExporter,
    SimpleSpanProcessor,
    SpanLimits,
    TracerProvider,
)
from tracekit.testing import capture_spans

# The program's own behaviour ---------------------------------------------------------------

PROGRAM = """
import asyncio, functools, inspect, pickle, random, sys, traceback
import tracekit

class Rude(Exception):
    def __str__(self):
        raise RuntimeError("no message for you")

class Mute(Exception):
    def __repr__(self):
        raise RuntimeError("no repr")

@tracekit.traced
def plain(a, /, b=2, *args, c=3, **kwargs):
    "Say what it got."
    return a, b, args, c, kwargs, random.random()

@tracekit.traced(record_args=True, record_result=True)
def recorded(thing):
    return thing

@tracekit.traced
def counts(n):
    received = []
    try:
        for number in range(n):
            received.append((yield number, random.random()))
    finally:
        print("closed", received)
    return "returned"

@tracekit.traced
async def stream(n):
    for number in range(n):
        yield number
        await asyncio.sleep(0)

@tracekit.traced
async def fetch(n):
    await asyncio.sleep(0)
    if n == 3:
        raise KeyError(n)
    return n, random.randint(0, 10**9)

@tracekit.traced
class Shop:
    stock = 3
    class Shelf:
        pass
    def __init__(self): self.sold = 0
    def sell(self): self.sold += 1; return self.sold
    @property
    def left(self): return self.stock - self.sold
    @left.setter
    def left(self, value): self.sold = self.stock - value
    @staticmethod
    def opens(): return 9
    @classmethod
    def named(cls): return cls.__name__

@tracekit.traced
def fails(error):
    raise error

def show(error):
    lines = traceback.format_tb(error.__traceback__)
    print(type(error).__name__, type(error.__cause__), type(error.__context__), error.args)
    print([line.strip().splitlines()[-1] for line in lines if "tracekit" not in line])

def main():
    random.seed(1)
    print(plain(1), plain(1, 5, 6, c=7, d=8))
    print(inspect.signature(plain), plain.__doc__, plain.__name__, plain.__qualname__)
    print(pickle.loads(pickle.dumps(plain)) is plain)
    for wrong in ((), (1, 2)):
        try:
            recorded(*wrong)
        except TypeError as error:
            print(error)
    marker = object()
    print(recorded(marker) is marker)
    for error in (ValueError("v"), Rude(1), Mute(2), KeyboardInterrupt("k"), SystemExit(3)):
        try:
            with tracekit.span("outer"):
                fails(error)
        except BaseException as caught:
            print(caught is error)
            show(caught)
    generator = counts(3)
    print(inspect.isgenerator(generator), next(generator), generator.send("x"))
    try:
        generator.throw(ZeroDivisionError("thrown"))
    except ZeroDivisionError as error:
        print("thrown out", error)
    def delegate():
        print((yield from counts(2)))
    print(list(delegate()))
    generator = counts(5)
    next(generator)
    print(generator.close())
    def never():
        yield from ()
        yield fails(ValueError("in a generator"))
    try:
        list(tracekit.traced(never)())
    except ValueError as error:
        print(error)
    async def run():
        print([number async for number in stream(4)])
        print(await asyncio.gather(*map(fetch, range(5)), return_exceptions=True))
        task = asyncio.ensure_future(fetch(1))
        task.cancel()
        try:
            await task
        except asyncio.CancelledError as error:
            print("cancelled", error.args)
        print(inspect.iscoroutinefunction(fetch), inspect.isasyncgenfunction(stream))
    asyncio.run(run())
    shop = Shop()
    print(shop.sell(), shop.left, Shop.opens(), shop.named(), isinstance(shop, Shop), Shop.Shelf)
    shop.left = 1
    print(shop.sold, type(Shop), pickle.loads(pickle.dumps(shop)).sold)
    def deep(n):
        with tracekit.span("deep"):
            return deep(n + 1)
    try:
        deep(0)
    except RecursionError as error:
        print(type(error))
    print(random.random(), random.getrandbits(64), sys.getrecursionlimit())

setup()
main()
print(sys.gettrace(), sys.getprofile(), random.random())
"""

# As many lines as the other, so that line numbers are the same.
UNTRACED = """
import os, tempfile
def setup():
    import tracekit
    os.environ.get("EXPORTERS")
"""
TRACED = """
import os, tempfile
def setup():
    import tracekit
    tracekit.configure(exporters=os.environ["EXPORTERS"])
"""


@pytest.fixture(scope="module")
def untraced():
    done = run(UNTRACED + PROGRAM, PYTHONHASHSEED="0")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("exporters", ["store", "memory", "otlp_file", "none"])
def test_results_exceptions_stdout_and_random_numbers_are_the_same(untraced, exporters, tmp_path):
    done = run(
        TRACED + PROGRAM,
        PYTHONHASHSEED="0",
        EXPORTERS=exporters,
        TRACEKIT_OTLP_FILE=str(tmp_path / "traces.jsonl"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == untraced
    assert done.stderr == ""


def test_an_uncaught_error_ends_the_program_as_before():
    program = """
class Rude(Exception):
    def __str__(self):
        raise RuntimeError("no message for you")
import tracekit
setup()
with tracekit.span("a"):
    raise Rude
"""
    before = run(UNTRACED + program)
    after = run(TRACED + program, EXPORTERS="memory")
    assert (after.returncode, after.stdout) == (before.returncode, before.stdout) == (1, "")
    assert after.stderr.splitlines()[-1] == before.stderr.splitlines()[-1]


@contextlib.contextmanager
def recursion_limit(more):
    """Allow so many frames more than there are now: writing down deep stacks takes its time."""
    before, depth = sys.getrecursionlimit(), len(inspect.stack(0))
    sys.setrecursionlimit(depth + more)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def test_spans_to_the_bottom_of_the_stack_all_end_and_leave_nothing_current():
    def deep():
        with tracekit.span("deep"):
            deep()

    def falls():
        tracekit.traced(falls)()

    with capture_spans():
        for bottomless in (deep, falls):
            with pytest.raises(RecursionError), recursion_limit(300):
                bottomless()
            assert tracekit.current_span() is trace.INVALID_SPAN
        stats = tracekit.stats()
        assert (stats["live"], stats["started"]) == (0, stats["ended"])


# Monsters ----------------------------------------------------------------------------------


class EvilRepr:
    def __repr__(self):
        raise RuntimeError("evil repr")


class EvilClass:
    """As werkzeug's proxies are outside of a request."""

    @property
    def __class__(self):
        raise RuntimeError("working outside of context")


class EvilAttributes:
    def __getattr__(self, name):
        raise RuntimeError(f"evil {name}")


class EvilList(list):
    def __iter__(self):
        raise RuntimeError("evil iter")

    def copy(self):
        raise RuntimeError("evil copy")


class EvilDict(dict):
    def items(self):
        raise RuntimeError("evil items")


class EvilEq:
    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other):
        raise RuntimeError("evil eq")


class Unhashable(type):
    __hash__ = None  # type: ignore[assignment]

    def __eq__(cls, other):
        raise RuntimeError("evil class")


class OfUnhashable(metaclass=Unhashable):
    pass


class EvilStr(str):
    def __len__(self):
        raise RuntimeError("evil len")

    def encode(self, *arguments, **options):
        raise RuntimeError("evil encode")

    def __str__(self):
        raise RuntimeError("evil str")


class Flag(enum.IntFlag):
    A = 1


class Endless:
    def __iter__(self):
        while True:
            yield 1

    def __len__(self):
        return sys.maxsize


class EndlessMapping(collections.abc.Mapping):
    def __getitem__(self, key):
        return key

    def __len__(self):
        return sys.maxsize

    def __iter__(self):
        number = 0
        while True:
            number += 1
            yield number


def hall_of_mirrors():
    """A list that holds itself ten times: ten to the power of its depth members."""
    mirrors = []
    mirrors.extend([mirrors] * 10)
    return mirrors


def lies_of_laughs():
    grown = ["lol"] * 10
    for _ in range(12):
        grown = [grown] * 10
    return grown


def cyclic_graph():
    class Node:
        pass

    nodes = [Node() for _ in range(100)]
    for node in nodes:
        node.others = nodes
        node.owner = Node
    return nodes


ITSELF = []
ITSELF.append(ITSELF)

MONSTERS = {
    "repr raises": EvilRepr(),
    "class raises": EvilClass(),
    "getattr raises": EvilAttributes(),
    "iter raises": EvilList([1]),
    "items raises": EvilDict(a=1),
    "eq raises": EvilEq(),
    "class without a hash": OfUnhashable(),
    "a class without a hash": OfUnhashable,
    "evil text": EvilStr("text"),
    "flag": Flag.A,
    "recursive list": ITSELF,
    "recursive dict": {"me": ITSELF},
    "mirrors": hall_of_mirrors(),
    "laughs": lies_of_laughs(),
    "endless": Endless(),
    "endless mapping": EndlessMapping(),
    "graph": cyclic_graph(),
    "module": sys,
    "function": print,
    "megabyte": "x" * (1 << 20),
    "megabytes": b"\xff" * (1 << 20),
    "NaN": math.nan,
    "infinity": -math.inf,
    "surrogate": "a\ud800b",
    "surrogates inside": {"\udfff": ["\ud800"]},
    "NUL": "a\0b",
    "big": 1 << 200,
    "bigger": -(10**5000),
    "none": None,
    "none inside": [None, 1],
    "mixed": [1, "a", None, 2.5, True, b"b", [1]],
    "keys": {1: 1, None: 2, (1, 2): 3, "": 4},
    "generator": (number for number in ()),
    "mock proxy": types.SimpleNamespace(a=1),
    "deque": collections.deque([1]),
    "date": datetime(2020, 1, 1, tzinfo=timezone.utc),
    "memoryview": memoryview(b"abc"),
    "complex": 1j,
    "type": type,
}

KEYS = [1, None, "", b"key", ("a",), [], {}, EvilClass(), EvilRepr(), OfUnhashable(), math.nan]


def feed_monsters(tracer):
    """Use every monster in every place where values go; between them, plain spans."""
    for name, monster in MONSTERS.items():
        with tracer.start_as_current_span(f"monster {name}", attributes={"m": monster, "good": 1}):
            span = trace.get_current_span()
            span.set_attribute("later", monster)
            span.set_attributes({"in bulk": monster, "also good": "yes"})
            span.add_event("event", {"m": monster, "good": 1})
            span.add_link(SpanContext(1, 2, True), {"m": monster, "good": 1})
        with tracekit.attributes(inherited=monster), tracer.start_as_current_span("plain"):
            pass
    for key in KEYS:
        with tracer.start_as_current_span("monster key") as span:
            for write in (
                lambda key=key: span.set_attribute(key, 1),
                lambda key=key: span.set_attributes({key: 1}) if key.__hash__ else None,
            ):
                if key is not KEYS[7]:
                    write()
            span.set_attribute("good", 1)


@pytest.fixture
def folder(tmp_path):
    return tmp_path


def store(folder):
    return importlib.import_module("tracekit.exporters.store").plugin(folder / "spans.db")


def read_store(folder):
    from tracekit.store.reader import StoreReader

    with StoreReader(folder / "spans.db") as reader:
        summaries = reader.traces(limit=1000)
        return [span for summary in summaries for span in reader.trace(summary.trace_id)]


def test_monsters_through_memory_cost_nobody_anything():
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    feed_monsters(provider.get_tracer("t"))
    assert provider.force_flush(30_000)
    spans = exporter.get_finished_spans()
    assert len(spans) == 2 * len(MONSTERS) + len(KEYS)
    for span in spans:
        if span.name.startswith("monster"):
            assert span.attributes["good"] == 1
        if span.events:
            assert span.events[0].attributes["good"] == 1
            assert span.links[0].attributes["good"] == 1
        json.loads(span.to_json())


def test_monsters_through_a_file_of_otlp_cost_nobody_anything(folder):
    exporter = importlib.import_module("tracekit.exporters.otlp_file").plugin(folder / "t.jsonl")
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    feed_monsters(provider.get_tracer("t"))
    assert provider.force_flush(60_000)
    assert exporter.skipped == 0
    lines = [json.loads(line) for line in (folder / "t.jsonl").read_bytes().splitlines()]
    spans = [
        span
        for line in lines
        for resource in line["resourceSpans"]
        for scope in resource["scopeSpans"]
        for span in scope["spans"]
    ]
    assert len(spans) == 2 * len(MONSTERS) + len(KEYS)
    for span in spans:
        if span["name"].startswith("monster"):
            assert {"key": "good", "value": {"intValue": "1"}} in span["attributes"]


def test_monsters_through_the_store_cost_nobody_anything(folder):
    exporter = store(folder)
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    feed_monsters(provider.get_tracer("t"))
    assert provider.force_flush(60_000)
    provider.shutdown(10.0)
    spans = read_store(folder)
    assert len(spans) == 2 * len(MONSTERS) + len(KEYS)
    for span in spans:
        if span.name.startswith("monster"):
            assert span.attributes["good"] == 1


def test_monsters_on_the_console_cost_nobody_anything(folder):
    with open(folder / "out", "w", encoding="utf-8", errors="backslashreplace") as out:
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(BatchSpanProcessor(ConsoleSpanExporter(out=out)))
        feed_monsters(provider.get_tracer("t"))
        assert provider.force_flush(60_000)
        provider.shutdown(10.0)
    written = (folder / "out").read_text(encoding="utf-8")
    for name in MONSTERS:
        assert f"monster {name}" in written


# Wrong arguments ---------------------------------------------------------------------------

WRONG_CALLS = {
    "attributes no mapping": lambda tracer, span: tracer.start_span("x", attributes=5).end(),
    "attributes a list": lambda tracer, span: tracer.start_span("x", attributes=[1, 2]).end(),
    "attributes raise": lambda tracer, span: tracer.start_span("x", attributes=EvilDict(a=1)).end(),
    "links no links": lambda tracer, span: tracer.start_span("x", links=[None, 5, "x"]).end(),
    "links no list": lambda tracer, span: tracer.start_span("x", links=5).end(),
    "start a text": lambda tracer, span: tracer.start_span("x", start_time="now").end(),
    "start a float": lambda tracer, span: tracer.start_span("x", start_time=1.7e18).end(),
    "start a NaN": lambda tracer, span: tracer.start_span("x", start_time=math.nan).end(),
    "start before time": lambda tracer, span: tracer.start_span("x", start_time=-5).end(),
    "start after time": lambda tracer, span: tracer.start_span("x", start_time=1 << 80).end(),
    "end a text": lambda tracer, span: tracer.start_span("x").end("now"),
    "end after time": lambda tracer, span: tracer.start_span("x").end(1 << 80),
    "end before start": lambda tracer, span: tracer.start_span("x").end(5),
    "context a span": lambda tracer, span: tracer.start_span("x", context=span).end(),
    "context a number": lambda tracer, span: tracer.start_span("x", context=5).end(),
    "context in a scope": lambda tracer, span: enter(tracer, context=span),
    "links in a scope": lambda tracer, span: enter(tracer, links=[None]),
    "kind a text": lambda tracer, span: tracer.start_span("x", kind="server").end(),
    "name nothing": lambda tracer, span: tracer.start_span(None).end(),
    "name a number": lambda tracer, span: tracer.start_span(5).end(),
    "name a surrogate": lambda tracer, span: tracer.start_span("\ud800").end(),
    "name evil": lambda tracer, span: tracer.start_span(EvilRepr()).end(),
    "update_name": lambda tracer, span: tracer.start_span("x").update_name(None),
    "attributes of event": lambda tracer, span: span.add_event("e", [1]),
    "time of event": lambda tracer, span: span.add_event("e", None, "now"),
    "name of event": lambda tracer, span: span.add_event(None),
    "link none": lambda tracer, span: span.add_link(None),
    "link text": lambda tracer, span: span.add_link("x"),
    "link attributes": lambda tracer, span: span.add_link(SpanContext(1, 1, True), 5),
    "status text": lambda tracer, span: span.set_status("error"),
    "status description": lambda tracer, span: span.set_status(StatusCode.ERROR, 5),
    "status of nonsense": lambda tracer, span: span.set_status(Status(StatusCode.ERROR, None)),
    "exception none": lambda tracer, span: span.record_exception(None),
    "exception text": lambda tracer, span: span.record_exception("x"),
    "exception class": lambda tracer, span: span.record_exception(ValueError),
    "exception attributes": lambda tracer, span: span.record_exception(ValueError(), 5),
    "key a list": lambda tracer, span: span.set_attribute([], 1),
    "bulk nothing": lambda tracer, span: span.set_attributes(None),
}


def enter(tracer, **options):
    with tracer.start_as_current_span("x", **options):
        pass


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", WRONG_CALLS)
def test_a_wrong_call_raises_nothing_and_costs_no_span(folder, name, full):
    """https://opentelemetry.io/docs/specs/otel/error-handling/: no unhandled exception, ever."""
    memory, writes = InMemorySpanExporter(), store(folder)
    limits = SpanLimits(max_span_attributes=0) if full else None
    provider = TracerProvider(shutdown_on_exit=False, span_limits=limits)
    provider.add_span_processor(SimpleSpanProcessor(memory))
    provider.add_span_processor(BatchSpanProcessor(writes))
    tracer = provider.get_tracer("t")
    with tracer.start_as_current_span("outer") as span:
        WRONG_CALLS[name](tracer, span)
    assert provider.force_flush(30_000)
    provider.shutdown(5.0)
    finished = memory.get_finished_spans()
    assert finished[-1].name == "outer"
    assert len(read_store(folder)) == len(finished)
    assert tracekit.current_span() is trace.INVALID_SPAN
    for span in finished:
        json.loads(span.to_json())
        assert isinstance(span.name, str)
        assert 0 <= span.start_time < 1 << 63
        assert 0 <= (span.end_time or 0) < 1 << 63


@pytest.mark.parametrize("scope", [tracekit.attributes(a=1), tracekit.continue_trace({})])
def test_a_scope_restores_its_own_though_others_left_theirs_attached(scope):
    with capture_spans() as exporter:
        with scope:
            context_api.attach(context_api.set_value("left", "behind"))
        with tracekit.span("after"):
            pass
        (span,) = exporter.get_finished_spans()
    assert (dict(span.attributes), span.parent) == ({}, None)
    context_api.attach(context_api.Context())


def test_inherited_attributes_are_bounded_and_own_ones_come_first():
    exporter = InMemorySpanExporter()
    tracekit.configure(
        exporters="none",
        processors=[SimpleSpanProcessor(exporter)],
        span_limits=SpanLimits(max_span_attributes=3),
    )
    inherited = {f"i{number}": number for number in range(10)}
    with tracekit.attributes(**inherited), tracekit.span("a", own=1, i0="mine"):
        pass
    (span,) = exporter.get_finished_spans()
    assert len(span.attributes) == 3
    assert (span.attributes["own"], span.attributes["i0"]) == (1, "mine")
    assert span.dropped_attributes == 8


def test_a_list_that_is_inherited_is_recorded_as_it_was():
    tags = ["a"]
    with capture_spans() as exporter:
        with tracekit.attributes(tags=tags):
            tags.append("b")
            with tracekit.span("x"):
                pass
        assert exporter.get_finished_spans()[0].attributes["tags"] == ("a",)


def test_a_scope_that_was_not_entered_can_be_shown():
    with capture_spans():
        assert "idle" in repr(tracekit.span("idle"))


def test_a_coroutine_made_by_types_coroutine_stays_awaitable():
    import asyncio

    @tracekit.traced
    @types.coroutine
    def old():
        yield
        return 5

    async def main():
        return await old()

    with capture_spans():
        assert asyncio.run(main()) == 5


# Threads -----------------------------------------------------------------------------------


@pytest.fixture
def hasty():
    """Let threads take turns as often as possible."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def together(count, work):
    """Run ``work(number)`` in threads that begin at the same moment; return what they raised."""
    raised, ready = [], threading.Barrier(count, timeout=30)

    def begin(number):
        ready.wait()
        try:
            work(number)
        except Exception as error:
            raised.append(error)

    threads = [threading.Thread(target=begin, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


def test_eight_threads_write_to_one_span_and_nothing_is_lost(hasty):
    provider = TracerProvider(
        shutdown_on_exit=False,
        span_limits=SpanLimits(max_attributes=-1, max_events=-1, max_links=-1),
    )
    for _ in range(20):
        span = provider.get_tracer("t").start_span("x")

        def write(number, span=span):
            for turn in range(20):
                span.set_attribute(f"{number}.{turn}", turn)
                span.add_event(f"{number}.{turn}")
                span.add_link(SpanContext(1, 1 + number * 100 + turn, True))

        assert together(8, write) == []
        assert (len(span.attributes), len(span.events), len(span.links)) == (160, 160, 160)
        span.end()


def test_reading_while_others_write_and_end(hasty):
    exporter = InMemorySpanExporter()
    limits = SpanLimits(max_attributes=-1)
    provider = TracerProvider(shutdown_on_exit=False, span_limits=limits)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for _ in range(5):
        span = provider.get_tracer("t").start_span("x", attributes={"rich": [1]})

        def work(number, span=span):
            for turn in range(20):
                if number < 3:
                    span.set_attribute(f"{number}.{turn}", [turn])
                    span.add_event("e", {"k": turn})
                elif number == 3 and turn == 10:
                    span.set_attribute("last", "word")
                    span.end()
                else:
                    assert span.attributes["rich"] == (1,)
                    assert len(span.events) <= 128
                    json.loads(span.to_json())

        assert together(8, work) == []
        assert span.attributes["last"] == "word"
    assert len(exporter.get_finished_spans()) == 5


def test_many_threads_end_one_span_and_it_is_exported_once(hasty):
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    for _ in range(100):
        span = provider.get_tracer("t").start_span("x")
        assert together(4, lambda number, span=span: span.end()) == []
    assert len(exporter.get_finished_spans()) == 100
    stats = provider.stats()
    assert (stats["ended"], stats["late_writes"]) == (100, 300)


def test_what_is_read_before_the_end_does_not_hide_what_is_written_after():
    with capture_spans() as exporter:
        with tracekit.span("x", rich=[1]) as span:
            assert dict(span.attributes) == {"rich": (1,)}
            span.set_attribute("late", 2)
        assert dict(exporter.get_finished_spans()[0].attributes) == {"rich": (1,), "late": 2}


@pytest.mark.parametrize("options", [{}, {"start_time": 5}])
def test_a_scope_that_is_entered_twice_leaves_its_ended_span_alone(options):
    with capture_spans() as exporter:
        scope = trace.get_tracer("t").start_as_current_span("x", attributes={"a": 1}, **options)
        with scope as first:
            pass
        before = exporter.get_finished_spans()[0].to_json()
        with pytest.raises(ValueError, match="again"), scope as second, tracekit.span("below"):
            second.set_attribute("b", 2)
            raise ValueError("again")
        with scope as third:
            assert tracekit.current_span() is third
        assert tracekit.current_span() is trace.INVALID_SPAN
        found = exporter.get_finished_spans()
        stats = tracekit.stats()
    assert found[0].to_json() == before
    assert found[0] is first
    assert [span.name for span in found] == ["x", "below", "x", "x"]
    assert found[1].parent == found[2].context
    assert [dict(span.attributes) for span in found[2:]] == [{"a": 1, "b": 2}, {"a": 1}]
    assert [event.name for event in found[2].events] == ["exception"]
    assert (stats["live"], stats["started"], stats["ended"]) == (0, 4, 4)
