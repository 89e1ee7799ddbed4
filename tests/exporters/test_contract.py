"""What every exporter promises; a new file in the folder is asked without being told."""

from __future__ import annotations

import importlib
import pkgutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import tracekit.exporters
from exporters.made import HOSTILE_SPANS, UNREADABLE_SPANS, checkout, made
from tracekit.interfaces import SpanExporter, SpanExportResult

NAMES = sorted(
    module.name
    for module in pkgutil.iter_modules(tracekit.exporters.__path__)
    if not module.name.startswith("_")
)

ARGUMENTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "otlp_file": lambda folder: {"path": folder / "traces.jsonl"},
}
"""Constructor arguments by exporter; one that is not here is made with none."""

OWN_DESTINATION = {"console", "memory", "otlp_file", "store"}
"""Exporters that need nobody else, so a batch must be taken; the others find nobody to talk to."""


@pytest.fixture
def nobody_listens(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Point exporters of the network at a port that stays closed, and let them give up soon."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        endpoint = f"http://127.0.0.1:{reserved.getsockname()[1]}"
        for name, value in {
            "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "500",
            "OTEL_EXPORTER_ZIPKIN_ENDPOINT": f"{endpoint}/api/v2/spans",
            "OTEL_EXPORTER_ZIPKIN_TIMEOUT": "500",
            "DD_TRACE_AGENT_URL": endpoint,
            "DD_TRACE_AGENT_TIMEOUT_SECONDS": "0.5",
        }.items():
            monkeypatch.setenv(name, value)
        yield


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def exporter(name: str, tmp_path: Path, nobody_listens: None) -> Iterator[SpanExporter]:
    plugin = importlib.import_module(f"tracekit.exporters.{name}").plugin
    made_exporter = plugin(**ARGUMENTS.get(name, lambda folder: {})(tmp_path))
    yield made_exporter
    made_exporter.shutdown()


def expected(name: str) -> SpanExportResult:
    return SpanExportResult.SUCCESS if name in OWN_DESTINATION else SpanExportResult.FAILURE


def test_an_empty_batch_is_taken(exporter: SpanExporter) -> None:
    assert exporter.export([]) is SpanExportResult.SUCCESS


def test_a_trace_is_taken_or_given_up(name: str, exporter: SpanExporter) -> None:
    assert exporter.export(checkout()) is expected(name)


def test_a_thousand_spans_are_taken_or_given_up(name: str, exporter: SpanExporter) -> None:
    spans = [made(number, f"span {number}", number // 10 or None) for number in range(1, 1001)]
    assert exporter.export(spans) is expected(name)


def test_hostile_spans_cost_no_batch(name: str, exporter: SpanExporter) -> None:
    spans = [made(1), *HOSTILE_SPANS.values(), *UNREADABLE_SPANS.values(), made(2)]
    assert exporter.export(spans) is expected(name)


def test_what_cannot_be_sent_is_kept(
    name: str, spooling: None, nobody_listens: None, tmp_path: Path
) -> None:
    if name in OWN_DESTINATION:
        pytest.skip(f"{name} has no destination that could be away")
    plugin = importlib.import_module(f"tracekit.exporters.{name}").plugin
    kept = plugin()
    assert kept.export(checkout()) is SpanExportResult.SUCCESS
    assert kept.stats()["spooled"] == kept.stats()["waiting"] == len(checkout())
    assert kept.force_flush(200) is False
    kept.shutdown()


def test_flushing_what_is_done_is_true(exporter: SpanExporter) -> None:
    assert exporter.force_flush() is True


def test_after_shutdown_spans_are_refused(exporter: SpanExporter) -> None:
    exporter.shutdown()
    assert exporter.export([made(1)]) is SpanExportResult.FAILURE


def test_shutdown_twice_is_quiet(exporter: SpanExporter) -> None:
    exporter.shutdown()
    exporter.shutdown()


def test_shutdown_may_come_while_a_batch_is_under_way(exporter: SpanExporter) -> None:
    results: list[SpanExportResult | BaseException] = []
    is_under_way = threading.Event()

    def export() -> None:
        try:
            for number in range(1, 200):
                results.append(exporter.export([made(number)]))
                is_under_way.set()
                if results[-1] is SpanExportResult.FAILURE:
                    return
        except BaseException as error:
            results.append(error)

    worker = threading.Thread(target=export)
    worker.start()
    assert is_under_way.wait(10)
    stoppers = [threading.Thread(target=exporter.shutdown) for _ in range(4)]
    for stopper in stoppers:
        stopper.start()
    for thread in (*stoppers, worker):
        thread.join(20)
        assert not thread.is_alive()
    assert all(isinstance(result, SpanExportResult) for result in results)
    assert exporter.export([made(1)]) is SpanExportResult.FAILURE
