"""Keep spans in the SQLite store on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence

from tracekit.errors import StoreError
from tracekit.interfaces import ReadableSpan, SpanExporter, SpanExportResult
from tracekit.store.writer import DEFAULT_MAX_AGE_S, DEFAULT_MAX_BYTES, StoreWriter

__all__ = ["StoreExporter"]

_logger = logging.getLogger("tracekit")


class StoreExporter(SpanExporter):
    """Write each batch to the span store in one transaction.

    A store that cannot be written is said once for each cause, not once for each batch, and
    once more when it works again; its batches count as failed and the program runs on.

    Args:
        path: The store file; None for ``TRACEKIT_STORE`` or the user's state folder.
        max_bytes: Beyond it the oldest traces are removed.
        max_age_s: So are traces that got no span for longer.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_age_s: float = DEFAULT_MAX_AGE_S,
    ) -> None:
        self._writer = StoreWriter(path, max_bytes, max_age_s)
        self._said: set[str] = set()
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._guarded(spans, started=False)

    def export_started(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Note spans that are under way; ``export`` replaces them when they have ended."""
        return self._guarded(spans, started=True)

    def _guarded(self, spans: Sequence[ReadableSpan], started: bool) -> SpanExportResult:
        try:
            write = self._writer.write_started if started else self._writer.write
            refused = write(spans)
        except StoreError as error:
            self._say(str(error))
            return SpanExportResult.FAILURE
        if self._failing:
            self._failing = False
            _logger.warning("span store %s can be written again", self._writer.path)
        if refused:
            self._say(f"{refused} spans could not be read and were not stored")
        return SpanExportResult.FAILURE if refused else SpanExportResult.SUCCESS

    def _say(self, message: str) -> None:
        self._failing = True
        if message not in self._said:
            self._said.add(message)
            _logger.warning("%s", message)

    def shutdown(self) -> None:
        try:
            self._writer.close()
        except Exception:
            _logger.debug("the span store did not close cleanly", exc_info=True)


plugin: type[SpanExporter] = StoreExporter
