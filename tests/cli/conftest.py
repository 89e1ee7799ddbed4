"""A store with known traces, and the command line called in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from opentelemetry.trace import SpanKind, StatusCode

from tracekit.cli._group import group
from tracekit.store.writer import StoreWriter
from tracekit.testing import build_span

MS = 1_000_000
START = 1_700_000_000_000_000_000
SLOW, FAST = 0xAA << 120 | 1, 0xAB << 120 | 2
"""Trace ids: the slow checkout of 1 s with an error, and a fast one that began 10 s later."""

Tracekit = Callable[..., Result]


@pytest.fixture
def tracekit() -> Tracekit:
    """Call a command: ``tracekit("ls", "--json")``."""

    def call(*words: str, **options: Any) -> Result:
        return CliRunner().invoke(group, words, prog_name="tracekit", **options)

    return call


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "traces.db"
    writer = StoreWriter(path, max_age_s=1e12)
    writer.write([*_checkout(SLOW, START, 1000), *_checkout(FAST, START + 10_000 * MS, 100)])
    writer.close()
    return path


def _checkout(trace_id: int, start: int, whole_ms: int) -> list[Any]:
    """A shop calls payment, which takes all but 20 ms; slow payments fail."""
    fails = StatusCode.ERROR if whole_ms > 500 else StatusCode.UNSET
    return [
        build_span(
            "POST /checkout",
            trace_id=trace_id,
            span_id=1,
            kind=SpanKind.SERVER,
            start_time=start,
            duration_ns=whole_ms * MS,
            service_name="shop",
        ),
        build_span(
            "POST /pay",
            trace_id=trace_id,
            span_id=2,
            parent_id=1,
            parent_is_remote=True,
            kind=SpanKind.SERVER,
            start_time=start + 10 * MS,
            duration_ns=(whole_ms - 20) * MS,
            service_name="payment",
            status=fails,
            description="declined" if fails is StatusCode.ERROR else None,
        ),
    ]
