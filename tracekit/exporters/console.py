"""Print traces to the console: each as a tree, as soon as its local root has ended."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from threading import Lock
from time import monotonic
from typing import Any

from tracekit.exporters._held_traces import HeldTraces
from tracekit.exporters._terminal import Terminal
from tracekit.exporters._tree import render_tree
from tracekit.interfaces import ReadableSpan, SpanExporter, SpanExportResult

__all__ = ["ConsoleSpanExporter"]

MAX_LINES = 1_000
"""Of one tree; the rest is counted."""


class ConsoleSpanExporter(SpanExporter):
    """Show traces while the program runs: a tree when a local root has ended.

    Spans wait for their local root, within bounds of number and time; those that come after it
    are shown when they come, with a note. Coloured on a terminal, plain in a pipe; NO_COLOR and
    FORCE_COLOR win. A stream that is closed or broken costs the spans and nothing else.

    Concurrency: every method, from any thread.
    """

    def __init__(
        self,
        service_name: str | None = None,
        out: Any = None,
        formatter: Callable[[Any], str] | None = None,
    ) -> None:
        """Choose where and how.

        Args:
            service_name: Shown instead of the resource's ``service.name``.
            out: A text stream; without one, whatever ``sys.stdout`` is at the time.
            formatter: Makes the text of one span. With it nothing is held back: each span is
                written when it comes, as opentelemetry-sdk's exporter of this name does.
        """
        self.service_name, self.out, self.formatter = service_name, out, formatter
        self._held = HeldTraces()
        self._lock = Lock()
        self._stopped = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._stopped:
            return SpanExportResult.FAILURE
        with self._lock:
            try:
                self._show(spans)
            except Exception:
                return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Print what is held, though its local root has not ended yet; False if that failed."""
        with self._lock:
            try:
                self._print_trees(self._held.take_all())
            except Exception:
                return False
        return True

    def shutdown(self) -> None:
        """Print what is held, and nothing after it."""
        if not self._stopped:
            self.force_flush()
        self._stopped = True

    def _show(self, spans: Sequence[ReadableSpan]) -> None:
        if self.formatter:
            self._write("".join([self.formatter(span) for span in spans]))
        else:
            self._print_trees(self._held.add(spans, monotonic()))

    def _print_trees(self, trees: Sequence[tuple[str, Sequence[ReadableSpan]]]) -> None:
        terminal = Terminal.of(self._stream)
        for note, spans in trees:
            text = render_tree(
                spans, terminal=terminal, service_name=self.service_name, max_lines=MAX_LINES
            )
            self._write(f"{note}\n{text}\n" if note else f"{text}\n")

    @property
    def _stream(self) -> Any:
        return sys.stdout if self.out is None else self.out

    def _write(self, text: str) -> None:
        """Write in one call, so that what the program prints meanwhile does not get between."""
        stream = self._stream
        if encoding := getattr(stream, "encoding", None):
            text = text.encode(encoding, "backslashreplace").decode(encoding)
        stream.write(text)
        stream.flush()


plugin: type[SpanExporter] = ConsoleSpanExporter
