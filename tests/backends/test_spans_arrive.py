"""Real servers: what is sent to each comes back from its own query API, field by field.

``make backends`` fetches the servers; a test whose server is not there is skipped and says why.
"""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanContext, TraceFlags

from backends.everything import NOT_FINITE, SHORT, everything
from backends.normal import differences
from backends.running import until
from backends.started import NAMES, started
from backends.where import NotThereError
from exporters.made import HOSTILE_SPANS, BrokenSpan
from tracekit import discovery
from tracekit.interfaces import SpanExportResult
from tracekit.model import SpanRecord
from tracekit.store.reader import StoreReader

pytestmark = [pytest.mark.slow, pytest.mark.matrix_skip]

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, str(ROOT / "examples" / "slow_checkout" / "run.py")]
PATIENCE_S = 20

Send = Callable[..., list[list[SpanRecord]]]
_numbers = itertools.count(1)

PROTOCOLS = [
    (name, protocol)
    for name in NAMES
    for protocol in importlib.import_module(f"backends.{name}").PROTOCOLS
]


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    with started(NAMES, tmp_path_factory.mktemp("backends")) as running:
        yield running


def server_of(servers: dict[str, Any], name: str) -> Any:
    if isinstance(servers[name], NotThereError):
        pytest.skip(str(servers[name]))
    return servers[name]


