"""The simple processor: exports each span as it ends, on the thread that ended it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tracekit import _fork
from tracekit._ledger import tell_exported
from tracekit._own_work import suppressed
from tracekit.interfaces import ReadableSpan, SpanExporter, SpanProcessor
from tracekit.processors._fates import Fates, call_export, exporter_name, told_by

__all__ = ["SimpleSpanProcessor"]


class SimpleSpanProcessor(SpanProcessor):
    """Export each sampled span at once; for tests and for looking on, not for production.

    Concurrency: exports one span at a time. A span that the exporter itself makes while it
    exports is dropped, since exporting it would never end.
    Cost: the caller waits for the exporter.
    Source: https://opentelemetry.io/docs/specs/otel/trace/sdk/#simple-processor
    """

    def __init__(self, span_exporter: SpanExporter) -> None:
        self.span_exporter = span_exporter
        self._is_shut_down = False
        self._owns_exporter = True
        self.after_fork_in_child()
        _fork.on_fork_in_child(self)

    def after_fork_in_child(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._received = self._unsampled = 0
        self._fates = Fates()
        self._dropped: Counter[str] = Counter()

    def on_end(self, span: ReadableSpan) -> None:
        if self._owner == threading.get_ident():
            self._received += 1
            self._dropped["made_by_exporter"] += 1
            return
        with self._lock:
            self._owner = threading.get_ident()
            try:
                self._export(span)
            finally:
                self._owner = 0

    def _export(self, span: ReadableSpan) -> None:
        self._received += 1
        if self._is_shut_down:
            self._dropped["after_shutdown"] += 1
        elif not span.context.trace_flags.sampled:
            self._unsampled += 1
        else:
            self._call_export(span)

    def _call_export(self, span: ReadableSpan) -> None:
        begun = time.monotonic()
        with suppressed():
            outcome = call_export(self.span_exporter, (span,))
            self._fates.add(outcome)
            tell_exported(self.span_exporter, time.monotonic() - begun, outcome.reason)

    @property
    def exporters(self) -> tuple[SpanExporter, ...]:
        return (self.span_exporter,)

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self.span_exporter.force_flush(timeout_millis) is not False

    def shutdown(self, timeout_millis: int = 30_000) -> None:
        if not self._is_shut_down:
            self._is_shut_down = True
            try:
                self.force_flush(timeout_millis)
            finally:
                if self._owns_exporter:
                    self.span_exporter.shutdown()

    def spare(self, exporters: Sequence[SpanExporter]) -> None:
        """Leave the exporter running at shutdown if another processor goes on with it."""
        if any(self.span_exporter is part for part in exporters):
            self._owns_exporter = False

    def received(self) -> int:
        return self._received

    def stats(self) -> dict[str, Any]:
        exporter = self.span_exporter
        return {
            "processor": "simple",
            "received": self._received,
            "not_sampled": self._unsampled,
            "queued": 0,
            "dropped": {},
            "exporters": [
                {
                    "exporter": exporter_name(exporter),
                    "pending": 0,
                    "exporting": int(self._owner != 0),
                    "dropped": dict(self._dropped),
                    **self._fates.counts(),
                    **told_by(exporter),
                }
            ],
        }


plugin: type[SpanProcessor] = SimpleSpanProcessor
