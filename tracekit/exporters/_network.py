"""What all exporters that speak to a server share: export, shutdown, counts and a probe."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from tracekit.exporters._answer import Payload
from tracekit.exporters._transport import Delivery, ExportOutcome
from tracekit.interfaces import ReadableSpan, SpanExporter, SpanExportResult

__all__ = ["NetworkExporter"]

PROBE_TIMEOUT_S = 2.0


class NetworkExporter(SpanExporter):
    """Deliver batches, and tell afterwards what became of their spans.

    ``export`` is a success only when every span that could be encoded was taken.
    """

    name: str

    def __init__(self, name: str, delivery: Delivery, nothing: Payload) -> None:
        """Set up without connecting.

        Args:
            nothing: A request without spans, which the destination takes when all is well.
        """
        self.name = name
        self._delivery = delivery
        self._nothing = nothing
        self._outcomes = threading.local()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._delivery.is_stopped:
            return SpanExportResult.FAILURE
        if not spans:
            return SpanExportResult.SUCCESS
        outcome = self._outcomes.last = self._delivery.deliver(spans)
        # A span that nobody can read is no reason to call the others lost.
        lost = outcome.lost - outcome.dropped.get("unreadable", 0)
        return SpanExportResult.FAILURE if lost else SpanExportResult.SUCCESS

    @property
    def last_outcome(self) -> ExportOutcome | None:
        """What became of the batch that this thread exported last."""
        return getattr(self._outcomes, "last", None)

    @property
    def destination(self) -> str:
        """Where spans go, as it may be shown to anybody."""
        return self._delivery.sender.destination

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Nothing is held back between calls of ``export``."""
        return True

    def shutdown(self) -> None:
        """Cut pauses short and refuse further batches; does not wait for one under way."""
        self._delivery.stop()

    def stats(self) -> dict[str, Any]:
        """Return what became of all spans: sent, rejected, dropped by reason; and retries."""
        return self._delivery.stats()

    def probe(self) -> str | None:
        """Ask the destination, within 2 s; None when it takes spans, else a sentence why not."""
        return self._delivery.probe(self._nothing, PROBE_TIMEOUT_S)
