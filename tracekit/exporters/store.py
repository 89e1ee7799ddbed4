"""Keep spans in the SQLite store on this machine."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from tracekit.errors import StoreError
from tracekit.exporters._readable import UnreadableSpanError, salvage
from tracekit.interfaces import ReadableSpan, SpanExporter, SpanExportResult
from tracekit.model import SpanRecord
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
        self._is_shut_down = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return self._guarded(spans, self._writer.write)

    def export_started(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Note spans that are under way; ``export`` replaces them when they have ended."""
        return self._guarded(spans, self._writer.write_started)

    def _guarded(
        self, spans: Sequence[ReadableSpan], write: Callable[[Iterable[Any]], list[Any]]
    ) -> SpanExportResult:
        if self._is_shut_down:
            return SpanExportResult.FAILURE
        try:
            refused = write(spans)
            if refused and write(self._salvaged(refused)):
                self._say("some spans could not be read and were not stored")
        except StoreError as error:
            self._failing = True
            self._say(str(error))
            return SpanExportResult.FAILURE
        if self._failing:
            self._failing = False
            _logger.warning("span store %s can be written again", self._writer.path)
        return SpanExportResult.SUCCESS

    def _salvaged(self, refused: list[Any]) -> Iterator[SpanRecord]:
        for span in refused:
            try:
                yield salvage(span)
            except UnreadableSpanError as error:
                self._say(f"a span was not stored: {error}")

    def _say(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            _logger.warning("%s", message)

    def shutdown(self) -> None:
        self._is_shut_down = True
        try:
            self._writer.close()
        except Exception:
            _logger.debug("the span store did not close cleanly", exc_info=True)


plugin: type[SpanExporter] = StoreExporter