@pytest.fixture(scope="module")
def demo(servers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> list[SpanRecord]:
    """Run the demo once, its spans sent to every server and to the store; return the store's."""
    there = [each for each in servers.values() if not isinstance(each, NotThereError)]
    folder = tmp_path_factory.mktemp("demo")
    env = {**os.environ, "TMPDIR": str(folder)}
    for server in there:
        env |= server.variables
    to = ",".join(server.exporter for server in there)
    done = subprocess.run(
        [*DEMO, "--to", to], env=env, capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (store,) = folder.glob("*/traces.db")
    with StoreReader(store) as reader:
        spans = [span for each in reader.traces(10) for span in reader.trace(each.trace_id)]
    assert len({span.context.trace_id for span in spans}) == 3
    assert len({span.resource.attributes["service.name"] for span in spans}) == 5
    return spans


def of_another_trace(spans: list[SpanRecord], trace_id: int) -> list[SpanRecord]:
    """Return the spans as a trace of their own, so that a server can be sent them again."""

    def moved(context: Any) -> Any:
        return context and type(context)(
            trace_id, context.span_id, context.is_remote, context.trace_flags, context.trace_state
        )

    return [replace(span, context=moved(span.context), parent=moved(span.parent)) for span in spans]


def assert_arrived(server: Any, spans: list[SpanRecord]) -> None:
    """Wait until a trace is there, and compare its spans one by one."""
    trace_id = spans[0].context.trace_id
    expected = {each["span_id"]: each for each in map(server.expected, spans)}
    until(lambda: len(server.found(trace_id)) >= len(spans), PATIENCE_S)
    found = server.found(trace_id)
    assert sorted(each["span_id"] for each in found) == sorted(expected)
    wrong = differences(expected, {each["span_id"]: each for each in found})
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", NAMES)
def test_the_traces_of_the_demo_arrive(
    servers: dict[str, Any], demo: list[SpanRecord], name: str
) -> None:
    server = server_of(servers, name)
    for trace_id in {span.context.trace_id for span in demo}:
        assert_arrived(server, [span for span in demo if span.context.trace_id == trace_id])


@pytest.fixture
def send(servers: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Send:
    """Send traces to a server, each as a trace of its own; return what was sent."""

    def sent(
        name: str, protocol: str, *traces: list[SpanRecord], is_moved: bool = True
    ) -> list[list[SpanRecord]]:
        server = server_of(servers, name)
        for key, value in server.variables.items():
            monkeypatch.setenv(key, value)
        exporter = discovery.find("exporter", server.exporter)(**server.arguments(protocol))
        moved = [
            of_another_trace(spans, spans[0].context.trace_id ^ next(_numbers) << 32)
            if is_moved
            else spans
            for spans in traces
        ]
        for spans in moved:
            assert exporter.export(spans) is SpanExportResult.SUCCESS
        exporter.shutdown()
        assert exporter.stats()["sent"] == sum(map(len, moved))
        return moved

    return sent


@pytest.mark.parametrize(("name", "protocol"), PROTOCOLS)
def test_all_that_a_span_can_hold_arrives(
    servers: dict[str, Any], send: Send, name: str, protocol: str
) -> None:
    for spans in send(name, protocol, everything(), SHORT, NOT_FINITE):
        assert_arrived(servers[name], spans)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_more_than_one_request_may_hold_arrives_in_several(
    servers: dict[str, Any], send: Send, protocol: str
) -> None:
    # A gRPC server takes 4 MiB at once unless it is told otherwise, and so does the Collector.
    large = [
        replace(span, attributes={"large": "x" * 1_500_000})
        for span in everything()
        if span.name in ("fails", "calls", "answers", "sends")
    ]
    (spans,) = send("collector", protocol, large)
    assert_arrived(servers["collector"], spans)


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("collector", "http/protobuf"),
        ("datadog", "v0.4"),
        ("honeycomb", "http/protobuf"),
        ("jaeger", "http/protobuf"),
        ("zipkin", "v2 json"),
    ],
)
def test_hostile_spans_are_taken_and_cost_no_other(
    servers: dict[str, Any], send: Send, name: str, protocol: str
) -> None:
    server, trace_id = server_of(servers, name), 0x1BAD << 64 | next(_numbers)
    hostile = [
        of_ids(span, trace_id, number) for number, span in enumerate(HOSTILE_SPANS.values(), 1)
    ]
    send(name, protocol, hostile, is_moved=False)
    expected = [f"{number:016x}" for number in range(1, len(hostile) + 1)]
    until(lambda: len(server.found(trace_id)) >= len(hostile), PATIENCE_S)
    assert sorted(each["span_id"] for each in server.found(trace_id)) == expected


def of_ids(span: Any, trace_id: int, span_id: int) -> Any:
    context = SpanContext(trace_id, span_id, False, TraceFlags(1))
    if isinstance(span, BrokenSpan):
        return BrokenSpan(replace(span._span, context=context), *span._broken)
    return replace(span, context=context)


def test_datadogs_own_checks_find_nothing(servers: dict[str, Any], send: Send) -> None:
    send("datadog", "v0.4", everything())
    made = servers["datadog"].passed()
    assert {name for name, results in made.items() if results["Passed_Checks"]} >= {
        "meta_events_is_valid_json",
        "meta_tracer_version_header",
        "trace_content_length",
        "trace_count_header",
    }
    assert servers["datadog"].failures() == ""


def test_datadog_is_told_on_the_root_what_is_true_of_the_chunk(
    servers: dict[str, Any], send: Send
) -> None:
    (spans,) = send("datadog", "v0.4", everything())
    trace_id = spans[0].context.trace_id
    told = {
        span["span_id"]: (span["meta"].get("_dd.p.tid"), span["metrics"]["_sampling_priority_v1"])
        for span in servers["datadog"].spans(trace_id)
        if "_sampling_priority_v1" in span["metrics"]
    }
    assert told == {spans[0].context.span_id: (f"{trace_id >> 64:016x}", 1.0)}


def test_honeycomb_takes_a_classic_key_with_its_dataset(
    servers: dict[str, Any], send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONEYCOMB_DATASET", "shop")
    monkeypatch.setitem(servers["honeycomb"].variables, "HONEYCOMB_API_KEY", "0123456789abcdef" * 2)
    (spans,) = send("honeycomb", "http/protobuf", everything())
    assert_arrived(servers["honeycomb"], spans)
