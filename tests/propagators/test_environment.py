"""Environment variables as carrier, up to a real child process."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import TraceState

from tracekit.propagators._environment import (
    EnvironmentGetter,
    EnvironmentSetter,
    environment_with,
    variable_name,
)
from tracekit.propagators.tracecontext import TraceContextPropagator


@pytest.mark.parametrize(
    ("field", "name"),
    [
        ("traceparent", "TRACEPARENT"),
        ("tracestate", "TRACESTATE"),
        ("baggage", "BAGGAGE"),
        ("x-b3-traceid", "X_B3_TRACEID"),
        ("X-Amzn-Trace-Id", "X_AMZN_TRACE_ID"),
        ("1st", "_1ST"),
        ("a.b=c", "A_B_C"),
        ("\u00e9", "_"),
        ("", "_"),
    ],
)
def test_field_becomes_a_variable_name(field: str, name: str) -> None:
    assert variable_name(field) == name


def test_getter_reads_what_setter_writes(context_of: Any, span_context_in: Any) -> None:
    environment: dict[str, str] = {}
    state = TraceState([("a", "1")])
    TraceContextPropagator().inject(environment, context_of(state=state), EnvironmentSetter())
    assert set(environment) == {"TRACEPARENT", "TRACESTATE"}
    found = TraceContextPropagator().extract(environment, Context(), EnvironmentGetter())
    assert span_context_in(found).trace_state == state


def test_lower_case_variables_are_others() -> None:
    assert EnvironmentGetter().get({"traceparent": "x"}, "traceparent") is None


def test_keys_are_the_names_a_field_can_have() -> None:
    environment = {"TRACEPARENT": "", "path": "", "A-B": "", "_1": "", "1": ""}
    assert EnvironmentGetter().keys(environment) == ["TRACEPARENT", "_1"]


@pytest.mark.parametrize("value", ["a\0b", "x" * 40_000])
def test_value_that_no_environment_holds_is_left_out(value: str) -> None:
    environment: dict[str, str] = {}
    EnvironmentSetter().set(environment, "baggage", value)
    assert environment == {}


def test_copy_leaves_the_environment_as_it_is() -> None:
    before = dict(os.environ)
    copied = environment_with(os.environ, {"traceparent": "x"})
    assert copied == {**before, "TRACEPARENT": "x"}
    assert dict(os.environ) == before


def test_child_process_continues_the_trace(context_of: Any, span_context_in: Any) -> None:
    fields: dict[str, str] = {}
    TraceContextPropagator().inject(fields, context_of())
    program = (
        "import os; from opentelemetry.trace import get_current_span;"
        "from tracekit.propagators._environment import EnvironmentGetter;"
        "from tracekit.propagators.tracecontext import TraceContextPropagator as P;"
        "c = P().extract(os.environ, None, EnvironmentGetter());"
        "print(get_current_span(c).get_span_context().trace_id)"
    )
    environment = environment_with({**os.environ, "PYTHONPATH": os.getcwd()}, fields)
    out = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    ).stdout
    assert int(out) == span_context_in(context_of()).trace_id
    assert "TRACEPARENT" not in os.environ


def test_os_environ_itself_can_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEPARENT", f"00-{'a' * 32}-{'b' * 16}-01")
    found = TraceContextPropagator().extract(os.environ, Context(), EnvironmentGetter())
    assert trace.get_current_span(found).get_span_context().is_valid
