"""One program under opentelemetry-sdk and under tracekit: the same spans reach a receiver."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import opentelemetry.sdk.resources
import opentelemetry.sdk.trace
import opentelemetry.sdk.trace.export
import opentelemetry.sdk.trace.sampling
import pytest
from opentelemetry import propagate
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

import tracekit.exporters.otlp
import tracekit.sdk
from integration.normal_form import normal_form
from integration.otlp_receiver import Receiver, receiving
from integration.programs import failures, flows, settings, spans, values  # noqa: F401 -- listed
from integration.programs.catalogue import PROGRAMS, Program, World
from integration.programs.explained import EXPLAINED, Explained
from tracekit.propagators._composite import CompositePropagator
from tracekit.propagators.baggage import BaggagePropagator
from tracekit.propagators.tracecontext import TraceContextPropagator

SDK = SimpleNamespace(
    **{
        name: value
        for module in (
            opentelemetry.sdk.trace,
            opentelemetry.sdk.trace.export,
            opentelemetry.sdk.trace.sampling,
            opentelemetry.sdk.resources,
        )
        for name, value in vars(module).items()
        if not name.startswith("_")
    }
)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        yield


def run_with_sdk(program: Program, endpoint: str) -> Any:
    return _run(program, SDK, OTLPSpanExporter(endpoint=endpoint))


def run_with_tracekit(program: Program, endpoint: str) -> Any:
    before = propagate.get_global_textmap()
    propagate.set_global_textmap(
        CompositePropagator([TraceContextPropagator(), BaggagePropagator()])
    )
    try:
        return _run(program, tracekit.sdk, tracekit.exporters.otlp.OTLPSpanExporter(endpoint))
    finally:
        propagate.set_global_textmap(before)


def _run(program: Program, names: Any, exporter: Any) -> Any:
    with environment(program.environment):
        options = program.options(names)
        provider = names.TracerProvider(shutdown_on_exit=False, **options)
        provider.add_span_processor(names.BatchSpanProcessor(exporter))
        try:
            return program.run(World(provider, names))
        finally:
            provider.force_flush()
            provider.shutdown()


@pytest.mark.filterwarnings("ignore::DeprecationWarning:opentelemetry")
@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.name)
def test_the_same_program_exports_the_same_spans(program: Program, receiver: Receiver) -> None:
    expected = _arrived(receiver, run_with_sdk(program, receiver.endpoint))
    assert _arrived(receiver, run_with_tracekit(program, receiver.endpoint)) == expected


@pytest.mark.parametrize("explained", EXPLAINED, ids=lambda each: each.run.__name__)
def test_a_difference_is_the_one_that_is_explained(
    explained: Explained, receiver: Receiver, repository: Path
) -> None:
    program = Program(explained.run, explained.environment, lambda names: {})
    assert run_with_sdk(program, receiver.endpoint) == explained.with_sdk
    assert run_with_tracekit(program, receiver.endpoint) == explained.with_tracekit
    page = (repository / "docs" / "how-to" / "move-from-opentelemetry-sdk.md").read_text("utf-8")
    assert f"| {explained.title} |" in page


def _arrived(receiver: Receiver, returned: Any) -> dict[str, Any]:
    form = normal_form(receiver.joined(), returned)
    receiver.requests.clear()
    return form


def test_there_are_enough_programs_to_cover_the_api() -> None:
    names = [program.name for program in PROGRAMS]
    assert len(names) == len(set(names))
    assert len(names) >= 30


def test_the_environment_of_a_program_ends_with_it() -> None:
    with environment({"OTEL_SERVICE_NAME": "inside"}):
        assert os.environ["OTEL_SERVICE_NAME"] == "inside"
    assert "OTEL_SERVICE_NAME" not in os.environ
