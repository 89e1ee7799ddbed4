"""Traces printed while the program runs."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from exporters.made import HOSTILE_SPANS, UNREADABLE_SPANS, checkout, made
from tracekit.exporters import _held_traces
from tracekit.exporters._held_traces import LATE, WAITING, HeldTraces
from tracekit.exporters.console import ConsoleSpanExporter
from tracekit.interfaces import SpanExportResult

FAILURE, SUCCESS = SpanExportResult.FAILURE, SpanExportResult.SUCCESS


class Screen:
    """A console exporter, and what it has printed since it was last asked."""

    def __init__(self, **options: Any) -> None:
        self.out = io.StringIO()
        self.exporter = ConsoleSpanExporter(out=self.out, **options)

    def shows(self, *spans: Any) -> str:
        self.out.seek(0)
        self.out.truncate()
        assert self.exporter.export(spans) is SUCCESS
        return self.out.getvalue()


@pytest.fixture
def screen() -> Screen:
    return Screen()


# --- when a tree is shown


def test_a_trace_is_shown_when_its_local_root_has_ended(screen: Screen) -> None:
    assert screen.shows(made(2, "child", 1)) == ""
    text = screen.shows(made(1, "root"))
    assert text.startswith("trace ")
    assert "└─ child" in text


def test_a_span_of_a_remote_parent_is_a_local_root(screen: Screen) -> None:
    screen.shows(made(3, "child", 2))
    text = screen.shows(made(2, "served", 1, parent_is_remote=True))
    assert "2 spans" in text
    assert "└─ child" in text


def test_two_requests_of_one_trace_are_two_trees(screen: Screen) -> None:
    screen.shows(made(3, "of the first", 1), made(4, "of the second", 2))
    first = screen.shows(made(1, "first", 9, parent_is_remote=True))
    second = screen.shows(made(2, "second", 9, parent_is_remote=True))
    assert "of the first" in first
    assert "of the second" not in first
    assert "of the second" in second


def test_a_whole_trace_in_one_batch_is_one_tree(screen: Screen) -> None:
    text = screen.shows(*reversed(checkout()))
    assert text.count("trace ") == 1
    assert "22 spans" in text


def test_a_span_that_ends_after_its_local_root_is_shown_with_a_note(screen: Screen) -> None:
    screen.shows(made(1, "root"))
    text = screen.shows(made(2, "background", 1))
    assert text.startswith(LATE)
    assert "background" in text


def test_what_waited_for_a_late_span_is_shown_with_it(screen: Screen) -> None:
    screen.shows(made(3, "grandchild", 2))
    screen.shows(made(1, "root"))
    text = screen.shows(made(2, "background", 1))
    assert "background" in text
    assert "grandchild" in text


def test_flushing_shows_what_still_waits(screen: Screen) -> None:
    screen.shows(made(2, "child", 1))
    assert screen.exporter.force_flush()
    assert screen.out.getvalue().startswith(WAITING)
    assert screen.shows() == ""


def test_shutdown_shows_what_still_waits_and_nothing_after(screen: Screen) -> None:
    screen.shows(made(2, "child", 1))
    screen.exporter.shutdown()
    shown = screen.out.getvalue()
    assert "child" in shown
    assert screen.exporter.export([made(1)]) is FAILURE
    screen.exporter.shutdown()
    assert screen.out.getvalue() == shown


def test_each_span_is_shown_once(screen: Screen) -> None:
    text = "".join(screen.shows(span) for span in reversed(checkout()))
    screen.exporter.shutdown()
    assert text.count("check password") == 1
    assert text.count("charge card") == 1


# --- bounds


def test_a_trace_whose_root_does_not_come_is_given_up_in_time() -> None:
    held = HeldTraces()
    assert held.add([made(2, "child", 1)], now_s=0) == []
    ((note, spans),) = held.add([made(3, trace_id=5, parent=1)], now_s=31)
    assert note == WAITING
    assert [span.name for span in spans] == ["child"]


def test_too_many_waiting_spans_push_out_the_oldest_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_held_traces, "MAX_SPANS", 5)
    held = HeldTraces()
    held.add([made(n, "old", 99) for n in range(1, 4)], now_s=0)
    trees = held.add([made(n, "new", 99, trace_id=5) for n in range(1, 4)], now_s=0)
    assert [[span.name for span in spans] for _, spans in trees] == [["old"] * 3]


def test_the_memory_of_what_was_shown_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_held_traces, "MAX_REMEMBERED", 10)
    held = HeldTraces()
    for number in range(1, 100):
        held.add([made(number)], now_s=0)
    assert len(held._handed_out) == 10
    assert held._count == 0
    assert not held._traces


def test_spans_that_are_each_others_parents_are_shown_at_the_end(screen: Screen) -> None:
    screen.shows(made(1, "egg", 2), made(2, "hen", 1))
    screen.exporter.shutdown()
    assert "egg" in screen.out.getvalue()
    assert "hen" in screen.out.getvalue()


# --- how


def test_in_a_pipe_there_is_no_colour(screen: Screen) -> None:
    assert "\x1b" not in screen.shows(*checkout())


def test_colour_can_be_forced(monkeypatch: pytest.MonkeyPatch, screen: Screen) -> None:
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert "\x1b[" in screen.shows(*checkout())


def test_a_given_service_name_is_shown() -> None:
    assert "mine ▸ work" in Screen(service_name="mine").shows(made(1))


def test_standard_output_is_the_one_of_the_moment(capsys: pytest.CaptureFixture[str]) -> None:
    ConsoleSpanExporter().export([made(1, "work")])
    assert "work" in capsys.readouterr().out


def test_a_formatter_writes_each_span_as_it_comes() -> None:
    screen = Screen(formatter=lambda span: f"{span.name};")
    assert screen.shows(made(2, "child", 1), made(1, "root")) == "child;root;"


def test_arguments_are_in_the_order_of_opentelemetry_sdk() -> None:
    out = io.StringIO()
    ConsoleSpanExporter("service", out, lambda span: span.to_json()).export([made(1, "work")])
    assert '"name": "work"' in out.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_what_the_encoding_lacks_is_escaped(encoding: str) -> None:
    raw = io.BytesIO()
    out = io.TextIOWrapper(raw, encoding=encoding)
    assert ConsoleSpanExporter(out=out).export([made(1, "日本")]) is SUCCESS
    assert b"\\u65e5\\u672c" in raw.getvalue()


# --- what goes wrong


def test_a_closed_stream_is_a_failure_and_no_exception() -> None:
    out = io.StringIO()
    exporter = ConsoleSpanExporter(out=out)
    out.close()
    assert exporter.export([made(1)]) is FAILURE
    exporter.shutdown()


def test_no_standard_output_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    assert ConsoleSpanExporter().export([made(1)]) is FAILURE


def test_a_formatter_that_raises_is_a_failure() -> None:
    exporter = ConsoleSpanExporter(out=io.StringIO(), formatter=lambda span: span.nothing)
    assert exporter.export([made(1)]) is FAILURE


def test_flushing_into_a_closed_stream_is_not_said_to_have_worked() -> None:
    out = io.StringIO()
    exporter = ConsoleSpanExporter(out=out)
    exporter.export([made(2, parent=1)])
    out.close()
    assert not exporter.force_flush()


def test_a_reader_that_goes_away_does_not_stop_the_program() -> None:
    program = (
        "import sys\n"
        "from exporters.made import made\n"
        "from tracekit.exporters.console import ConsoleSpanExporter\n"
        "exporter = ConsoleSpanExporter()\n"
        "sys.stdin.read()\n"
        "results = [exporter.export([made(1)]).name for _ in range(3)]\n"
        "print(results, file=sys.stderr)\n"
    )
    here = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{here}{os.pathsep}{here.parent}"}
    reader, writer = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    os.close(reader)
    _, errors = process.communicate("")
    assert "['FAILURE', 'FAILURE', 'FAILURE']" in errors
    assert "Traceback" not in errors.partition("[")[0]


@pytest.mark.parametrize("name", HOSTILE_SPANS)
def test_a_hostile_span_is_shown(screen: Screen, name: str) -> None:
    text = screen.shows(HOSTILE_SPANS[name])
    screen.exporter.shutdown()
    assert "trace " in text + screen.out.getvalue()


def test_spans_that_cannot_be_read_cost_no_other(screen: Screen) -> None:
    assert "work" in screen.shows(*UNREADABLE_SPANS.values(), made(1, "work"))
