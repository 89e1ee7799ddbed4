"""What `tracekit_pytest` does when it is used: spans of a test captured, a trace for each test."""

from __future__ import annotations

import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import Span, Status, StatusCode

from tracekit import semconv, settings
from tracekit.captured import CapturedSpans, Recording
from tracekit.configure import configure, current_provider, forget
from tracekit.exporters._readable import salvage
from tracekit.exporters._tree import render_tree

__all__ = ["TestTrace", "finish", "spans_of_test", "trace_of_test"]

SCOPE = "tracekit.pytest"
# https://opentelemetry.io/docs/specs/semconv/registry/attributes/test/
CASE_NAME = "test.case.name"
CASE_RESULT = "test.case.result.status"
SUITE_NAME = "test.suite.name"
HEADING = "trace of this test"
_LEAST_WIDTH = 60


class _Session:
    """Whether this plugin set tracing up, and so has to take it down."""

    configured = False


_session = _Session()


class TestTrace:
    """The spans of one test while it runs."""

    __test__ = False  # pytest takes classes of this name for tests

    def __init__(self, recording: Recording, root: Span | None = None) -> None:
        self.recording = recording
        self.root = root
        self.spans = CapturedSpans(recording, SCOPE)

    @contextmanager
    def current_in(self, item: Any) -> Iterator[None]:
        """Make the test's span current in a coroutine too.

        The loop of an asynchronous test may be older than the test, and runs everything in the
        context of that time.
        """
        function = getattr(item, "obj", None)
        if self.root is None or not inspect.iscoroutinefunction(function):
            yield
            return
        item.obj = _under(self.root, function)
        try:
            yield
        finally:
            item.obj = function

    def tell(self, report: Any, call: Any) -> None:
        """Note how a phase of the test went; a failed one gets the trace printed."""
        if self.root is not None:
            self._note(self.root, report, call)
        if report.failed and (tree := self._tree()):
            report.sections.append((HEADING, tree))

    def _note(self, root: Span, report: Any, call: Any) -> None:
        if report.failed:
            root.set_attribute(CASE_RESULT, "fail")
            root.record_exception(call.excinfo.value)
            root.set_status(Status(StatusCode.ERROR, f"{report.when} failed"))
        elif report.when == "call" and report.passed:
            root.set_attribute(CASE_RESULT, "pass")

    def _tree(self) -> str:
        """Return the trace as it is now: what is under way looks as if it ended here."""
        now = time.time_ns()
        under_way = [replace(salvage(span), end_time=now) for span in self.recording.open]
        spans = [*self.recording.ended, *under_way]
        if len(spans) <= (self.root is not None):
            return ""  # nothing but the test itself
        return render_tree(spans, color=False, width=max(_LEAST_WIDTH, _width()))


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def _under(span: Span, function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def test(*args: Any, **kwargs: Any) -> Any:
        with trace_api.use_span(span, record_exception=False, set_status_on_exception=False):
            return await function(*args, **kwargs)

    return test


@contextmanager
def spans_of_test(item: Any, key: Any) -> Iterator[CapturedSpans]:
    """Capture the spans of a test, and forget them at its end.

    Where the program has configured tracekit already, its exporters get them as well; otherwise
    nobody else does.
    """
    known = item.stash.get(key, None)
    if known is not None:
        yield known.spans
        return
    with _recorded(exporters="none") as recording:
        item.stash[key] = TestTrace(recording)
        try:
            yield item.stash[key].spans
        finally:
            del item.stash[key]


@contextmanager
def trace_of_test(item: Any, key: Any, alone: bool) -> Iterator[None]:
    """Run a test under a span of its own, the root of a new trace.

    Args:
        alone: Not all tests are traced: what was set up for this one is taken down after it.
    """
    _configure_for_session()
    with _recorded() as recording:
        tracer = trace_api.get_tracer(SCOPE)
        root = tracer.start_span(item.nodeid, Context(), attributes=_attributes(item))
        item.stash[key] = TestTrace(recording, root)
        try:
            with trace_api.use_span(root, record_exception=False, set_status_on_exception=False):
                yield
        finally:
            del item.stash[key]
            root.end()
    if alone:
        finish()


def _attributes(item: Any) -> dict[str, Any]:
    path, line, _ = item.location
    found: dict[str, Any] = {
        CASE_NAME: item.name,
        SUITE_NAME: item.nodeid.partition("::")[0],
        semconv.CODE_FILE_PATH: str(path),
    }
    if line is not None:
        found[semconv.CODE_LINE_NUMBER] = line + 1
    return found


@contextmanager
def _recorded(**when_nobody_has: Any) -> Iterator[Recording]:
    """Record spans of the provider that is there, or of one that is set up for the while."""
    recording = Recording()
    provider = current_provider()
    is_ours = provider is None or not provider.span_processors
    if is_ours:
        provider = configure(processors=[recording], **when_nobody_has)
    elif provider is not None:
        provider.add_span_processor(recording)
    try:
        yield recording
    finally:
        if is_ours:
            forget()
        elif provider is not None and recording in provider.span_processors:
            others = [part for part in provider.span_processors if part is not recording]
            provider.reconfigure(others)


def _configure_for_session() -> None:
    """Set tracing up as the environment says, unless the program has: once, not for each test."""
    provider = current_provider()
    if provider is not None and provider.span_processors:
        return
    configure(None if "service_name" in settings.load({}) else "pytest")
    _session.configured = True


def finish() -> None:
    """Flush and undo what was set up for the whole run."""
    if _session.configured:
        _session.configured = False
        forget()
