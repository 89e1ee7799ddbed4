"""Threads work below the span that was current when they were started."""

from __future__ import annotations

import contextvars
import gc
import inspect
import sys
import threading
import traceback
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.trace import get_current_span

from instrumentation.carried import NOTHING, Spans, entries, ids, ids_seen, watched
from tracekit.instrumentation.threading import ThreadingInstrumentor

pytestmark = pytest.mark.usefixtures("instrumented")

LOCAL: contextvars.ContextVar[str] = contextvars.ContextVar("LOCAL", default="untouched")

copied_by_python = pytest.mark.skipif(
    bool(getattr(sys.flags, "thread_inherit_context", 0)),
    reason="this Python copies every ContextVar into threads",
)


@pytest.fixture
def instrumented() -> Iterator[None]:
    with watched(ThreadingInstrumentor):
        yield


@pytest.fixture
def spans() -> Spans:
    return Spans()


def run(thread: threading.Thread) -> None:
    thread.start()
    thread.join()


def in_thread(look: Callable[[], Any], **options: Any) -> Any:
    found: list[Any] = []
    run(threading.Thread(target=lambda: found.append(look()), **options))
    return found[0]


@pytest.mark.parametrize("daemon", [False, True])
def test_a_thread_works_below_the_span_that_started_it(spans: Spans, daemon: bool) -> None:
    with spans.span() as span:
        assert in_thread(ids_seen, daemon=daemon) == ids(span)


def test_a_timer_works_below_the_span_that_started_it(spans: Spans) -> None:
    found: list[Any] = []
    with spans.span() as span:
        run(threading.Timer(0, lambda: found.append(ids_seen())))
    assert found == [ids(span)]


def test_a_subclass_that_overrides_run_works_below_the_span(spans: Spans) -> None:
    class Worker(threading.Thread):
        found: Any = None

        def run(self) -> None:
            self.found = ids_seen()

    worker = Worker()
    with spans.span() as span:
        run(worker)
    assert worker.found == ids(span)


def test_the_start_counts_and_not_the_construction(spans: Spans) -> None:
    found: list[Any] = []
    with spans.span("constructing"):
        thread = threading.Thread(target=lambda: found.append(ids_seen()))
    with spans.span("starting") as starting:
        run(thread)
    assert found == [ids(starting)]


def test_a_thread_that_outlives_its_span_keeps_the_parent(spans: Spans) -> None:
    ended = threading.Event()
    found: list[Any] = []

    def work() -> None:
        assert ended.wait(10)
        found.append(ids_seen())

    thread = threading.Thread(target=work)
    with spans.span() as span:
        thread.start()
    ended.set()
    thread.join()
    assert found == [ids(span)]


def test_a_thread_started_outside_every_span_has_none() -> None:
    assert in_thread(ids_seen) == NOTHING


def test_baggage_and_suppression_go_along() -> None:
    token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
    try:
        seen = in_thread(lambda: otel_context.get_value("suppress_instrumentation"))
    finally:
        otel_context.detach(token)
    assert seen is True


@copied_by_python
def test_the_programs_own_context_variables_stay_behind(spans: Spans) -> None:
    token = LOCAL.set("changed")
    try:
        with spans.span():
            assert in_thread(LOCAL.get) == "untouched"
    finally:
        LOCAL.reset(token)


def test_what_the_thread_attaches_stays_in_the_thread(spans: Spans) -> None:
    with spans.span() as span:
        in_thread(lambda: otel_context.attach(otel_context.set_value("left", "behind")))
        assert otel_context.get_value("left") is None
        assert ids(get_current_span()) == ids(span)


def test_fifty_threads_at_once_have_each_their_own_parent(spans: Spans) -> None:
    barrier = threading.Barrier(50)
    found: dict[int, Any] = {}
    expected: dict[int, Any] = {}

    def work(number: int) -> None:
        barrier.wait(30)
        found[number] = ids_seen()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
    for number, thread in enumerate(threads):
        with spans.span(str(number)) as span:
            expected[number] = ids(span)
            thread.start()
    for thread in threads:
        thread.join()
    assert found == expected
    assert ids_seen() == NOTHING


def test_the_span_is_forgotten_when_the_thread_ends(spans: Spans) -> None:
    class Value:
        pass

    value = Value()
    gone = weakref.ref(value)
    thread = threading.Thread(target=ids_seen)
    token = otel_context.attach(otel_context.set_value("held", value))
    run(thread)
    otel_context.detach(token)
    del value, token
    gc.collect()
    assert gone() is None


def test_a_thread_looks_as_it_always_did(spans: Spans) -> None:
    attributes: list[set[str]] = []
    thread = threading.Thread(target=lambda: attributes.append(set(vars(thread))), name="mine")
    plain = repr(thread)
    with spans.span():
        run(thread)
    assert plain == "<Thread(mine, initial)>"
    assert "run" not in attributes[0]
    assert str(inspect.signature(threading.Thread.start)) == "(self)"


