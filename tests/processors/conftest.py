"""Batch processors that are shut down after the test, whatever hangs in them."""

from __future__ import annotations

import pytest

from processors.doubles import Hanging
from tracekit.sdk import BatchSpanProcessor


@pytest.fixture
def make_processor():
    made = []

    def make(*exporters, **options):
        options.setdefault("schedule_delay_millis", 60_000)
        processor = BatchSpanProcessor(list(exporters), **options)
        made.append((processor, exporters))
        return processor

    yield make
    for processor, exporters in made:
        for exporter in exporters:
            if isinstance(exporter, Hanging):
                exporter.may_go_on.set()
        processor.shutdown(2_000)
