"""Keep ended spans in memory, for tests to look at."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from threading import Lock

from tracekit.interfaces import ReadableSpan, SpanExporter, SpanExportResult

__all__ = ["InMemorySpanExporter"]

DEFAULT_MAX_SPANS = 100_000


class InMemorySpanExporter(SpanExporter):
    """Hold the newest ``max_spans`` ended spans; the older ones are counted in ``dropped``.

    Concurrency: every method, from any thread.
    """

    def __init__(self, max_spans: int | None = DEFAULT_MAX_SPANS) -> None:
        """Args: max_spans: None holds everything, for as long as the memory lasts."""
        self.dropped = 0
        self._spans: deque[ReadableSpan] = deque(maxlen=max_spans)
        self._lock = Lock()
        self._stopped = False

    def get_finished_spans(self) -> tuple[ReadableSpan, ...]:
        """Return the spans held, in the order in which they ended."""
        with self._lock:
            return tuple(self._spans)

    def clear(self) -> None:
        """Forget the spans held, and how many were dropped."""
        with self._lock:
            self._spans.clear()
            self.dropped = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._stopped:
            return SpanExportResult.FAILURE
        with self._lock:
            held = len(self._spans) + len(spans)
            self._spans.extend(spans)
            self.dropped += held - len(self._spans)
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Take no more spans; those held stay readable."""
        self._stopped = True


plugin: type[SpanExporter] = InMemorySpanExporter
