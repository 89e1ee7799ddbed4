"""Exporters that misbehave, and waiting for what another thread does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from tracekit.interfaces import ExportOutcome
from tracekit.sdk import SpanExporter, SpanExportResult
from tracekit.testing import build_span


class Recording(SpanExporter):
    """Takes everything; remembers names, batch sizes and threads."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.sizes: list[int] = []
        self.exported = threading.Event()
        self.shutdowns = self.flushes = 0

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.names.extend(span.name for span in spans)
        self.sizes.append(len(spans))
        self.exported.set()
        return SpanExportResult.SUCCESS

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        self.flushes += 1
        return True

    def shutdown(self) -> None:
        self.shutdowns += 1


class Hanging(Recording):
    """Hangs in ``export`` until it is let go; after that it takes everything."""

    def __init__(self) -> None:
        super().__init__()
        self.may_go_on = threading.Event()
        self.entered = threading.Semaphore(0)

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        self.entered.release()
        self.may_go_on.wait(30)
        return super().export(spans)


class Keeping(Hanging):
    """Hangs in ``export``, and can keep what it is given instead."""

    def __init__(self, can: bool = True) -> None:
        super().__init__()
        self.keeps_spans = can
        self.is_in_a_hurry = False
        self.kept: list[Any] = []

    def hurry(self) -> None:
        self.is_in_a_hurry = True

    def put_aside(self, spans: Sequence[Any]) -> ExportOutcome | None:
        if not self.keeps_spans:
            return None
        self.kept += spans
        return ExportOutcome(0, 0, {}, len(spans), "exit")


class Raising(Recording):
    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        raise RuntimeError("no")


class Answering(Recording):
    """Answers what it is told to."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def export(self, spans: Sequence[Any]) -> Any:
        super().export(spans)
        return self.answer


def send(processor: Any, count: int, name: str = "span") -> None:
    span = build_span(name)
    for _ in range(count):
        processor.on_end(span)


def adds_up(processor: Any) -> Any:
    """Check the ledger: everything received is somewhere, once."""
    stats = processor.stats()
    handed = stats["received"] - stats["not_sampled"] - stats["queued"]
    handed -= sum(stats["dropped"].values())
    for lane in stats["exporters"]:
        ends = lane["exported"] + lane["spooled"] + lane["pending"]
        ends += sum(lane["failed"].values()) + sum(lane["dropped"].values())
        assert ends == handed, stats
    return stats


def wait_until(condition: Callable[[], object], timeout_s: float = 10.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.005)