def test_an_exception_reaches_the_excepthook_unchanged(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", told.append)
    error = ValueError("program")

    def fail() -> None:
        raise error

    with spans.span():
        run(threading.Thread(target=fail))
    assert [args.exc_value for args in told] == [error]


def test_starting_twice_fails_as_before_and_leaves_nothing(spans: Spans) -> None:
    thread = threading.Thread(target=ids_seen)
    with spans.span():
        run(thread)
        with pytest.raises(RuntimeError, match="threads can only be started once"):
            thread.start()
    assert "run" not in vars(thread)


def test_a_thread_that_could_not_start_starts_later_below_the_span_of_then(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[Any] = []

    def work() -> None:
        found.append(ids_seen())

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    thread: Any = threading.Thread(target=work)
    starter = "_start_joinable_thread" if sys.version_info >= (3, 13) else "_start_new_thread"
    with spans.span(), monkeypatch.context() as patched:
        patched.setattr(threading, starter, refuse)
        with pytest.raises(RuntimeError, match="can't start"):
            thread.start()
    assert thread._target is work
    with spans.span() as later:
        run(thread)
    assert found == [ids(later)]


def test_a_traceback_of_a_thread_has_no_frame_of_ours(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    files: list[str] = []

    def note(told: threading.ExceptHookArgs) -> None:
        files.extend(frame.filename for frame in traceback.extract_tb(told.exc_traceback))

    monkeypatch.setattr(threading, "excepthook", note)
    with spans.span():
        run(threading.Thread(target=lambda: 1 / 0))
    assert {Path(file).name for file in files} == {"threading.py", Path(__file__).name}
    assert not any("tracekit" in Path(file).parts[-3:-1] for file in files)


def test_what_a_thread_sets_is_there_as_long_as_the_thread(spans: Spans) -> None:
    def set_and_look() -> tuple[str, str]:
        before = LOCAL.get()
        LOCAL.set("of the thread")
        return before, LOCAL.get()

    with spans.span():
        assert in_thread(set_and_look) == ("untouched", "of the thread")
    assert LOCAL.get() == "untouched"


def test_a_run_set_on_the_thread_itself_is_called_and_kept(spans: Spans) -> None:
    found: list[Any] = []

    def own_run() -> None:
        found.append(ids_seen())

    thread = threading.Thread()
    thread.run = own_run  # type: ignore[method-assign]
    with spans.span() as span:
        run(thread)
    assert found == [ids(span)]
    assert vars(thread)["run"] is own_run


@pytest.mark.skipif(sys.version_info < (3, 14), reason="Thread(context=...) came with 3.14")
def test_a_context_given_to_the_thread_is_the_programs_choice(spans: Spans) -> None:
    with spans.span():
        assert in_thread(ids_seen, context=contextvars.Context()) == NOTHING


def test_a_thread_of_a_pool_belongs_to_no_span(spans: Spans) -> None:
    with ThreadPoolExecutor(1) as pool:
        with spans.span():
            pool.submit(ids_seen).result()
        assert pool.submit(ids_seen).result() == NOTHING


class TestWithoutInstrumentation:
    @pytest.fixture
    def instrumented(self) -> None:
        """Leave threads alone."""

    def test_undoing_leaves_the_very_same_function(self) -> None:
        before = entries(threading.Thread)
        with watched(ThreadingInstrumentor):
            assert entries(threading.Thread) != before
        assert entries(threading.Thread) == before

    @copied_by_python
    def test_a_thread_started_after_undoing_has_no_parent(self, spans: Spans) -> None:
        with watched(ThreadingInstrumentor):
            pass
        with spans.span():
            assert in_thread(ids_seen) == NOTHING

    def test_whoever_leaves_last_takes_the_patch_along(self) -> None:
        before = vars(threading.Thread)["start"]
        first, second = ThreadingInstrumentor(), ThreadingInstrumentor()
        for instrumentor in (first, first, second):
            instrumentor.instrument()
        patched = vars(threading.Thread)["start"]
        first.uninstrument()
        first.uninstrument()
        assert vars(threading.Thread)["start"] is patched
        second.uninstrument()
        assert vars(threading.Thread)["start"] is before

    @pytest.mark.parametrize("ours_first", [True, False])
    def test_a_second_tracer_may_wrap_the_run_that_it_finds(
        self, spans: Spans, monkeypatch: pytest.MonkeyPatch, ours_first: bool
    ) -> None:
        """sentry-sdk replaces `run` too: it calls the `__func__` of what it finds."""
        seen_by_both: list[Any] = []

        def patch_as_sentry_does() -> None:
            start = threading.Thread.start

            def start_as_sentry_does(thread: threading.Thread) -> None:
                run = getattr(thread.run, "__func__", thread.run)

                def sentry_run(*args: Any) -> None:
                    seen_by_both.append("sentry")
                    run(threading.current_thread(), *args[1:])

                thread.run = sentry_run  # type: ignore[method-assign]
                start(thread)

            monkeypatch.setattr(threading.Thread, "start", start_as_sentry_does)

        if not ours_first:
            patch_as_sentry_does()
        with watched(ThreadingInstrumentor):
            if ours_first:
                patch_as_sentry_does()
            with spans.span() as span:
                run(threading.Thread(target=lambda: seen_by_both.append(ids_seen())))
            monkeypatch.undo()
        assert seen_by_both == ["sentry", ids(span)]
