"""The simple processor: exports each span as it ends, on the thread that ended it."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from opentelemetry import context as context_api

from tracekit import _fork
from tracekit._ledger import tell_exported
from tracekit.interfaces import ReadableSpan, SpanExporter, SpanProcessor
from tracekit.processors._lane import call_export, suppressed_context

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
        self._received = self._exported = self._unsampled = 0
        self._failed: Counter[str] = Counter()
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
            reason = self._call_export(span)
            if reason:
                self._failed[reason] += 1
            else:
                self._exported += 1

    def _call_export(self, span: ReadableSpan) -> str:
        token = context_api.attach(suppressed_context())
        begun = time.monotonic()
        try:
            reason = call_export(self.span_exporter, (span,))
            tell_exported(self.span_exporter, time.monotonic() - begun, reason)
        finally:
            context_api.detach(token)
        return reason

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
                    "exporter": str(getattr(exporter, "name", None) or type(exporter).__name__),
                    "exported": self._exported,
                    "pending": 0,
                    "exporting": int(self._owner != 0),
                    "failed": dict(self._failed),
                    "dropped": dict(self._dropped),
                }
            ],
        }


plugin: type[SpanProcessor] = SimpleSpanProcessor
