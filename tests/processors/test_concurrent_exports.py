"""An exporter that takes several batches at once gets them when it is slow, and loses none."""

from __future__ import annotations

import threading
import time

import pytest

from processors.doubles import Hanging, Keeping, Recording, adds_up, send, wait_until
from tracekit.interfaces import ExportOutcome
from tracekit.processors import _lane
from tracekit.sdk import SpanExportResult

SLOW_S = 0.06


class Measured(Recording):
    """Says how many calls of ``export`` were under way at the same time."""

    def __init__(self, at_once, takes_s=SLOW_S):
        super().__init__()
        if at_once is not None:
            self.exports_at_once = at_once
        self.takes_s = takes_s
        self.most = self.now = 0
        self.threads = set()
        self.lock = threading.Lock()

    def export(self, spans):
        with self.lock:
            self.threads.add(threading.get_ident())
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.takes_s)
        with self.lock:
            self.now -= 1
            return super().export(spans)


@pytest.mark.parametrize(("at_once", "most"), [(None, 1), (1, 1), (3, 3), (0, 1), ("4", 1)])
def test_a_slow_exporter_gets_as_many_batches_as_it_takes(make_processor, at_once, most):
    exporter = Measured(at_once)
    processor = make_processor(exporter, max_export_batch_size=5)
    send(processor, 30)
    assert processor.force_flush(10_000)
    assert exporter.most == most
    assert len(exporter.names) == 30
    assert adds_up(processor)["exporters"][0]["exported"] == 30


def test_a_fast_exporter_keeps_one_thread_whatever_waits(make_processor):
    exporter = Measured(4, takes_s=0.001)
    processor = make_processor(exporter, max_export_batch_size=5)
    send(processor, 200)
    assert processor.force_flush(10_000)
    assert len(exporter.threads) == 1


class Failing(Measured):
    """Slow, and takes nothing."""

    def export(self, spans):
        super().export(spans)
        return SpanExportResult.FAILURE


def test_an_exporter_that_fails_slowly_is_not_asked_more(make_processor):
    exporter = Failing(4)
    processor = make_processor(exporter, max_export_batch_size=5)
    send(processor, 40)
    assert not processor.force_flush(10_000)
    assert exporter.most == 1
    assert adds_up(processor)["exporters"][0]["failed"] == {"refused": 40}


class Gated(Hanging):
    """Slow for what is named "slow"; hangs for what is named "first", until it is let go."""

    exports_at_once = 2

    def export(self, spans):
        if spans[0].name == "first":
            return super().export(spans)
        time.sleep(SLOW_S)
        return Recording.export(self, spans)


def test_a_flush_waits_for_an_early_batch_when_later_ones_are_over(make_processor):
    exporter = Gated()
    processor = make_processor(exporter, max_export_batch_size=1)
    send(processor, 2, "slow")
    send(processor, 1, "first")
    send(processor, 3, "slow")
    wait_until(lambda: len(exporter.names) == 5)
    assert not processor.force_flush(100)
    assert adds_up(processor)["exporters"][0]["exporting"] == 1
    exporter.may_go_on.set()
    assert processor.force_flush(10_000)
    assert adds_up(processor)["exporters"][0]["exported"] == 6


def test_of_several_exports_only_the_one_that_hangs_is_left_behind(make_processor):
    exporter = Gated()
    processor = make_processor(exporter, max_export_batch_size=1, export_timeout_millis=500)
    send(processor, 2, "slow")
    send(processor, 1, "first")
    send(processor, 6, "slow")
    assert not processor.force_flush(10_000)
    lane = adds_up(processor)["exporters"][0]
    assert (lane["exported"], lane["failed"]) == (8, {"timeout": 1})


class KeepingSeveral(Keeping):
    """Takes the first batches slowly, and hangs in all that follow."""

    exports_at_once = 3

    def export(self, spans):
        if spans[0].name == "slow":
            time.sleep(SLOW_S)
            return Recording.export(self, spans)
        return super().export(spans)


def test_all_that_are_under_way_at_the_end_are_kept_once(make_processor):
    exporter = KeepingSeveral()
    processor = make_processor(exporter, max_export_batch_size=2)
    send(processor, 8, "slow")
    send(processor, 20, "hangs")
    for _ in range(3):
        assert exporter.entered.acquire(timeout=10)
    processor.shutdown(500)
    lane = adds_up(processor)["exporters"][0]
    assert (lane["exported"], lane["spooled"], lane["pending"]) == (8, 20, 0)
    assert len(exporter.kept) == 20


def test_a_thread_that_nothing_waits_for_goes(make_processor, monkeypatch):
    monkeypatch.setattr(_lane, "SPARE_S", 0.05)
    exporter = Measured(3)
    exporter.name = "spare"
    processor = make_processor(exporter, max_export_batch_size=1)
    send(processor, 9)
    assert processor.force_flush(10_000)
    assert exporter.most == 3
    wait_until(lambda: _threads("tracekit-spare") == 1)
    send(processor, 3)
    assert processor.force_flush(10_000)
    assert adds_up(processor)["exporters"][0]["exported"] == 12


def _threads(name):
    return sum(thread.name == name for thread in threading.enumerate())


class Partly(Measured):
    """Slow, and takes one span of each batch."""

    def __init__(self):
        super().__init__(4)
        self._told = threading.local()

    @property
    def last_outcome(self):
        return self._told.outcome

    def export(self, spans):
        super().export(spans)
        self._told.outcome = ExportOutcome(1, len(spans) - 1, reason="rejected")
        return SpanExportResult.FAILURE


def test_each_batch_is_counted_by_what_was_said_of_it(make_processor):
    exporter = Partly()
    processor = make_processor(exporter, max_export_batch_size=4)
    send(processor, 40)
    assert not processor.force_flush(10_000)
    lane = adds_up(processor)["exporters"][0]
    assert exporter.most == 4
    assert (lane["exported"], lane["failed"]) == (10, {"rejected": 30})
