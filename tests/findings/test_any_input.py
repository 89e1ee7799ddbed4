"""Whatever a trace looks like, findings neither raise nor recurse nor take for ever."""

from __future__ import annotations

import logging

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.trace import SpanKind, StatusCode

from tracekit.findings._critical_path import by_service
from tracekit.findings._ranking import find_all
from tracekit.testing import build_span
from tracekit.trace import traces_of

KEYS = [
    "http.request.method",
    "url.full",
    "server.address",
    "http.response.status_code",
    "http.request.resend_count",
    "db.system.name",
    "db.query.text",
    "db.query.summary",
    "db.response.status_code",
    "error.type",
    "rpc.method",
    "tracekit.pool.wait_s",
    "tracekit.timeout.total_s",
    "code.file.path",
    "code.line.number",
]
values = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=5),
    st.lists(st.integers(), max_size=3),
    st.sampled_from(["GET", "http://[", "SELECT a FROM b", "timeout", "503"]),
)
spans = st.builds(
    build_span,
    st.text(max_size=8),
    span_id=st.integers(1, 12),
    parent_id=st.one_of(st.none(), st.integers(1, 14)),
    parent_is_remote=st.booleans(),
    kind=st.sampled_from(SpanKind),
    start_time=st.integers(0, 2**62),
    duration_ns=st.integers(-(2**40), 2**62),
    attributes=st.dictionaries(st.sampled_from(KEYS), values, max_size=8),
    status=st.sampled_from(StatusCode),
    service_name=st.sampled_from(["a", "b", "", "▸\n"]),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(spans, min_size=1, max_size=15))
def test_nothing_raises_on_a_trace_of_any_shape(made) -> None:
    heard: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = heard.append
    logging.getLogger("tracekit").addHandler(handler)
    try:
        for trace in traces_of(made):
            for finding in find_all(trace):
                assert finding.message
                assert finding.advice
                assert 0 <= finding.share <= 1
                assert finding.cost_ns >= 0
                assert finding.spans
            assert all(part.duration_ns >= 0 for part in by_service(trace))
    finally:
        logging.getLogger("tracekit").removeHandler(handler)
    assert [record.getMessage() for record in heard] == []


HTTP = {"http.request.method": "GET", "url.full": "http://x/y", "error.type": "timeout"}


@pytest.mark.parametrize("depth", [10_000])
def test_a_deep_trace_is_no_recursion(depth: int) -> None:
    (trace,) = traces_of(
        build_span(
            "call",
            span_id=number,
            parent_id=number - 1 or None,
            start_time=number,
            end_time=10**6 - number,
            kind=SpanKind.CLIENT,
            attributes=HTTP,
            status=StatusCode.ERROR,
            service_name=f"s{number}",
        )
        for number in range(1, depth + 1)
    )
    assert "first_failure" in {item.kind for item in find_all(trace)}


def test_a_root_with_very_many_children_is_read() -> None:
    made = [build_span("root", span_id=1, start_time=0, end_time=10**10)]
    made += [
        build_span(
            "call",
            span_id=number,
            parent_id=1,
            start_time=number * 1000,
            duration_ns=900,
            kind=SpanKind.CLIENT,
            attributes={
                "db.system.name": "postgresql",
                "db.query.text": f"SELECT * FROM t WHERE id = {number % 100}",
            },
        )
        for number in range(2, 50_002)
    ]
    (trace,) = traces_of(made)
    (found,) = [item for item in find_all(trace) if item.kind == "redundant_calls"]
    assert "asked 500 times" in found.message
    assert len(found.spans) <= 500
