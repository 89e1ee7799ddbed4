"""What all exporters that speak to a server share: export, shutdown, counts and a probe."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

from tracekit.exporters._answer import Payload
from tracekit.exporters._transport import Delivery
from tracekit.interfaces import ExportOutcome, ReadableSpan, SpanExporter, SpanExportResult

__all__ = ["NetworkExporter"]

PROBE_TIMEOUT_S = 2.0


class NetworkExporter(SpanExporter):
    """Deliver batches, and tell afterwards what became of their spans.

    ``export`` is a success when every span that could be encoded was taken, or is kept on the
    disk to be sent later; ``force_flush`` is one when nothing of this process is kept any more.
    """

    name: str

    def __init__(
        self, name: str, delivery: Delivery, nothing: Payload, exports_at_once: int = 1
    ) -> None:
        """Set up without connecting.

        Args:
            nothing: A request without spans, which the destination takes when all is well.
            exports_at_once: Calls of ``export`` that may be under way, each with a request.
        """
        self.name = name
        self.exports_at_once = exports_at_once
        self._delivery = delivery
        self._nothing = nothing
        self._outcomes = threading.local()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not spans:
            self._outcomes.last = None
            return SpanExportResult.SUCCESS
        if self._delivery.is_stopped:
            self._outcomes.last = ExportOutcome(0, 0, {"after_shutdown": len(spans)})
            return SpanExportResult.FAILURE
        outcome = self._outcomes.last = self._delivery.deliver(spans)
        # A span that nobody can read is no reason to call the others lost.
        lost = outcome.lost - outcome.dropped.get("unreadable", 0)
        return SpanExportResult.FAILURE if lost else SpanExportResult.SUCCESS

    @property
    def keeps_spans(self) -> bool:
        """Whether there is a spool for what cannot be sent."""
        return self._delivery.keeps_spans

    def put_aside(self, spans: Sequence[ReadableSpan]) -> ExportOutcome | None:
        """Keep a batch on the disk; of one that is being exported, what is not settled yet.

        Returns:
            What became of it; None when there is no spool.
        """
        return self._delivery.put_aside(spans)

    def hurry(self) -> None:
        """Try each batch once from now on, and keep what fails: the process is about to end."""
        self._delivery.hurry()

    @property
    def last_outcome(self) -> ExportOutcome | None:
        """What became of the batch that this thread exported last."""
        return getattr(self._outcomes, "last", None)

    @property
    def destination(self) -> str:
        """Where spans go, as it may be shown to anybody."""
        return self._delivery.sender.destination

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what is kept on the disk; False when some of this process is still there.

        What other processes left is sent too, for a second at most.
        """
        return self._delivery.flush(timeout_millis / 1000)

    def shutdown(self) -> None:
        """Cut pauses short and refuse further batches; does not wait for one under way."""
        self._delivery.stop()

    def stats(self) -> dict[str, Any]:
        """Return what became of all spans, here and from the spool: see ``Delivery.stats``."""
        return self._delivery.stats()

    def probe(self) -> str | None:
        """Ask the destination, within 2 s; None when it takes spans, else a sentence why not."""
        return self._delivery.probe(self._nothing, PROBE_TIMEOUT_S)
