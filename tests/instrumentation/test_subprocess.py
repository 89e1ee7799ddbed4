"""A child program finds the current span in its environment, and nothing else is changed."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import subprocess
import sys
from collections import UserDict
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import baggage, context, propagate
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    TraceFlags,
    TraceState,
    set_span_in_context,
)

from instrumentation.carried import Spans, entries, ids, watched
from tracekit.instrumentation.subprocess import SubprocessInstrumentor

pytestmark = pytest.mark.usefixtures("instrumented")

PROGRAM = "import os, json; print(json.dumps(dict(os.environ)))"
CHILD = [sys.executable, "-S", "-c", PROGRAM]
SHELL = f'{sys.executable} -S -c "{PROGRAM}"'
OTHER = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture
def instrumented() -> Iterator[None]:
    with watched(SubprocessInstrumentor):
        yield


@pytest.fixture
def spans() -> Spans:
    return Spans()


def environment_of(env: Any = None, **options: Any) -> dict[str, str]:
    found: dict[str, str] = json.loads(subprocess.check_output(CHILD, env=env, **options))
    return found


def traceparent(span: Span) -> str:
    trace_id, span_id = ids(span)
    return f"00-{trace_id:032x}-{span_id:016x}-{span.get_span_context().trace_flags:02x}"


def read_and_close(pipe: Any) -> str:
    with pipe:
        return str(pipe.read())


def test_a_child_finds_the_current_span(spans: Spans) -> None:
    with spans.span() as span:
        assert environment_of()["TRACEPARENT"] == traceparent(span)


def test_nothing_is_written_outside_a_span() -> None:
    assert "TRACEPARENT" not in environment_of()


@pytest.mark.parametrize(
    "start",
    [
        lambda: subprocess.run(CHILD, capture_output=True, check=True).stdout,
        lambda: subprocess.check_output(SHELL, shell=True),
        lambda: subprocess.getoutput(SHELL),
        lambda: subprocess.Popen(CHILD, stdout=subprocess.PIPE).communicate()[0],
        lambda: read_and_close(os.popen(SHELL)),
    ],
    ids=["run", "shell", "getoutput", "Popen", "os.popen"],
)
def test_everything_built_on_popen_tells_its_child(spans: Spans, start: Any) -> None:
    with spans.span() as span:
        assert json.loads(start())["TRACEPARENT"] == traceparent(span)


@pytest.mark.parametrize("uvloop", [False, True])
@pytest.mark.parametrize("shell", [False, True])
def test_subprocesses_of_an_event_loop_are_told(spans: Spans, uvloop: bool, shell: bool) -> None:
    async def main() -> None:
        with spans.span() as span:
            process = await (
                asyncio.create_subprocess_shell(SHELL, stdout=subprocess.PIPE)
                if shell
                else asyncio.create_subprocess_exec(*CHILD, stdout=subprocess.PIPE)
            )
            output, _ = await process.communicate()
        assert json.loads(output)["TRACEPARENT"] == traceparent(span)

    loop = pytest.importorskip("uvloop").new_event_loop() if uvloop else asyncio.new_event_loop()
    try:
        loop.run_until_complete(main())
    finally:
        loop.close()


def test_the_callers_mapping_is_copied_and_not_changed(spans: Spans) -> None:
    env = {**os.environ, "MINE": "1"}
    before = dict(env)
    with spans.span() as span:
        seen = environment_of(env)
    assert env == before
    assert (seen["MINE"], seen["TRACEPARENT"]) == ("1", traceparent(span))


def test_the_environment_of_this_process_is_not_changed(spans: Spans) -> None:
    before = dict(os.environ)
    with spans.span():
        environment_of()
        environment_of(os.environ)
    assert dict(os.environ) == before


@pytest.mark.parametrize("make", [UserDict, dict, lambda pairs: os.environ])
def test_any_mapping_may_be_the_environment(spans: Spans, make: Any) -> None:
    with spans.span() as span:
        assert environment_of(make(dict(os.environ)))["TRACEPARENT"] == traceparent(span)


def test_an_environment_of_bytes_is_written_too(spans: Spans) -> None:
    with spans.span() as span:
        seen = environment_of({b"MINE": b"1"})
    assert (seen["MINE"], seen["TRACEPARENT"]) == ("1", traceparent(span))


def test_an_environment_given_by_position_is_written_too(spans: Spans) -> None:
    with spans.span() as span:
        process = subprocess.Popen(
            CHILD, -1, None, None, subprocess.PIPE, None, None, True, False, None, {"MINE": "1"}
        )
        seen = json.loads(process.communicate()[0])
    assert (seen["MINE"], seen["TRACEPARENT"]) == ("1", traceparent(span))


@pytest.mark.parametrize("name", ["TRACEPARENT", b"TRACEPARENT"])
def test_a_span_chosen_by_the_caller_is_left_alone(spans: Spans, name: Any) -> None:
    chosen: Any = {name: OTHER if isinstance(name, str) else OTHER.encode()}
    with spans.span():
        seen = environment_of(chosen)
    assert seen["TRACEPARENT"] == OTHER
    assert "TRACESTATE" not in seen


def test_a_span_inherited_from_our_own_parent_is_replaced(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`env=os.environ.copy()` repeats what we were started with, which is no choice."""
    monkeypatch.setenv("TRACEPARENT", OTHER)
    monkeypatch.setenv("TRACESTATE", "old=1")
    with spans.span() as span:
        for env in (None, os.environ.copy()):
            seen = environment_of(env)
            assert seen["TRACEPARENT"] == traceparent(span)
            assert "TRACESTATE" not in seen


