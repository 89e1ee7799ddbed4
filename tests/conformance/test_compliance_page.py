"""docs/reference/compliance.md and the tests stay in step."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = "docs/reference/compliance.md"
TESTS = Path(__file__).resolve().parent.parent

LINK = re.compile(r"\[([^\]]*)\]\([^)]*\)")
TEST = re.compile(r"`([\w/]+\.py)::(test_\w+)`")

MUST: dict[str, str] = {
    "Traces": """
        1 Create TracerProvider
        2 Get a Tracer
        3 Get a Tracer with schema_url
        4 Get a Tracer with scope attributes
        5 Associate Tracer with InstrumentationScope
        6 Safe for concurrent calls
        7 Shutdown (SDK only required)
        8 ForceFlush (SDK only required)
        9 Get active Span
        10 Set active Span
        11 Create a new Span
        12 Documentation defines adding attributes at span creation as preferred
        13 Get active Span
        14 Mark Span active
        15 Safe for concurrent calls
        16 IsValid
        17 IsRemote
        18 Conforms to the W3C TraceContext spec
        19 Support W3C Trace Context Level 2 randomness
        20 Create root span
        21 Create with default parent (active span)
        22 Create with parent from Context
        23 No explicit parent Span/SpanContext allowed
        24 SpanProcessor.OnStart receives parent Context
        25 UpdateName
        26 User-defined start timestamp
        27 End
        28 End with timestamp
        29 IsRecording
        30 IsRecording becomes false after End
        31 Set status with StatusCode (Unset, Ok, Error)
        32 Safe for concurrent calls
        33 events collection size limit
        34 attribute collection size limit
        35 links collection size limit
        36 SpanProcessor.OnEnding
        37 SetAttribute
        38 String type
        39 Boolean type
        40 Double floating-point type
        41 Signed int64 type
        42 Array of primitives (homogeneous)
        43 `null` values documented as invalid/undefined
        44 Unicode support for keys and string values
        45 Links can be recorded on span creation
        46 Links can be recorded after span creation
        47 Links order is preserved
        48 AddEvent
        49 Add order preserved
        50 Safe for concurrent calls
        51 RecordException
        52 RecordException with extra parameters
        53 Allow samplers to modify tracestate
        54 ShouldSample gets full parent Context
        56 New Span ID created also for non-recording Spans
        57 IdGenerators
        58 SpanLimits
        59 Built-in `SpanProcessor`s implement `ForceFlush` spec
        60 Attribute Limits
        61 Fetch InstrumentationScope from ReadableSpan
        64 Sampler: AlwaysRecord
    """,
    "Baggage": """
        1 Basic support
        2 Use official header name `baggage`
    """,
    "Resource": """
        1 Create from Attributes
        2 Create empty
        3 Merge (v2)
        4 Retrieve attributes
        5 Default value for service.name
        6 Resource detector interface/mechanism
        7 Resource detectors populate Schema URL
    """,
    "Context Propagation": """
        1 Create Context Key
        2 Get value from Context
        3 Set value for Context
        4 Attach Context
        5 Detach Context
        6 Get current Context
        7 Composite Propagator
        8 Global Propagator
        9 TraceContext Propagator
        10 B3 Propagator
        14 TextMapPropagator
        15 Fields
        16 Setter argument
        17 Getter argument
        18 Getter argument returning Keys
        19 Environment Variables as Context Propagation Carriers
    """,
    "Environment Variables": """
        1 OTEL_SDK_DISABLED
        2 OTEL_RESOURCE_ATTRIBUTES
        3 OTEL_SERVICE_NAME
        4 OTEL_LOG_LEVEL
        5 OTEL_PROPAGATORS
        6 OTEL_BSP_*
        8 OTEL_EXPORTER_OTLP_*
        10 OTEL_TRACES_EXPORTER
        13 OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT
        14 OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT
        15 OTEL_SPAN_EVENT_COUNT_LIMIT
        16 OTEL_SPAN_LINK_COUNT_LIMIT
        17 OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT
        18 OTEL_LINK_ATTRIBUTE_COUNT_LIMIT
        21 OTEL_TRACES_SAMPLER
        22 OTEL_TRACES_SAMPLER_ARG
        23 OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT
        24 OTEL_ATTRIBUTE_COUNT_LIMIT
    """,
    "Exporters": """
        1 Exporter interface
        2 Exporter interface has `ForceFlush`
        3 Standard output (logging)
        4 In-memory (mock exporter)
        6 OTLP/HTTP binary Protobuf Exporter
        7 OTLP/HTTP JSON Protobuf Exporter
        8 OTLP/HTTP gzip Content-Encoding support
        9 Enforces request size limit
        12 Honors retryable responses with backoff
        13 Honors non-retryable responses
        14 Honors throttling response
        15 Multi-destination spec compliance
        16 SchemaURL in ResourceSpans and ScopeSpans
        19 Honors the user agent spec
        21 Partial Success messages are handled and logged for OTLP/HTTP
        26 Zipkin V2 JSON
        28 Service name mapping
        29 SpanKind mapping
        30 InstrumentationLibrary mapping
        31 InstrumentationScope mapping
        32 Boolean attributes
        33 Array attributes
        34 Status mapping
        35 Error Status mapping
        36 Event attributes mapping to Annotations
        37 Integer microseconds in timestamps
    """,
    "SDK Self-Observability": """
        1 `otel.sdk.span.started`
        2 `otel.sdk.span.live`
        3 `otel.sdk.processor.span.queue.size`
        4 `otel.sdk.processor.span.queue.capacity`
        5 `otel.sdk.processor.span.processed`
        6 `otel.sdk.exporter.span.inflight`
        7 `otel.sdk.exporter.span.exported`
        8 `otel.sdk.metric_reader.collection.duration`
        9 `otel.sdk.exporter.operation.duration`
    """,
}
"""Rows of the specification's matrix that must be there, by section: number and name.

