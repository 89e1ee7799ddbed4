"""What a child process does has the span that started it, or submitted it, as remote parent."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import pickle
from collections.abc import Iterator
from multiprocessing.pool import Pool, ThreadPool
from multiprocessing.process import BaseProcess
from typing import Any

import pytest
from opentelemetry import baggage, context

from instrumentation.carried import NOTHING, Seen, Spans, entries, ids, ids_seen, see, watched
from tracekit.instrumentation.multiprocessing import MultiprocessingInstrumentor
from tracekit.instrumentation.threading import ThreadingInstrumentor

pytestmark = [
    pytest.mark.usefixtures("instrumented"),
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning"),
]


@pytest.fixture
def instrumented() -> Iterator[None]:
    with watched(ThreadingInstrumentor, MultiprocessingInstrumentor):
        yield


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def method(request: pytest.FixtureRequest) -> Any:
    return multiprocessing.get_context(request.param)


@pytest.fixture(params=["fork", "spawn"])
def pool(request: pytest.FixtureRequest, spans: Spans) -> Iterator[Pool]:
    # Its processes are started inside a span, and belong to it no more than to any other.
    with spans.span("making the pool"):
        made = multiprocessing.get_context(request.param).Pool(1)
    with made:
        yield made
        made.close()
        made.join()


def send(answers: Any, look: Any = see, *args: Any) -> None:
    answers.put(look(*args))


class Worker(multiprocessing.get_context("spawn").Process):  # type: ignore[misc,name-defined]
    """Overrides run, as many do, and pickles its state by itself."""

    def __init__(self, answers: Any) -> None:
        super().__init__()
        self.answers = answers

    def run(self) -> None:
        self.answers.put(see())

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__)


def start_under_a_provider_of_its_own() -> Any:
    spans = Spans()
    with spans.span("child"):
        pass
    parent = spans.ended["child"].parent
    return (parent.trace_id, parent.span_id, parent.is_remote)


def in_process(method: Any, look: Any, *args: Any) -> Any:
    answers = method.SimpleQueue()
    process = method.Process(target=send, args=(answers, look, *args))
    process.start()
    assert "run" not in vars(process)
    answer = answers.get()
    process.join()
    assert process.exitcode == 0
    return answer


def test_a_process_works_below_the_span_that_started_it(spans: Spans, method: Any) -> None:
    with spans.span() as span:
        seen: Seen = in_process(method, see)
    assert seen[:2] == ids(span)
    assert seen.pid != os.getpid()


def test_the_parents_live_span_is_not_current_in_a_child(spans: Spans, method: Any) -> None:
    with spans.span():
        seen: Seen = in_process(method, see)
    assert seen.is_remote
    assert not seen.is_recording


def test_a_child_that_configures_itself_starts_spans_below_the_parents(
    spans: Spans, method: Any
) -> None:
    with spans.span() as span:
        assert in_process(method, start_under_a_provider_of_its_own) == (*ids(span), True)


def test_a_subclass_that_overrides_run_works_below_the_span(spans: Spans) -> None:
    answers = multiprocessing.get_context("spawn").SimpleQueue()
    worker = Worker(answers)
    with spans.span() as span:
        worker.start()
    seen: Seen = answers.get()
    worker.join()
    assert seen[:2] == ids(span)


def test_a_process_started_outside_every_span_has_none(method: Any) -> None:
    assert in_process(method, ids_seen) == NOTHING


def test_baggage_goes_along(method: Any) -> None:
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        assert in_process(method, baggage.get_baggage, "tenant") == "acme"
    finally:
        context.detach(token)


def test_a_process_inside_a_process_has_the_same_parent(spans: Spans) -> None:
    fork = multiprocessing.get_context("fork")
    with spans.span() as span:
        assert in_process(fork, in_process, fork, ids_seen) == ids(span)


def test_a_run_that_the_program_set_is_called_and_kept(spans: Spans) -> None:
    fork = multiprocessing.get_context("fork")
    answers = fork.SimpleQueue()
    process = fork.Process()
    process.run = own_run = lambda: answers.put(ids_seen())  # type: ignore[method-assign]
    with spans.span() as span:
        process.start()
    assert answers.get() == ids(span)
    process.join()
    assert vars(process)["run"] is own_run


def test_what_cannot_be_pickled_is_refused_with_the_same_error(spans: Spans) -> None:
    local = lambda: None  # noqa: E731
    with pytest.raises((AttributeError, pickle.PicklingError)) as plain:
        pickle.dumps(local)
    process = multiprocessing.get_context("spawn").Process(target=local)
    with spans.span(), pytest.raises(type(plain.value)) as refused:
        process.start()
    assert str(refused.value) == str(plain.value)
    assert "run" not in vars(process)


def test_starting_twice_fails_as_before(spans: Spans) -> None:
    process = multiprocessing.get_context("fork").Process(target=ids_seen)
    with spans.span():
        process.start()
        with pytest.raises(AssertionError, match="cannot start a process twice"):
            process.start()
    process.join()


def apply(pool: Pool) -> Any:
    return [pool.apply(ids_seen, (1,))]


def apply_async(pool: Pool) -> Any:
    return [pool.apply_async(func=ids_seen, args=(1,)).get()]


def map_(pool: Pool) -> Any:
    return pool.map(ids_seen, [1, 2], chunksize=1)


def map_async(pool: Pool) -> Any:
    return pool.map_async(ids_seen, [1, 2]).get()


def starmap(pool: Pool) -> Any:
    return pool.starmap(ids_seen, [(1, 2)])


def starmap_async(pool: Pool) -> Any:
    return pool.starmap_async(ids_seen, [(1, 2)]).get()


def imap(pool: Pool) -> Any:
    return list(pool.imap(ids_seen, [1, 2]))


def imap_unordered(pool: Pool) -> Any:
    return list(pool.imap_unordered(ids_seen, [1, 2, 3], chunksize=2))


WAYS = [apply, apply_async, map_, map_async, starmap, starmap_async, imap, imap_unordered]


def test_work_given_to_a_pool_runs_below_whoever_gave_it(spans: Spans, pool: Pool) -> None:
    for way in WAYS:
        with spans.span() as span:
            assert set(way(pool)) == {ids(span)}, way.__name__
        assert set(way(pool)) == {NOTHING}, way.__name__


def test_threads_of_a_pool_work_below_the_live_span(spans: Spans) -> None:
    with spans.span("making the pool"):
        pool = ThreadPool(1)
    with pool:
        for way in WAYS:
            with spans.span() as span:
                assert set(way(pool)) == {ids(span)}, way.__name__
            assert set(way(pool)) == {NOTHING}, way.__name__
        with spans.span():
            assert pool.apply(see).is_recording


def test_a_wrong_call_fails_as_before() -> None:
    with ThreadPool(1) as pool, pytest.raises(TypeError, match="missing 1 required positional"):
        pool.map(iterable=[1])  # type: ignore[call-arg]
    assert str(inspect.signature(Pool.imap)) == "(self, func, iterable, chunksize=1)"


class TestWithoutInstrumentation:
    @pytest.fixture
    def instrumented(self) -> None:
        """Leave processes alone."""

    @pytest.mark.parametrize("patched", [BaseProcess, Pool])
    def test_undoing_leaves_the_very_same_functions(self, patched: type) -> None:
        before = entries(patched)
        with watched(MultiprocessingInstrumentor, MultiprocessingInstrumentor):
            assert entries(patched) != before
        assert entries(patched) == before