def test_trace_state_and_baggage_go_along() -> None:
    span_context = SpanContext(1, 2, False, TraceFlags(1), TraceState([("vendor", "x")]))
    here = baggage.set_baggage(
        "tenant", "acme", set_span_in_context(NonRecordingSpan(span_context))
    )
    token = context.attach(here)
    try:
        seen = environment_of()
        kept = environment_of({"BAGGAGE": "mine=1"})
    finally:
        context.detach(token)
    assert (seen["TRACESTATE"], seen["BAGGAGE"]) == ("vendor=x", "tenant=acme")
    assert (kept["TRACESTATE"], kept["BAGGAGE"]) == ("vendor=x", "mine=1")


def test_suppression_is_honoured(spans: Spans) -> None:
    with spans.span():
        token = context.attach(context.set_value("suppress_instrumentation", True))
        try:
            assert "TRACEPARENT" not in environment_of()
        finally:
            context.detach(token)


@pytest.mark.parametrize("env", [["A=1"], [("A", "1")], 7, {"A": 1}, {"A\0": "1"}, {7: "x"}])
def test_a_wrong_environment_fails_as_before(spans: Spans, env: Any) -> None:
    process: Any = vars(subprocess.Popen)["__init__"].__wrapped__
    with pytest.raises((TypeError, AttributeError, ValueError)) as plain:
        process(bare_popen(), CHILD, env=env)
    with spans.span(), pytest.raises(type(plain.value)) as seen:
        subprocess.Popen(CHILD, env=env)
    assert str(seen.value) == str(plain.value)


def bare_popen() -> subprocess.Popen[bytes]:
    return subprocess.Popen.__new__(subprocess.Popen)


def test_a_program_that_does_not_exist_fails_as_before(spans: Spans) -> None:
    with spans.span(), pytest.raises(FileNotFoundError) as error:
        subprocess.Popen(["/does/not/exist"])
    assert error.value.filename == "/does/not/exist"


@pytest.mark.parametrize("value", ["zero\0byte", "lone \ud800 surrogate", "ünicode", "new\nline"])
def test_a_header_that_no_environment_can_hold_is_left_out(
    spans: Spans, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    def inject(carrier: dict[str, str], *_: Any) -> None:
        carrier.update({"x-bad": value, "x-good": "1"})

    monkeypatch.setattr(propagate, "inject", inject)
    with spans.span():
        seen = environment_of()
    assert seen["X_GOOD"] == "1"
    assert "X_BAD" not in seen


def test_a_propagator_that_fails_changes_nothing(
    spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    def inject(carrier: dict[str, str], *_: Any) -> None:
        carrier["traceparent"] = "half"
        raise RuntimeError("propagator")

    monkeypatch.setattr(propagate, "inject", inject)
    with spans.span():
        assert "TRACEPARENT" not in environment_of()


class TestWithoutInstrumentation:
    @pytest.fixture
    def instrumented(self) -> None:
        """Leave subprocess alone."""

    def test_undoing_leaves_the_very_same_functions(self) -> None:
        before = (entries(subprocess.Popen), entries(asyncio), entries(asyncio.subprocess))
        signature = inspect.signature(subprocess.Popen)
        with watched(SubprocessInstrumentor, SubprocessInstrumentor):
            assert entries(subprocess.Popen) != before[0]
            assert inspect.signature(subprocess.Popen) == signature
        assert (entries(subprocess.Popen), entries(asyncio), entries(asyncio.subprocess)) == before

    def test_it_can_be_switched_off(self, spans: Spans) -> None:
        with watched(SubprocessInstrumentor, subprocess_env=False), spans.span():
            assert "TRACEPARENT" not in environment_of()

    def test_an_option_that_does_not_exist_is_refused(self) -> None:
        with pytest.raises(TypeError, match="instrumentation 'subprocess' has no option 'envs'"):
            SubprocessInstrumentor().instrument(envs=True)