Zipkin's are among them, since that exporter is.
"""

NOT_OURS = {("SDK Self-Observability", 8)}
"""A metric reader is part of the metrics SDK, which tracekit leaves to whoever provides one."""


class Row(NamedTuple):
    section: str
    number: int
    feature: str
    status: str
    test: str


@cache
def rows() -> tuple[Row, ...]:
    return tuple(_rows((TESTS.parent / PAGE).read_text(encoding="utf-8")))


def _rows(page: str) -> Iterator[Row]:
    section = ""
    for line in page.splitlines():
        if line.startswith("## "):
            section = line[3:]
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and cells[0].isdecimal():
            number, feature, status, test = cells
            yield Row(section, int(number), LINK.sub(r"\1", feature), status, test.strip("| "))


def required() -> Iterator[tuple[str, int, str]]:
    for section, names in MUST.items():
        for line in names.split("\n"):
            number, _, name = line.strip().partition(" ")
            if number:
                yield section, int(number), name


@cache
def functions_in(file: str) -> frozenset[str]:
    """Return the names of the test functions in a file below tests/."""
    path = TESTS / file
    if not path.is_file():
        return frozenset()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = (node for node in tree.body if isinstance(node, ast.FunctionDef))
    return frozenset(node.name for node in functions if node.name.startswith("test_"))


def test_the_page_is_read() -> None:
    assert len(rows()) > 150
    assert len({(row.section, row.number) for row in rows()}) == len(rows())


@pytest.mark.parametrize(("section", "number", "name"), list(required()))
def test_what_must_be_there_is_on_the_page_with_its_test(
    section: str, number: int, name: str
) -> None:
    (row,) = [row for row in rows() if (row.section, row.number) == (section, number)]
    assert row.feature == name
    if (section, number) in NOT_OURS:
        assert row.status.startswith("delegated: ")
    else:
        assert row.status.partition(":")[0] == "yes"
        assert row.test


def test_each_status_is_one_of_three_and_is_explained_when_it_is_not_yes() -> None:
    for row in rows():
        word, _, reason = row.status.partition(": ")
        assert word in ("yes", "delegated", "no"), row
        assert reason or word == "yes", row


def test_each_test_that_is_named_exists() -> None:
    missing = []
    for row in rows():
        named = TEST.fullmatch(row.test)
        if row.test and (named is None or named[2] not in functions_in(named[1])):
            missing.append(f"{row.section} {row.number}: {row.test}")
    assert missing == []


def test_whatever_is_built_in_has_a_test() -> None:
    assert [row for row in rows() if row.status.startswith("yes") and not row.test] == []


def test_no_conformance_test_is_without_its_clause() -> None:
    """Each docstring says the clause and links to it."""
    without = []
    for path in sorted((TESTS / "conformance").glob("test_*.py")):
        if path == Path(__file__):
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
                continue
            if "https://" not in (ast.get_docstring(node) or ""):
                without.append(f"{path.name}::{node.name}")
    assert without == []
