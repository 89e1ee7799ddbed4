"""Spans captured in memory, for promises that need no more."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tracekit.sdk import InMemorySpanExporter
from tracekit.testing import capture_spans


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    with capture_spans() as exporter:
        yield exporter
