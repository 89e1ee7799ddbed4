"""A stage in front of a processor is, to everybody who looks, that processor."""

from __future__ import annotations

import os

import pytest

from processors.doubles import Hanging, Keeping, Recording
from tracekit.errors import InvalidValueError
from tracekit.processors._stage import Stage
from tracekit.sdk import BatchSpanProcessor, SimpleSpanProcessor, SpanProcessor, TracerProvider
from tracekit.testing import build_span


class Withholding(Stage):
    """Keeps back the spans whose name says so."""

    def __init__(self, following):
        super().__init__(following)
        self.held = []

    def on_end_sampled(self, span):
        if span.name == "held":
            self.held.append(span)
        else:
            self.pass_on(span)

    def kept_back(self):
        return len(self.held)


def provider_with(processor) -> TracerProvider:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(processor)
    return provider


def test_what_is_not_kept_back_is_exported_and_all_of_it_is_counted():
    exporter = Recording()
    provider = provider_with(Withholding(Stage(BatchSpanProcessor(exporter))))
    for name in ("a", "held", "b"):
        provider.get_tracer("t").start_span(name).end()
    assert provider.force_flush()
    assert exporter.names == ["a", "b"]
    ledger = provider.stats()
    assert (ledger["started"], ledger["ended"], ledger["live"]) == (3, 3, 0)
    (processor,) = ledger["processors"]
    assert (processor["processor"], processor["received"]) == ("batch", 3)


def test_a_stage_in_front_of_the_simple_processor_works_as_well():
    exporter = Recording()
    stage = Withholding(SimpleSpanProcessor(exporter))
    stage.on_end(build_span("a"))
    stage.on_end(build_span("held"))
    assert (exporter.names, stage.received()) == (["a"], 2)
    assert not hasattr(stage, "after_hand_out")
    assert not hasattr(stage, "employ")
    assert stage.flush_or_keep(100) is True


def test_an_unsampled_span_goes_past_the_stage():
    stage = Withholding(BatchSpanProcessor(Recording()))
    unsampled = TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("held")
    unsampled._anchor = (0, *unsampled._anchor[1:])
    stage.on_end(unsampled)
    assert (stage.held, stage.stats()["not_sampled"]) == ([], 1)
    stage.shutdown()


def test_what_is_asked_of_the_exporting_processor_is_answered_by_it():
    exporter = Keeping()
    batch = BatchSpanProcessor(exporter)
    stage = Stage(Stage(batch))
    assert stage.exporters == (exporter,)
    assert stage.takes_unfinished is False
    stage.after_hand_out = called = lambda: None
    assert batch.after_hand_out is stage.after_hand_out is called
    assert stage.employ == batch.employ
    exporter.may_go_on.set()
    stage.shutdown(1000)
    assert exporter.shutdowns == 1


def test_an_exporter_that_is_spared_outlives_the_stage():
    exporter = Recording()
    stage = Stage(BatchSpanProcessor(exporter))
    stage.spare([exporter])
    stage.shutdown(1000)
    assert exporter.shutdowns == 0


def test_what_cannot_be_sent_is_kept_through_a_stage():
    exporter = Keeping()
    stage = Stage(BatchSpanProcessor(exporter))
    stage.on_end(build_span("a"))
    assert stage.flush_or_keep(200) is False
    assert [span.name for span in exporter.kept] == ["a"]
    exporter.may_go_on.set()
    stage.shutdown(1000)


def test_a_flush_that_ran_out_of_time_says_so_through_a_stage():
    exporter = Hanging()
    stage = Stage(BatchSpanProcessor(exporter))
    stage.on_end(build_span("a"))
    assert stage.force_flush(100) is False
    exporter.may_go_on.set()
    assert stage.force_flush(5000) is True
    stage.shutdown(1000)


def test_where_nobody_behind_listens_to_the_start_nobody_is_told():
    provider = provider_with(Stage(BatchSpanProcessor(Recording())))
    binding = provider.get_tracer("t").binding
    assert (binding.on_start, binding.is_plain) == (None, True)
    provider.shutdown()


def test_who_listens_behind_a_stage_is_told_of_the_start_and_the_end():
    heard = []

    class Listening(Stage):
        def on_start(self, span, parent_context=None):
            heard.append(("start", span.name))

        def on_ending(self, span):
            heard.append(("ending", span.name))

    provider = provider_with(Stage(Listening(BatchSpanProcessor(Recording()))))
    provider.get_tracer("t").start_span("a").end()
    provider.shutdown()
    assert heard == [("start", "a"), ("ending", "a")]


def test_a_processor_that_keeps_no_ledger_cannot_stand_behind_a_stage():
    with pytest.raises(InvalidValueError, match=r"such as BatchSpanProcessor\(exporter\)"):
        Stage(SpanProcessor())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_starts_its_ledger_anew_behind_a_stage():
    provider = provider_with(Stage(BatchSpanProcessor(Recording())))
    provider.get_tracer("t").start_span("parent's").end()
    pid = os.fork()
    if not pid:
        provider.get_tracer("t").start_span("child's").end()
        ledger = provider.stats()
        os._exit(0 if (ledger["started"], ledger["ended"]) == (1, 1) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    provider.shutdown()
