"""The batch processor under a busy program and dead back ends loses nothing unsaid."""

from __future__ import annotations

import threading
import time

import pytest

from processors.doubles import (
    Answering,
    Hanging,
    Keeping,
    Raising,
    Recording,
    adds_up,
    send,
    wait_until,
)
from tracekit.interfaces import ExportOutcome
from tracekit.processors import _lane
from tracekit.sdk import SpanExporter, SpanExportResult, TracerProvider


def test_a_condition_of_the_programs_has_the_class_to_itself(make_processor):
    """One of ours would leave its mark on all: see _Progress."""
    processor = make_processor(Recording())
    lock = processor._progress
    assert isinstance(lock, threading.Condition)
    assert type(lock) is not threading.Condition


def test_a_full_batch_is_exported_before_the_delay_is_over(make_processor):
    exporter = Recording()
    processor = make_processor(exporter, max_export_batch_size=10)
    send(processor, 10)
    assert exporter.exported.wait(10)
    assert exporter.sizes == [10]


def test_a_lone_span_is_exported_after_the_delay(make_processor):
    exporter = Recording()
    processor = make_processor(exporter, schedule_delay_millis=20)
    send(processor, 1)
    assert exporter.exported.wait(10)


def test_no_batch_exceeds_the_batch_size(make_processor):
    exporter = Recording()
    processor = make_processor(exporter, max_export_batch_size=7)
    send(processor, 100)
    assert processor.force_flush(10_000)
    assert len(exporter.names) == 100
    assert max(exporter.sizes) <= 7


def test_unsampled_spans_are_counted_and_not_exported(make_processor):
    exporter = Recording()
    processor = make_processor(exporter)
    unsampled = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("x")
    unsampled._anchor = (0, unsampled._anchor[1], 1, None)
    processor.on_end(unsampled)
    send(processor, 1)
    assert processor.force_flush(10_000)
    assert exporter.names == ["span"]
    assert adds_up(processor)["not_sampled"] == 1


