"""Programs whose spans cross threads, tasks, generators and processes, and carry baggage."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context

from opentelemetry import baggage, propagate, trace
from opentelemetry import context as context_api
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

from integration.programs.catalogue import World, program

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-"


@program()
def attached_contexts(world: World) -> list[object]:
    with world.tracer.start_as_current_span("outer") as span:
        token = context_api.attach(context_api.set_value("key", "value"))
        seen = [context_api.get_value("key"), trace.get_current_span() is span]
        with world.tracer.start_as_current_span("inner"):
            seen.append(context_api.get_value("key"))
        context_api.detach(token)
        seen.append(context_api.get_value("key"))
    return [*seen, trace.get_current_span() is trace.INVALID_SPAN]


@program()
def threads_with_and_without_context(world: World) -> None:
    def work(name: str) -> None:
        with world.tracer.start_as_current_span(name):
            pass

    with world.tracer.start_as_current_span("main"):
        context = copy_context()
        for target, args in ((context.run, (work, "carried")), (work, ("not carried",))):
            thread = threading.Thread(target=target, args=args)
            thread.start()
            thread.join()


@program()
def a_pool_that_is_given_the_context(world: World) -> list[int]:
    def work(number: int, context: context_api.Context) -> int:
        token = context_api.attach(context)
        with world.tracer.start_as_current_span("work", attributes={"number": number}):
            context_api.detach(token)
            return number

    with world.tracer.start_as_current_span("main"), ThreadPoolExecutor(1) as pool:
        futures = [pool.submit(work, n, context_api.get_current()) for n in range(3)]
        return [future.result() for future in futures]


@program()
def tasks(world: World) -> list[int]:
    async def work(number: int, gate: asyncio.Event) -> int:
        with world.tracer.start_as_current_span(f"task {number}"):
            await gate.wait()
            with world.tracer.start_as_current_span("inside"):
                return number

    async def main() -> list[int]:
        gate = asyncio.Event()
        with world.tracer.start_as_current_span("main"):
            running = [asyncio.create_task(work(n, gate)) for n in range(3)]
            await asyncio.sleep(0)
            gate.set()
            return list(await asyncio.gather(*running))

    return asyncio.run(main())


@program()
def a_task_that_is_cancelled(world: World) -> str:
    async def main() -> str:
        async def wait() -> None:
            with world.tracer.start_as_current_span("cancelled"):
                await asyncio.Event().wait()

        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            return "cancelled"
        return "went on"

    return asyncio.run(main())


@program()
def a_generator_that_holds_a_span(world: World) -> list[int]:
    def numbers() -> Iterator[int]:
        with world.tracer.start_as_current_span("generator"):
            yield 1
            yield 2

    with world.tracer.start_as_current_span("outer"):
        return list(numbers())


@program()
def baggage_of_the_context(world: World) -> list[object]:
    context = baggage.set_baggage("user", "ä b", baggage.set_baggage("tier", "gold"))
    token = context_api.attach(context)
    with world.tracer.start_as_current_span("with baggage"):
        seen: list[object] = [dict(baggage.get_all()), baggage.get_baggage("user")]
    context_api.detach(token)
    without = baggage.remove_baggage("user", context)
    return [*seen, dict(baggage.get_all(without)), dict(baggage.get_all(baggage.clear(context)))]


@program()
def injected_headers(world: World) -> list[dict[str, str]]:
    empty: dict[str, str] = {}
    propagate.inject(empty)
    with world.tracer.start_as_current_span("caller"):
        headers: dict[str, str] = {"kept": "as it was"}
        propagate.inject(headers, baggage.set_baggage("user", "ä,b"))
    return [empty, headers]


@program()
def extracted_headers(world: World) -> list[object]:
    carrier = {
        "traceparent": TRACEPARENT + "01",
        "tracestate": "vendor=value,other=1",
        "baggage": "user=alice,tier=gold%2Ccard",
    }
    context = propagate.extract(carrier)
    with world.tracer.start_as_current_span("server", context, trace.SpanKind.SERVER) as span:
        passed_on: dict[str, str] = {}
        propagate.inject(passed_on, context)
        inner: dict[str, str] = {}
        propagate.inject(inner)
        world.tracer.start_span("child").end()
    return [passed_on, inner, span.get_span_context().trace_state.to_header()]


@program()
def headers_that_say_nothing(world: World) -> list[bool]:
    carriers = [
        {},
        {"traceparent": ""},
        {"traceparent": "00-zz-zz-01"},
        {"traceparent": f"00-{'0' * 32}-{SPAN_ID}-01"},
        {"traceparent": f"00-{TRACE_ID}-{'0' * 16}-01"},
        {"traceparent": f"ff-{TRACE_ID}-{SPAN_ID}-01"},
        {"traceparent": TRACEPARENT + "01-more"},
        {"tracestate": "vendor=value"},
        {"baggage": "=;,"},
    ]
    for number, carrier in enumerate(carriers):
        with world.tracer.start_as_current_span(str(number), propagate.extract(carrier)):
            pass
    return [trace.get_current_span(propagate.extract(each)).is_recording() for each in carriers]


@program()
def headers_of_a_later_version(world: World) -> None:
    carrier = {"traceparent": f"01-{TRACE_ID}-{SPAN_ID}-01-more"}
    world.tracer.start_span("later", propagate.extract(carrier)).end()


@program()
def a_remote_caller_that_did_not_sample(world: World) -> list[object]:
    context = propagate.extract({"traceparent": TRACEPARENT + "00", "tracestate": "vendor=value"})
    with world.tracer.start_as_current_span("dropped", context) as span:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        with world.tracer.start_as_current_span("dropped as well") as inner:
            recording = [span.is_recording(), inner.is_recording()]
    flags = headers["traceparent"][-2:]
    return [*recording, headers["traceparent"][3:35], flags, headers["tracestate"]]


@program()
def a_span_that_only_carries_a_context(world: World) -> None:
    carried = SpanContext(int(TRACE_ID, 16), int(SPAN_ID, 16), True, TraceFlags(1))
    with trace.use_span(NonRecordingSpan(carried)), world.tracer.start_as_current_span("child"):
        pass
    local = SpanContext(carried.trace_id, carried.span_id, False, TraceFlags(1))
    scope = world.tracer.start_as_current_span
    with trace.use_span(NonRecordingSpan(local)), scope("child of a local one"):
        pass


@program()
def an_invalid_parent(world: World) -> None:
    with trace.use_span(trace.INVALID_SPAN), world.tracer.start_as_current_span("root"):
        pass
    context = trace.set_span_in_context(NonRecordingSpan(SpanContext(0, 5, True)))
    world.tracer.start_span("root as well", context).end()


@program()
def two_scopes(world: World) -> bool:
    first = world.provider.get_tracer("library", "2.1", "https://example.com/schema", {"team": "a"})
    second = world.provider.get_tracer("library")
    with first.start_as_current_span("first"), second.start_as_current_span("second"):
        first.start_span("third").end()
    return type(first) is type(second)


@program()
def equal_scopes_are_one(world: World) -> None:
    for _ in range(2):
        tracer = world.provider.get_tracer("library", "1", attributes={"list": "x"})
        tracer.start_span("span").end()
    world.provider.get_tracer("library", "2").start_span("span").end()
