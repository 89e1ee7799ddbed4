"""Findings in the tables that the Collector writes into ClickHouse, whose engine runs here."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from cli.conftest import tracekit  # noqa: F401 - a fixture
from findings.made import NOISES, faulty
from sources.answering import Said, answering
from tracekit.model import SpanRecord
from tracekit.sources._opening import source_of

pytestmark = [pytest.mark.slow, pytest.mark.matrix_skip]

FAULTS = {
    "same_row_by_three": "redundant_calls",
    "retried_in_vain": "retries",
    "computes_in_the_loop": "blocked_loop",
    "waits_for_pool": "waiting",
}
SPANS = {
    fault: faulty(fault, 2, NOISES["none"], seed) for seed, fault in enumerate(FAULTS, start=20)
}
SINCE = "2023-11-14"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if importlib.util.find_spec("chdb") is None:
        pytest.skip("chdb is not installed")
    words = [sys.executable, "-m", "sources.clickhouse_server", tmp_path_factory.mktemp("ch")]
    with subprocess.Popen(
        words,
        cwd=Path(__file__).parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            url = f"http://127.0.0.1:{int(process.stdout.readline())}"
            rows = "\n".join(json.dumps(_row(span)) for each in SPANS.values() for span in each)
            requests.post(url, data=rows.encode(), timeout=20).raise_for_status()
            yield f"clickhouse:{url}/otel"
        finally:
            process.stdin.close()


def _row(span: SpanRecord) -> dict[str, Any]:
    """Return a span as the Collector's exporter writes it."""
    return {
        "Timestamp": _time(span.start_time),
        "TraceId": f"{span.context.trace_id:032x}",
        "SpanId": f"{span.context.span_id:016x}",
        "ParentSpanId": f"{span.parent.span_id:016x}" if span.parent else "",
        "TraceState": "",
        "SpanName": span.name,
        "SpanKind": span.kind.name.title(),
        "ServiceName": span.resource.attributes["service.name"],
        "ResourceAttributes": _texts(span.resource.attributes),
        "ScopeName": "made",
        "ScopeVersion": "1",
        "SpanAttributes": _texts(span.attributes),
        "Duration": (span.end_time or 0) - span.start_time,
        "StatusCode": span.status.status_code.name.title(),
        "StatusMessage": span.status.description or "",
        "Events.Timestamp": [_time(event.timestamp) for event in span.events],
        "Events.Name": [event.name for event in span.events],
        "Events.Attributes": [_texts(event.attributes) for event in span.events],
        "Links.TraceId": ["ab" * 16],
        "Links.SpanId": ["cd" * 8],
        "Links.TraceState": [""],
        "Links.Attributes": [{"why": "batch"}],
    }


def _time(ns: int) -> str:
    return f"{ns // 10**9}.{ns % 10**9:09d}"


def _texts(attributes: Any) -> dict[str, str]:
    return {key: str(value) for key, value in (attributes or {}).items()}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_trace_comes_back_as_it_was_written(url: str, fault: str) -> None:
    spans = SPANS[fault]
    source = source_of(url)
    found = {
        span.context.span_id: span for span in source.trace(f"{spans[0].context.trace_id:032x}")
    }
    assert len(found) == len(spans)
    for wanted in spans:
        span = found[wanted.context.span_id]
        for name in ("name", "kind", "start_time", "end_time"):
            assert getattr(span, name) == getattr(wanted, name)
        assert span.status.status_code is wanted.status.status_code
        assert span.status.description == wanted.status.description
        assert (span.parent and span.parent.span_id) == (wanted.parent and wanted.parent.span_id)
        assert _texts(span.attributes) == _texts(wanted.attributes)
        assert [
            (event.name, event.timestamp, _texts(event.attributes)) for event in span.events
        ] == [(event.name, event.timestamp, _texts(event.attributes)) for event in wanted.events]
        assert span.links[0].context.trace_id == int("ab" * 16, 16)
        assert (
            span.resource.attributes["service.name"] == (wanted.resource.attributes["service.name"])
        )
    assert source.remarks == []


@pytest.mark.parametrize("fault", FAULTS)
def test_the_same_is_found_as_in_the_spans_themselves(url, tracekit, fault: str) -> None:  # noqa: F811
    trace_id = f"{SPANS[fault][0].context.trace_id:032x}"
    done = tracekit("findings", trace_id, "--from", url, "--json")
    assert done.exit_code == 0, done.output
    assert FAULTS[fault] in {item["kind"] for item in json.loads(done.stdout)}


@pytest.mark.parametrize("service", ["orders", "auth"])
def test_recent_traces_of_a_service_come_whole(url, tracekit, service: str) -> None:  # noqa: F811
    words = ("findings", "--from", url, "--since", SINCE, "--service", service, "--json")
    found = {item["kind"] for item in json.loads(tracekit(*words).stdout)}
    assert "redundant_calls" in found
    assert ("waiting" in found) is (service == "orders")


@pytest.mark.parametrize("name", ["it's \\ a\ttab", "' OR 1=1 --"])
def test_what_is_asked_for_is_a_value_and_never_sql(url, tracekit, name: str) -> None:  # noqa: F811
    words = ("findings", "--from", url, "--since", SINCE, "--endpoint", name)
    done = tracekit(*words)
    assert done.exit_code == 1
    assert "has no such trace" in done.stderr


def test_a_database_without_the_table_is_said(url, tracekit) -> None:  # noqa: F811
    other = f"{url.removesuffix('otel')}system"
    done = tracekit("findings", "--from", other)
    assert done.exit_code == 1
    assert "answers 404: Code: 60" in done.stderr


def test_rows_before_a_failure_are_used_and_it_is_said(tracekit) -> None:  # noqa: F811
    rows = b'{"trace_id": "ab", "span_id": "cd", "name": "GET /", "start": "5", "duration": "7"}\n'
    said = Said(rows + b"Code: 241. DB::Exception: Memory limit exceeded\n")
    with answering(lambda _: said) as server:
        done = tracekit("findings", "--from", f"clickhouse:{server.url}")
    assert done.exit_code == 0
    assert "GET /  7 ns" in done.stdout
    assert "partial: a row is none: Code: 241. DB::Exception: Memory limit" in done.stderr