@pytest.mark.slow
def test_a_burst_loses_nothing_by_default(make_processor):
    exporter = Recording()
    processor = make_processor(exporter)
    threads = [threading.Thread(target=send, args=(processor, 50_000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert processor.force_flush(60_000)
    assert len(exporter.names) == 200_000
    assert adds_up(processor)["exporters"][0]["exported"] == 200_000


def test_a_small_queue_drops_the_newest_and_counts_them(make_processor):
    exporter = Hanging()
    processor = make_processor(exporter, max_queue_size=10, max_export_batch_size=10)
    send(processor, 10, "kept")
    assert exporter.entered.acquire(timeout=10)
    # The lane holds ten that hang; of these, the lane and the queue have no room for all.
    send(processor, 35, "late")
    assert not processor.force_flush(300)
    exporter.may_go_on.set()
    processor.force_flush(10_000)
    stats = adds_up(processor)
    lost = stats["dropped"]["queue_full"] + stats["exporters"][0]["dropped"].get("queue_full", 0)
    assert lost > 0
    assert len(exporter.names) == 45 - lost
    assert exporter.names[:10] == ["kept"] * 10


@pytest.mark.parametrize(
    ("exporter", "reason"),
    [
        (Raising(), "raised RuntimeError"),
        (Answering(SpanExportResult.FAILURE), "refused"),
        (Answering(None), "refused"),
        (Answering("nonsense"), "refused"),
    ],
)
def test_an_export_that_fails_is_counted_said_once_and_makes_the_flush_false(
    make_processor, caplog, exporter, reason
):
    processor = make_processor(exporter)
    for _ in range(2):
        send(processor, 3)
        assert not processor.force_flush(10_000)
    assert adds_up(processor)["exporters"][0]["failed"] == {reason: 6}
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) == 1


def test_a_result_of_the_sdks_own_enumeration_counts(make_processor):
    from opentelemetry.sdk.trace.export import SpanExportResult as SdkResult

    good = make_processor(Answering(SdkResult.SUCCESS))
    bad = make_processor(Answering(SdkResult.FAILURE))
    for processor in (good, bad):
        send(processor, 1)
    assert (good.force_flush(10_000), bad.force_flush(10_000)) == (True, False)


def test_a_batch_of_which_only_a_part_was_taken_is_counted_in_parts(make_processor):
    exporter = Answering(SpanExportResult.FAILURE)
    exporter.last_outcome = ExportOutcome(5, 2, {"too_large": 1}, 4, "rejected")
    processor = make_processor(exporter)
    send(processor, 12)
    assert not processor.force_flush(10_000)
    lane = adds_up(processor)["exporters"][0]
    assert (lane["exported"], lane["spooled"]) == (5, 4)
    assert lane["failed"] == {"rejected": 2, "too_large": 1}


def test_a_flush_tells_of_what_was_lost_before_it_was_called(make_processor):
    exporter = Raising()
    processor = make_processor(exporter, max_export_batch_size=1)
    send(processor, 1)
    wait_until(lambda: processor.stats()["exporters"][0]["failed"])
    assert not processor.force_flush(10_000)
    assert processor.force_flush(10_000), "nothing was lost since"


def test_a_dead_exporter_delays_no_other(make_processor):
    dead, alive = Hanging(), Recording()
    processor = make_processor(dead, alive, max_export_batch_size=5)
    send(processor, 50)
    wait_until(lambda: len(alive.names) == 50)
    stats = adds_up(processor)
    assert [lane["exported"] for lane in stats["exporters"]] == [0, 50]


def test_an_export_that_takes_too_long_is_left_behind_and_the_lane_goes_on(make_processor):
    exporter = Hanging()
    processor = make_processor(exporter, export_timeout_millis=50, max_export_batch_size=2)
    send(processor, 2, "hangs")
    assert exporter.entered.acquire(timeout=10)
    assert not processor.force_flush(5_000)
    assert adds_up(processor)["exporters"][0]["failed"] == {"timeout": 2}
    exporter.may_go_on.set()
    send(processor, 2, "after")
    assert processor.force_flush(5_000)
    assert adds_up(processor)["exporters"][0]["exported"] == 2
    assert exporter.names.count("after") == 2


def test_only_so_many_threads_are_left_behind_and_the_lane_recovers_from_it(make_processor):
    exporter = Hanging()
    processor = make_processor(exporter, export_timeout_millis=20, max_export_batch_size=1)
    for _ in range(3 * _lane.MAX_LEFT_BEHIND):
        send(processor, 1)
        processor.force_flush(100)
    hanging = [thread for thread in threading.enumerate() if thread.name == "tracekit-Hanging"]
    assert len(hanging) == _lane.MAX_LEFT_BEHIND
    stats = adds_up(processor)["exporters"][0]
    assert stats["failed"] == {"timeout": _lane.MAX_LEFT_BEHIND}
    assert stats["dropped"]["exporter_hangs"] > 0
    exporter.may_go_on.set()
    for thread in hanging:
        thread.join(10)
    send(processor, 1, "recovered")
    processor.force_flush(10_000)
    assert "recovered" in exporter.names
    adds_up(processor)


def test_a_timeout_noticed_by_many_at_once_is_counted_once(make_processor):
    exporter = Hanging()
    processor = make_processor(
        exporter, export_timeout_millis=50, max_export_batch_size=1, schedule_delay_millis=1
    )
    send(processor, 1)
    assert exporter.entered.acquire(timeout=10)
    flushers = [threading.Thread(target=processor.force_flush, args=(1_000,)) for _ in range(8)]
    for thread in flushers:
        thread.start()
    for thread in flushers:
        thread.join()
    assert adds_up(processor)["exporters"][0]["failed"] == {"timeout": 1}


def test_a_flush_that_times_out_is_false_and_ends_in_time(make_processor):
    processor = make_processor(Hanging())
    send(processor, 1)
    began = time.monotonic()
    assert not processor.force_flush(200)
    assert time.monotonic() - began < 2


def test_an_exporter_whose_own_flush_hangs_keeps_neither_the_flush_nor_the_lane(make_processor):
    class FlushHangs(Recording):
        def __init__(self):
            super().__init__()
            self.may_go_on = threading.Event()

        def force_flush(self, timeout_millis=30_000):
            self.may_go_on.wait(30)
            return True

    exporter = FlushHangs()
    processor = make_processor(exporter, export_timeout_millis=100, max_export_batch_size=1)
    send(processor, 1, "before")
    began = time.monotonic()
    assert not processor.force_flush(200)
    assert time.monotonic() - began < 2
    send(processor, 1, "after")
    wait_until(lambda: processor.force_flush(100) or "after" in exporter.names)
    assert adds_up(processor)["exporters"][0]["exported"] == 2
    exporter.may_go_on.set()


def test_an_exporters_flush_that_fails_or_is_missing(make_processor):
    class Fails(Recording):
        def force_flush(self, timeout_millis=30_000):
            raise RuntimeError("no")

    class Bare:
        def export(self, spans):
            return SpanExportResult.SUCCESS

    fails, bare = make_processor(Fails()), make_processor(Bare())
    for processor in (fails, bare):
        send(processor, 1)
    assert (fails.force_flush(10_000), bare.force_flush(10_000)) == (False, True)
    bare.shutdown()


def test_shutdown_exports_what_is_queued_and_stops_its_threads(make_processor):
    others = set(threading.enumerate())
    exporter = Recording()
    processor = make_processor(exporter)
    send(processor, 3)
    assert processor.force_flush(10_000)
    mine = [thread for thread in threading.enumerate() if thread not in others]
    assert mine
    send(processor, 2)
    processor.shutdown(10_000)
    processor.shutdown(10_000)
    assert (len(exporter.names), exporter.shutdowns) == (5, 1)
    for thread in mine:
        thread.join(10)
    assert not [thread for thread in mine if thread.is_alive()]


def test_shutdown_is_bounded_and_counts_what_was_left(make_processor):
    exporter = Hanging()
    processor = make_processor(exporter, max_export_batch_size=2)
    send(processor, 6)
    assert exporter.entered.acquire(timeout=10)
    began = time.monotonic()
    processor.shutdown(300)
    assert time.monotonic() - began < 3
    lane = adds_up(processor)["exporters"][0]
    assert lane["pending"] == 0
    assert lane["failed"] == {"exit": 2}
    assert lane["dropped"] == {"exit": 4}
    began = time.monotonic()
    assert not processor.force_flush(20_000), "what was lost has not arrived"
    assert time.monotonic() - began < 3


def test_what_there_is_no_time_to_export_at_shutdown_is_kept_where_it_can_be(make_processor):
    exporter, other = Keeping(), Recording()
    processor = make_processor(exporter, other, max_export_batch_size=2)
    send(processor, 6)
    assert exporter.entered.acquire(timeout=10)
    began = time.monotonic()
    processor.shutdown(500)
    assert time.monotonic() - began < 3
    assert exporter.is_in_a_hurry
    lane, others = adds_up(processor)["exporters"]
    assert (lane["spooled"], sum(lane["failed"].values()), lane["pending"]) == (6, 0, 0)
    assert sum(lane["dropped"].values()) == 0
    assert len(exporter.kept) == 6
    assert others["exported"] == 6


def test_an_export_that_takes_too_long_is_kept_where_it_can_be(make_processor):
    exporter = Keeping()
    processor = make_processor(exporter, export_timeout_millis=50, max_export_batch_size=2)
    send(processor, 2)
    assert not processor.force_flush(2_000) or exporter.kept
    wait_until(lambda: adds_up(processor)["exporters"][0]["spooled"] == 2)


def test_before_a_freeze_nothing_stays_in_memory(make_processor):
    exporter = Keeping()
    processor = make_processor(exporter, max_export_batch_size=2)
    send(processor, 5)
    assert not processor.flush_or_keep(200)
    lane = adds_up(processor)["exporters"][0]
    assert (lane["spooled"], lane["pending"], processor.stats()["queued"]) == (5, 0, 0)
    exporter.may_go_on.set()
    send(processor, 3)
    assert processor.flush_or_keep(10_000), "and it goes on afterwards"
    assert adds_up(processor)["exporters"][0]["exported"] == 3


def test_an_exporter_that_cannot_keep_after_all_loses_what_it_had(make_processor):
    exporter = Keeping(can=False)
    processor = make_processor(exporter, max_export_batch_size=2)
    send(processor, 6)
    assert exporter.entered.acquire(timeout=10)
    processor.shutdown(300)
    lane = adds_up(processor)["exporters"][0]
    assert (lane["spooled"], lane["failed"], lane["dropped"]) == (0, {"exit": 2}, {"exit": 4})


def test_spans_after_shutdown_are_counted(make_processor):
    exporter = Recording()
    processor = make_processor(exporter)
    processor.shutdown()
    send(processor, 3)
    assert exporter.names == []
    assert adds_up(processor)["dropped"]["after_shutdown"] == 3


def test_the_ledger_adds_up_at_any_moment(make_processor):
    exporter = Recording()
    processor = make_processor(exporter, max_export_batch_size=16, schedule_delay_millis=1)
    stop = threading.Event()
    readings = []

    def look():
        while not stop.is_set():
            stats = processor.stats()
            readings.append(stats["received"])

    looker = threading.Thread(target=look)
    looker.start()
    for _ in range(200):
        send(processor, 50)
    stop.set()
    looker.join()
    assert processor.force_flush(10_000)
    assert readings == sorted(readings), "what was received never becomes less"
    assert adds_up(processor)["received"] == 10_000


@pytest.mark.parametrize("thing", [None, 5, "span", object()])
def test_what_is_no_span_costs_itself_only(make_processor, thing):
    exporter = Recording()
    processor = make_processor(exporter)
    processor.on_end(thing)
    send(processor, 2)
    assert processor.force_flush(10_000)
    assert exporter.names == ["span", "span"]


def test_the_exporters_own_calls_are_not_traced(make_processor):
    from opentelemetry.instrumentation.utils import is_instrumentation_enabled

    class Asking(Recording):
        def export(self, spans):
            self.names.append(is_instrumentation_enabled())
            return SpanExportResult.SUCCESS

        def force_flush(self, timeout_millis=30_000):
            self.names.append(is_instrumentation_enabled())
            return True

        def shutdown(self):
            self.names.append(is_instrumentation_enabled())

    exporter = Asking()
    processor = make_processor(exporter)
    send(processor, 1)
    assert processor.force_flush(10_000)
    processor.shutdown()
    assert exporter.names
    assert not any(exporter.names)


def test_no_thread_is_started_before_the_first_span(make_processor):
    before = threading.active_count()
    make_processor(Recording())
    assert threading.active_count() == before


class _HoldsNothingBack(SpanExporter):
    """Notes the threads that export; its flush is the one of the base class."""

    def __init__(self):
        self.threads = []

    def export(self, spans):
        self.threads.append(threading.current_thread())
        return SpanExportResult.SUCCESS


def test_a_flush_asks_only_exporters_that_hold_something_back(make_processor, monkeypatch):
    asked = []
    monkeypatch.setattr(_lane.Lane, "_ask", lambda lane, method, *_: asked.append(lane.exporter))
    plain, holding = _HoldsNothingBack(), Recording()
    processor = make_processor(plain, holding)
    send(processor, 1)
    assert processor.force_flush(10_000)
    assert (len(plain.threads), holding.names, asked) == (1, ["span"], [holding])


def test_a_flush_of_nothing_wakes_nobody(make_processor):
    processor = make_processor(_HoldsNothingBack(), schedule_delay_millis=60_000)
    send(processor, 1)
    assert processor.force_flush(10_000)
    assert not processor._wake.is_set()
    assert processor.force_flush(0)
    assert not processor._wake.is_set()


def test_a_span_that_does_not_fit_is_dropped_or_exported_but_not_both(make_processor):
    exporter = Recording()
    processor = make_processor(exporter, max_queue_size=8, max_export_batch_size=4)
    threads = [threading.Thread(target=send, args=(processor, 2_000)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    processor.force_flush(10_000)
    stats = adds_up(processor)
    lost = sum(stats["dropped"].values()) + sum(stats["exporters"][0]["dropped"].values())
    assert stats["received"] == 8_000 == len(exporter.names) + lost
