"""Work given to a pool runs below the span that was current when it was submitted."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate

from instrumentation.carried import NOTHING, Seen, Spans, entries, ids, ids_seen, see, watched
from tracekit.instrumentation.concurrent_futures import ConcurrentFuturesInstrumentor
from tracekit.instrumentation.multiprocessing import MultiprocessingInstrumentor
from tracekit.instrumentation.threading import ThreadingInstrumentor

pytestmark = [
    pytest.mark.usefixtures("instrumented"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


@pytest.fixture
def instrumented() -> Iterator[None]:
    with watched(ThreadingInstrumentor, ConcurrentFuturesInstrumentor, MultiprocessingInstrumentor):
        yield


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(params=["fork", "spawn"])
def processes(request: pytest.FixtureRequest) -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context(request.param)) as pool:
        yield pool


def fail(message: str) -> None:
    raise KeyError(message)


def test_work_in_a_thread_runs_below_the_submitter(
    spans: Spans, threads: ThreadPoolExecutor
) -> None:
    with spans.span() as span:
        assert threads.submit(ids_seen).result() == ids(span)
        assert list(threads.map(ids_seen, range(3))) == [ids(span)] * 3


def test_the_live_span_is_the_parent_in_a_thread(spans: Spans, threads: ThreadPoolExecutor) -> None:
    with spans.span():
        seen = threads.submit(see).result()
    assert seen.is_recording
    assert not seen.is_remote


def test_each_work_item_has_the_parent_of_its_own_submitter(
    spans: Spans, threads: ThreadPoolExecutor
) -> None:
    hold = threading.Event()
    threads.submit(hold.wait, 10)
    waiting: list[tuple[Future[Any], Any]] = []
    for number in range(20):
        with spans.span(str(number)) as span:
            waiting.append((threads.submit(ids_seen), ids(span)))
    last = threads.submit(ids_seen)
    hold.set()
    assert [future.result() for future, _ in waiting] == [expected for _, expected in waiting]
    assert last.result() == NOTHING


def test_nothing_stays_current_in_a_pooled_thread(
    spans: Spans, threads: ThreadPoolExecutor
) -> None:
    with spans.span():
        threads.submit(ids_seen).result()
        with pytest.raises(KeyError):
            threads.submit(fail, "x").result()
    assert threads.submit(ids_seen).result() == NOTHING


def test_fifty_submitters_at_once_have_each_their_own_parent(spans: Spans) -> None:
    barrier = threading.Barrier(50)

    def submit(pool: ThreadPoolExecutor, number: int) -> bool:
        with spans.span(str(number)) as span:
            barrier.wait(30)
            return bool(pool.submit(ids_seen).result() == ids(span))

    with ThreadPoolExecutor(50) as callers, ThreadPoolExecutor(4) as pool:
        answers = [callers.submit(submit, pool, number) for number in range(50)]
        assert all(answer.result() for answer in answers)
        assert pool.submit(ids_seen).result() == NOTHING


def test_a_subclass_that_overrides_submit_carries_too(spans: Spans) -> None:
    class Counting(ThreadPoolExecutor):
        submitted: list[object] = []

        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            self.submitted.append(fn)
            return super().submit(fn, *args, **kwargs)

    with Counting(1) as pool, spans.span() as span:
        assert pool.submit(ids_seen).result() == ids(span)
    assert pool.submitted == [ids_seen]


def test_an_exception_is_the_very_same_object(spans: Spans, threads: ThreadPoolExecutor) -> None:
    error = ValueError("program")

    def raise_it() -> None:
        raise error

    with spans.span():
        assert threads.submit(raise_it).exception() is error


def test_an_exception_kept_by_a_future_does_not_keep_the_span(threads: ThreadPoolExecutor) -> None:
    marker = object()
    token = context.attach(context.set_value("marker", marker))
    error = threads.submit(fail, "x").exception()
    context.detach(token)
    traceback, kept = error.__traceback__ if error else None, []
    while traceback is not None:
        kept += [
            value for value in traceback.tb_frame.f_locals.values() if hasattr(value, "context")
        ]
        traceback = traceback.tb_next
    assert not kept


def test_a_cancelled_item_does_not_run_and_leaves_nothing(
    spans: Spans, threads: ThreadPoolExecutor
) -> None:
    hold = threading.Event()
    threads.submit(hold.wait, 10)
    ran: list[int] = []
    with spans.span():
        waiting = threads.submit(ran.append, 1)
    assert waiting.cancel()
    hold.set()
    assert threads.submit(ids_seen).result() == NOTHING
    assert not ran


def test_callbacks_and_arguments_are_passed_untouched(
    spans: Spans, threads: ThreadPoolExecutor
) -> None:
    done: list[Future[Any]] = []
    with spans.span():
        future = threads.submit(dict, [("a", 1)], fn=2, self=3)
        future.add_done_callback(done.append)
    assert future.result() == {"a": 1, "fn": 2, "self": 3}
    threads.shutdown()
    assert done == [future]


@pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
def test_a_wrong_call_fails_as_before(kind: Any) -> None:
    with kind(1) as pool, pytest.raises(TypeError, match="submit"):
        pool.submit()
    assert str(inspect.signature(kind.submit)) == "(self, fn, /, *args, **kwargs)"


def test_submitting_after_shutdown_fails_as_before(threads: ThreadPoolExecutor) -> None:
    threads.shutdown()
    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        threads.submit(ids_seen)


def test_work_in_a_process_runs_below_the_submitter(
    spans: Spans, processes: ProcessPoolExecutor
) -> None:
    with spans.span() as span:
        seen: Seen = processes.submit(see).result(60)
        mapped = list(processes.map(ids_seen, range(4), chunksize=2))
    assert seen[:4] == (*ids(span), True, False)
    assert seen.pid != os.getpid()
    assert mapped == [ids(span)] * 4
    # Born inside the span when forked, and still nobody's.
    assert processes.submit(ids_seen).result(60) == NOTHING


def test_baggage_goes_along_to_a_process(processes: ProcessPoolExecutor) -> None:
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        future = processes.submit(baggage.get_baggage, "tenant")
    finally:
        context.detach(token)
    assert future.result(60) == "acme"


def test_a_failure_in_a_process_is_the_same(spans: Spans, processes: ProcessPoolExecutor) -> None:
    with spans.span(), pytest.raises(KeyError, match="program"):
        processes.submit(fail, "program").result(60)


def test_what_cannot_be_pickled_is_refused_with_the_same_error(
    spans: Spans, processes: ProcessPoolExecutor
) -> None:
    local = lambda: None  # noqa: E731
    with pytest.raises((AttributeError, pickle.PicklingError)) as plain:
        pickle.dumps(local)
    with spans.span(), pytest.raises(type(plain.value)) as refused:
        processes.submit(local).result(60)
    assert str(refused.value) == str(plain.value)


def test_a_propagator_that_fails_costs_the_parent_and_nothing_else(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("propagator")

    monkeypatch.setattr(propagate, "inject", broken)
    with ProcessPoolExecutor(1) as pool, spans.span():
        assert pool.submit(ids_seen).result(60) == NOTHING


class TestWithoutInstrumentation:
    @pytest.fixture
    def instrumented(self) -> None:
        """Leave pools alone."""

    @pytest.mark.parametrize("kind", [ThreadPoolExecutor, ProcessPoolExecutor])
    def test_undoing_leaves_the_very_same_functions(self, kind: type) -> None:
        before = entries(kind)
        with watched(ConcurrentFuturesInstrumentor, ConcurrentFuturesInstrumentor):
            assert entries(kind) != before
        assert entries(kind) == before

    def test_a_pool_made_before_is_carried_for_and_left_alone_after(self, spans: Spans) -> None:
        with ThreadPoolExecutor(1) as pool:
            with watched(ConcurrentFuturesInstrumentor), spans.span() as span:
                assert pool.submit(ids_seen).result() == ids(span)
            with spans.span():
                assert pool.submit(ids_seen).result() == NOTHING
