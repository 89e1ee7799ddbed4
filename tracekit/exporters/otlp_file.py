"""Append ended spans to a file as OTLP JSON, one line a batch.

Source: https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from urllib.parse import unquote, urlsplit

from tracekit.exporters._append import append
from tracekit.exporters._otlp_json import encode_line
from tracekit.interfaces import ReadableSpan, SpanExporter, SpanExportResult

__all__ = ["OtlpFileExporter"]

DEFAULT_PATH = "traces.jsonl"
PATH_VARIABLE = "TRACEKIT_OTLP_FILE"
_STDOUT = ("-", "stdout")

_log = logging.getLogger(__name__)


class OtlpFileExporter(SpanExporter):
    """Write each batch as one line that any OTLP JSON reader takes, such as a Collector's.

    Several threads and processes may write the same file: lines never mix. A file that cannot be
    written (full disk, read-only, a folder) is one log message, and one more when it works again.

    Attributes:
        skipped: How many spans could not be encoded at all.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        """Choose the file.

        Args:
            path: A path or file:// URL, taken relative to the folder that is current now; "-" or
                "stdout" for standard output. Without one it is TRACEKIT_OTLP_FILE, then
                ``traces.jsonl``. Missing folders are made at the first batch.
        """
        self.path = _resolved(os.fspath(path or os.environ.get(PATH_VARIABLE) or DEFAULT_PATH))
        self.skipped = 0
        self._is_failing = False
        self._stopped = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._stopped:
            return SpanExportResult.FAILURE
        if not spans:
            return SpanExportResult.SUCCESS
        try:
            self._write(encode_line(spans, self._skip))
        except Exception as error:
            self._say_failing(error)
            return SpanExportResult.FAILURE
        self._say_working()
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Write no more; nothing is held back, so nothing is left to do."""
        self._stopped = True

    def _write(self, line: bytes) -> None:
        if self.path not in _STDOUT:
            append(self.path, line)
            return
        _write_stdout(line)

    def _skip(self, span: ReadableSpan, error: Exception) -> None:
        self.skipped += 1
        if self.skipped == 1:
            _log.warning("a span cannot be written as OTLP JSON (%s); more are only counted", error)

    def _say_failing(self, error: Exception) -> None:
        if not self._is_failing:
            self._is_failing = True
            _log.warning("spans cannot be written to %s: %s; trying on", self.path, error)

    def _say_working(self) -> None:
        if self._is_failing:
            self._is_failing = False
            _log.warning("spans are written to %s again", self.path)


def _write_stdout(line: bytes) -> None:
    """Write UTF-8 whatever the stream's encoding is, after all that the program has printed."""
    stream = sys.stdout
    if (binary := getattr(stream, "buffer", None)) is None:
        stream.write(line.decode())
    else:
        stream.flush()
        binary.write(line)
    stream.flush()


def _resolved(path: str) -> str:
    if path in _STDOUT:
        return path
    if path.startswith("file://"):
        path = unquote(urlsplit(path).path)
    return os.path.abspath(os.path.expanduser(path))


plugin: type[SpanExporter] = OtlpFileExporter
