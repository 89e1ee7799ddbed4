"""Exporting one batch, and counting what became of its spans."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.interfaces import ExportOutcome, ReadableSpan, SpanExporter

__all__ = ["Fates", "call_export", "exporter_name", "failed", "put_aside", "told_by"]

_logger = logging.getLogger("tracekit")


def exporter_name(exporter: SpanExporter) -> str:
    return str(getattr(exporter, "name", None) or type(exporter).__name__)


def call_export(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> ExportOutcome:
    """Export a batch; return what became of its spans, from the exporter itself if it says."""
    try:
        # A copy: the same batch goes to several exporters, and is counted afterwards.
        result = exporter.export([*spans])
    except (Exception, SystemExit) as error:  # sys.exit() would end the lane's thread, not more
        _logger.debug("%r raised", exporter, exc_info=True)
        return failed(spans, f"raised {type(error).__name__}")
    told = getattr(exporter, "last_outcome", None)
    if isinstance(told, ExportOutcome):
        return told
    # An exporter of opentelemetry-sdk returns the SDK's own enumeration.
    if getattr(result, "name", None) == "SUCCESS":
        return ExportOutcome(len(spans))
    return failed(spans, "refused")


def put_aside(exporter: SpanExporter, spans: Sequence[ReadableSpan]) -> ExportOutcome | None:
    """Let an exporter keep a batch instead of sending it; None when it cannot."""
    keep = getattr(exporter, "put_aside", None)
    try:
        told = keep(spans) if callable(keep) else None
    except Exception:
        _logger.debug("put_aside of %r raised", exporter, exc_info=True)
        return None
    return told if isinstance(told, ExportOutcome) else None


def failed(spans: Sequence[ReadableSpan], reason: str) -> ExportOutcome:
    return ExportOutcome(0, 0, {reason: len(spans)}, reason=reason)


class Fates:
    """What became of the spans that an exporter was given."""

    def __init__(self) -> None:
        self.exported = self.spooled = 0
        self.failed: Counter[str] = Counter()

    def add(self, outcome: ExportOutcome) -> None:
        self.exported += outcome.sent
        self.spooled += outcome.spooled
        self.failed.update(outcome.dropped)
        if outcome.rejected:
            self.failed["rejected"] += outcome.rejected

    def counts(self) -> dict[str, Any]:
        return {
            "exported": self.exported,
            "spooled": self.spooled,
            "failed": dict(self.failed),
        }


def told_by(exporter: SpanExporter) -> dict[str, Any]:
    """Return an exporter's own counts, under the name that they have in the ledger."""
    read = getattr(exporter, "stats", None)
    try:
        told = read() if callable(read) else None
    except Exception:
        _logger.debug("stats of %r raised", exporter, exc_info=True)
        return {}
    return {"delivery": dict(told)} if isinstance(told, Mapping) else {}
