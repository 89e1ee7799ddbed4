"""The tail sampler keeps what matters, whole, and a fair share of the rest."""

from __future__ import annotations

import gc
import os
import threading
from dataclasses import replace

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.trace import StatusCode, TraceState

import tracekit
from processors.doubles import Keeping, wait_until
from tracekit._ot_state import RANDOM_MASK, threshold_of
from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.processors import _bounded_questions
from tracekit.processors.tail import TailSampler, TailSettings
from tracekit.samplers.traceidratio import TraceIdRatioBased
from tracekit.sdk import (
    BatchSpanProcessor,
    CompressionProcessor,
    ParentBased,
    SimpleSpanProcessor,
    SpanProcessor,
    TracerProvider,
)
from tracekit.testing import ManualClock, build_span

NOTHING = TailSettings(share=0.0, slow_percentile=None, linger_s=0.0)
"""Keeps nothing but for a reason that a test gives."""


class Tailed:
    """A provider with a tail sampler in front of memory, decided when it is flushed."""

    def __init__(self, settings: TailSettings, sampler=None, exporter=None) -> None:
        self.exporter = exporter or InMemorySpanExporter()
        self.clock = ManualClock()
        batch = BatchSpanProcessor(self.exporter, schedule_delay_millis=60_000)
        self.stage = TailSampler(batch, settings)
        self.provider = TracerProvider(sampler, shutdown_on_exit=False, clock=self.clock.clock)
        self.provider.add_span_processor(self.stage)
        self.tracer = self.provider.get_tracer("test")
        self.start = self.tracer.start_as_current_span

    def names(self) -> list[str]:
        assert self.provider.force_flush()
        return [span.name for span in self.exporter.get_finished_spans()]

    def ledger(self):
        """Return the ledger, after checking that every span is in it once."""
        stats = self.provider.stats()
        (processor,) = stats["processors"]
        tail, (lane,) = processor["tail"], processor["exporters"]
        ends = lane["exported"] + lane["spooled"] + lane["pending"]
        ends += sum(lane["failed"].values()) + sum(lane["dropped"].values())
        ends += processor["queued"] + sum(processor["dropped"].values())
        assert ends == sum(tail["kept"].values()), stats
        ends += processor["not_sampled"]
        assert stats["ended"] == processor["received"], stats
        assert stats["started"] == stats["live"] + stats["ended"], stats
        held_back = tail["held"] + sum(tail["sampled_out"].values())
        assert processor["received"] == ends + held_back, stats
        return tail


@pytest.fixture
def tailed():
    made: list[Tailed] = []

    def make(settings: TailSettings = NOTHING, **options) -> Tailed:
        made.append(Tailed(settings, **options))
        return made[-1]

    yield make
    for one in made:
        one.provider.shutdown(1)


def request(tail, name="GET /", children=2, took_s=0.0):
    """Make a small trace; return its root."""
    with tail.start(name) as root:
        for number in range(children):
            with tail.start(f"step {number}"):
                tail.clock.advance(took_s)
    return root


# Reasons ---------------------------------------------------------------------------------------


def test_a_trace_in_which_any_span_failed_is_kept_whole(tailed):
    tail = tailed()
    request(tail, "ordinary")
    with tail.start("failed"), tail.start("step"):
        with tail.start("query") as query:
            query.set_status(StatusCode.ERROR)
        with tail.start("cleanup"):
            pass
    assert tail.names() == ["query", "cleanup", "step", "failed"]
    assert tail.ledger()["kept"] == {"error": 4}


def test_an_exception_that_leaves_a_span_is_an_error(tailed):
    tail = tailed()
    with pytest.raises(KeyError), tail.start("failed"):
        raise KeyError
    assert tail.names() == ["failed"]


def test_an_error_that_was_taken_back_is_no_reason(tailed):
    tail = tailed()
    with tail.start("recovered") as span:
        span.set_status(StatusCode.ERROR)
        span.set_status(StatusCode.OK)
    assert tail.names() == []


def test_a_trace_that_took_as_long_as_the_threshold_is_kept(tailed):
    tail = tailed(replace(NOTHING, slow_s=0.5))
    request(tail, "quick", children=1, took_s=0.499)
    request(tail, "slow", children=1, took_s=0.5)
    assert tail.names() == ["step 0", "slow"]
    assert tail.ledger()["traces"]["kept"] == {"slow": 1}


def test_an_operation_is_slow_compared_with_itself(tailed):
    tail = tailed(replace(NOTHING, slow_percentile=95.0))
    for _ in range(100):
        request(tail, "report", children=1, took_s=2.0)
        request(tail, "ping", children=1, took_s=0.001)
    tail.names()
    tail.exporter.clear()
    request(tail, "report", children=1, took_s=2.0)
    request(tail, "ping", children=1, took_s=0.1)
    assert tail.names() == ["step 0", "ping"]


def test_an_attribute_that_is_known_at_the_end_only_can_keep_a_trace(tailed):
    tail = tailed(replace(NOTHING, rules="keep http.response.status_code=429"))
    request(tail, "ordinary")
    with tail.start("limited"), tail.start("call") as call:
        call.set_attribute("http.response.status_code", 429)
    assert tail.names() == ["call", "limited"]
    assert tail.ledger()["kept"] == {"rule 1": 2}


def test_the_first_rule_that_matches_says_what_share_is_kept(tailed):
    tail = tailed(replace(NOTHING, share=1.0, rules="drop name=ping; keep kind=internal"))
    request(tail, "ping", children=0)
    request(tail, "other", children=0)
    assert tail.names() == ["other"]
    assert tail.ledger()["sampled_out"] == {"rule 1": 1}


def test_a_rule_that_drops_does_not_drop_what_failed(tailed):
    tail = tailed(replace(NOTHING, rules="drop name=ping"))
    with tail.start("ping") as span:
        span.set_status(StatusCode.ERROR)
    assert tail.names() == ["ping"]


def test_a_predicate_sees_all_spans_of_a_trace(tailed):
    tail = tailed(replace(NOTHING, predicate=lambda spans: len(spans) > 3))
    request(tail, "small", children=2)
    request(tail, "large", children=3)
    assert tail.names()[-1] == "large"
    assert tail.ledger()["kept"] == {"predicate": 4}


def test_what_is_found_in_a_trace_is_why_it_is_kept(tailed):
    tail = tailed(replace(NOTHING, find=lambda spans: "n_plus_one" * (len(spans) > 3)))
    request(tail, "small", children=2)
    request(tail, "large", children=3)
    assert len(tail.names()) == 4
    assert tail.ledger()["kept"] == {"n_plus_one": 4}


def test_what_a_program_asks_for_is_kept(tailed):
    tail = tailed()
    request(tail, "ordinary")
    with tail.start("wanted"), tail.start("step"):
        tracekit.keep("experiment")
    assert tail.names() == ["step", "wanted"]
    assert tail.ledger()["kept"] == {"experiment": 2}


def test_reasons_with_an_id_in_them_do_not_make_counters_without_end(tailed):
    tail = tailed()
    for number in range(100):
        with tail.start("wanted") as span:
            span.keep(f"user {number}")
    tail.names()
    kept = tail.ledger()["kept"]
    assert len(kept) <= 65
    assert kept["other"] >= 36


def test_two_requests_of_one_trace_are_decided_apart(tailed):
    tail = tailed()
    remote = trace_api.SpanContext(7, 8, True, trace_api.TraceFlags(1))
    parent = trace_api.set_span_in_context(trace_api.NonRecordingSpan(remote))
    first = tail.tracer.start_span("first", parent)
    second = tail.tracer.start_span("second", parent)
    first.end()
    assert tail.names() == []
    second.set_status(StatusCode.ERROR)
    second.end()
    assert tail.names() == ["second"]


def test_a_sampler_that_is_asked_about_children_too_does_not_part_a_trace(tailed):
    class Asked:
        def should_sample(self, *arguments, **named):
            return ParentBased(TraceIdRatioBased(1.0)).should_sample(*arguments, **named)

        def get_description(self):
            return "Asked"

    tail = tailed(sampler=Asked())
    with tail.start("root"):
        with tail.start("step"):
            pass
        with tail.start("failed") as failed:
            failed.set_status(StatusCode.ERROR)
    assert tail.names() == ["step", "failed", "root"]


# Predicates that misbehave ---------------------------------------------------------------------


def test_a_predicate_that_raises_keeps_the_trace_and_is_told_of_once(tailed, caplog):
    def predicate(spans):
        raise ValueError("oh")

    tail = tailed(replace(NOTHING, predicate=predicate))
    for _ in range(3):
        request(tail, children=0)
    assert len(tail.names()) == 3
    assert tail.ledger()["kept"] == {"predicate_raised": 3}
    assert len(caplog.records) == 1
    assert "the trace was kept" in caplog.text


def test_a_predicate_that_takes_long_keeps_the_trace_and_holds_up_nobody(
    tailed, caplog, monkeypatch
):
    monkeypatch.setattr(_bounded_questions, "LONGEST_S", 0.05)
    may_go_on = threading.Event()

    def predicate(spans):
        if spans[-1].name == "hangs":
            may_go_on.wait(30)
        return False

    tail = tailed(replace(NOTHING, predicate=predicate))
    for name in ("before", "hangs", "after"):
        request(tail, name, children=0)
    assert tail.names() == ["hangs"]
    may_go_on.set()
    assert tail.ledger()["kept"] == {"predicate_slow": 1}
    assert tail.ledger()["sampled_out"] == {"share": 2}
    assert len(caplog.records) == 1


def test_when_predicates_hang_again_and_again_they_are_not_asked_any_more(
    tailed, caplog, monkeypatch
):
    monkeypatch.setattr(_bounded_questions, "LONGEST_S", 0.01)
    may_go_on = threading.Event()
    asked = []

    def predicate(spans):
        asked.append(spans)
        may_go_on.wait(30)

    tail = tailed(replace(NOTHING, predicate=predicate))
    for _ in range(20):
        request(tail, children=0)
    assert len(tail.names()) == 20
    may_go_on.set()
    assert len(asked) == _bounded_questions.MAX_LEFT_BEHIND
    assert tail.ledger()["kept"] == {"predicate_slow": 20}


def test_what_fails_while_a_predicate_is_asked_is_kept(tailed):
    def predicate(spans):
        late.set_status(StatusCode.ERROR)
        late.end()

    tail = tailed(replace(NOTHING, predicate=predicate))
    with tail.start("root"):
        late = tail.tracer.start_span("late")
    assert tail.names() == ["root", "late"]
    assert tail.ledger()["kept"] == {"error": 2}


def test_a_predicate_is_not_traced(tailed):
    def predicate(spans):
        asked.append(trace_api.get_current_span())

    asked = []
    tail = tailed(replace(NOTHING, predicate=predicate))
    request(tail, children=0)
    tail.names()
    assert asked == [trace_api.INVALID_SPAN]


# By chance -------------------------------------------------------------------------------------


def test_what_is_kept_by_chance_is_what_a_head_sampler_of_that_share_keeps(tailed):
    tail = tailed(replace(NOTHING, share=0.25))
    expected = [
        root.trace_id
        for root in [request(tail, children=0) for _ in range(400)]
        if root.trace_id & RANDOM_MASK >= threshold_of(0.25)
    ]
    tail.names()
    assert [span.trace_id for span in tail.exporter.get_finished_spans()] == expected
    assert 50 < len(expected) < 150


def test_randomness_that_the_caller_sent_decides(tailed):
    tail = tailed(replace(NOTHING, share=0.5))
    for digit in "0", "f":
        state = TraceState([("ot", f"rv:{digit * 14}")])
        remote = trace_api.SpanContext(7, 8, True, trace_api.TraceFlags(1), state)
        parent = trace_api.set_span_in_context(trace_api.NonRecordingSpan(remote))
        tail.tracer.start_span(digit, parent).end()
    assert tail.names() == ["f"]


def test_what_was_kept_by_chance_says_how_many_it_stands_for(tailed):
    tail = tailed(replace(NOTHING, share=0.25))
    while not tail.exporter.get_finished_spans():
        root = request(tail, children=1)
        _ = root.context  # somebody read it before the decision
        tail.names()
    for span in tail.exporter.get_finished_spans():
        assert span.context.trace_state.get("ot") == "th:c"
        assert span.trace_state_header == "ot=th:c"


def test_what_has_a_reason_stands_for_itself(tailed):
    tail = tailed(replace(NOTHING, share=0.25))
    with tail.start("wanted") as span:
        span.keep()
    tail.names()
    assert span.trace_state_header == ""


@pytest.mark.parametrize(("head", "tail_share", "written"), [(0.25, 0.5, "c"), (0.5, 0.25, "c")])
def test_the_smaller_of_two_shares_is_the_weight(tailed, head, tail_share, written):
    sampler = ParentBased(TraceIdRatioBased(head))
    tail = tailed(replace(NOTHING, share=tail_share), sampler=sampler)
    roots = [request(tail, children=0) for _ in range(400)]
    tail.names()
    spans = tail.exporter.get_finished_spans()
    assert {span.trace_state_header for span in spans} == {f"ot=th:{written}"}
    least = threshold_of(0.25)
    assert all(span.trace_id & RANDOM_MASK >= least for span in spans)
    ours = [root for root in roots if root.is_recording() or hasattr(root, "trace_id")]
    assert len(spans) == sum(1 for root in ours if root.trace_id & RANDOM_MASK >= least)


def test_a_reason_does_not_change_what_the_head_sampler_wrote(tailed):
    tail = tailed(sampler=ParentBased(TraceIdRatioBased(0.5)))
    for _ in range(20):
        with tail.start("failed") as span:
            span.set_status(StatusCode.ERROR)
    tail.names()
    kept = tail.exporter.get_finished_spans()
    assert {span.trace_state_header for span in kept} == {"ot=th:8"}


# Whether it is kept, while it is under way --------------------------------------------------------


def test_without_a_tail_sampler_nobody_knows_whether_a_span_is_kept():
    provider = TracerProvider(shutdown_on_exit=False)
    with provider.get_tracer("test").start_as_current_span("a") as span:
        span.keep()
        assert span.kept is None


def test_a_span_knows_that_its_trace_is_kept_once_there_is_a_reason(tailed):
    tail = tailed()
    with tail.start("root") as root:
        with tail.start("step") as step:
            assert (root.kept, step.kept) == (False, False)
            step.set_status(StatusCode.ERROR)
            assert (root.kept, step.kept) == (False, True)
        assert root.kept is True
    tail.names()
    assert root.kept is True


def test_a_span_knows_that_its_trace_was_asked_for(tailed):
    tail = tailed()
    with tail.start("root") as root, tail.start("step"):
        root.keep("debug")
        assert trace_api.get_current_span().kept is True


def test_a_root_that_has_been_slow_knows_it_before_it_ends(tailed):
    tail = tailed(replace(NOTHING, slow_s=0.0))
    with tail.start("root") as root:
        assert root.kept is True


def test_a_rule_is_known_to_keep_a_trace_before_it_ends(tailed):
    tail = tailed(replace(NOTHING, rules="keep tenant=acme; 50% tenant=*"))
    with tail.start("root") as root:
        root.set_attribute("tenant", "other")
        assert root.kept is False
        root.set_attribute("tenant", "acme")
        assert root.kept is True


def test_chance_is_no_reason_that_others_must_be_told(tailed):
    tail = tailed(replace(NOTHING, share=1.0))
    with tail.start("root") as root:
        assert root.kept is False
    assert tail.names() == ["root"]
    assert root.kept is False


def test_a_span_that_the_sampler_dropped_can_be_asked_all_the_same(tailed):
    tail = tailed(sampler=ParentBased(TraceIdRatioBased(0.0)))
    with tail.start("root") as root:
        root.keep()
        tracekit.keep()
        assert root.kept is False
    assert tail.names() == []
    with TracerProvider(TraceIdRatioBased(0.0)).get_tracer("t").start_as_current_span("a") as span:
        assert span.kept is None


def test_asking_never_raises(tailed):
    tracekit.keep()
    never_entered = tailed().start("never entered")
    never_entered.keep()
    assert never_entered.kept is None
    root = request(tailed(), children=0)
    root.keep()
    root.keep(None)
    assert root.kept is True


# Late spans --------------------------------------------------------------------------------------


def test_a_span_that_ends_within_the_linger_belongs_to_the_trace(tailed):
    tail = tailed(replace(NOTHING, linger_s=30.0))
    with tail.start("root"):
        late = tail.tracer.start_span("late")
    tail.stage._sweep()
    late.set_status(StatusCode.ERROR)
    late.end()
    assert tail.names() == ["root", "late"]


@pytest.mark.parametrize("is_kept", [True, False])
def test_a_span_that_ends_later_follows_the_decision(tailed, is_kept):
    tail = tailed()
    with tail.start("root") as root:
        late = tail.tracer.start_span("late")
        later = tail.tracer.start_span("later")
        if is_kept:
            root.keep()
    assert tail.names() == ["root"] * is_kept
    late.set_status(StatusCode.ERROR)
    late.end()
    later.end()
    assert tail.names() == ["root", "late", "later"] * is_kept
    assert tail.ledger()["traces"]["kept"] == ({"asked": 1} if is_kept else {})


def test_a_late_span_of_a_trace_kept_by_chance_has_its_weight(tailed):
    tail = tailed(replace(NOTHING, share=0.5))
    while not tail.exporter.get_finished_spans():
        with tail.start("root"):
            late = tail.tracer.start_span("late")
        tail.names()
    late.end()
    tail.names()
    assert late.trace_state_header == "ot=th:8"


def test_a_decision_is_forgotten_with_the_last_span_that_knows_it(tailed):
    def remembered():
        return [thing for thing in gc.get_objects() if type(thing) is tail.stage.new_local_trace]

    tail = tailed()
    with tail.start("root") as root:
        late = tail.tracer.start_span("late")
    tail.names()
    del root
    assert len(remembered()) == 1
    late.end()
    del late
    wait_until(lambda: not remembered())  # the worker may be looking at it


# Bounds ------------------------------------------------------------------------------------------


def test_a_trace_that_does_not_end_is_decided_about_in_time(tailed):
    tail = tailed(replace(NOTHING, share=1.0, max_age_s=0.0))
    root = tail.tracer.start_span("root")
    with trace_api.use_span(root), tail.start("step"):
        pass
    tail.stage._sweep()
    assert tail.ledger()["decided_early"] == {"age": 1}
    assert tail.ledger()["held"] == 0
    root.end()
    assert tail.names() == ["step", "root"]


def test_a_root_that_is_open_for_longer_than_the_threshold_is_slow(tailed):
    tail = tailed(replace(NOTHING, slow_s=0.0, max_age_s=0.0))
    root = tail.tracer.start_span("root")
    with trace_api.use_span(root), tail.start("step"):
        pass
    tail.stage._sweep()
    assert tail.ledger()["kept"] == {"slow": 1}
    root.end()


def test_a_large_trace_is_decided_about_early_and_streams_from_then_on(tailed):
    tail = tailed(replace(NOTHING, share=1.0, max_trace_spans=100))
    with tail.start("root"):
        for _ in range(1000):
            with tail.start("step"):
                pass
            assert tail.ledger()["held"] <= 140
            tail.stage._sweep()
    assert tail.ledger()["decided_early"] == {"size": 1}
    assert len(tail.names()) == 1001


def test_a_trace_that_was_dropped_early_is_kept_from_its_first_error_on(tailed):
    tail = tailed(replace(NOTHING, max_age_s=0.0))
    with tail.start("root") as root:
        with tail.start("early"):
            pass
        tail.stage._sweep()
        with tail.start("lost"):
            pass
        assert root.kept is False
        with tail.start("failed") as failed:
            failed.set_status(StatusCode.ERROR)
        assert root.kept is True
    assert tail.names() == ["failed", "root"]
    tally = tail.ledger()
    assert tally["sampled_out"] == {"share": 2}
    assert tally["decided_early"] == {"age": 1, "turned": 1}


def test_when_too_many_spans_are_held_the_oldest_traces_are_decided_about(tailed):
    tail = tailed(replace(NOTHING, share=1.0, max_spans=1000))
    roots = [tail.tracer.start_span(f"root {number}") for number in range(300)]
    for _ in range(10):
        for root in roots:
            with trace_api.use_span(root), tail.start("step"):
                pass
    tail.stage._sweep()
    assert tail.ledger()["held"] <= 1000
    assert tail.ledger()["decided_early"]["spans"] >= 200
    assert roots[0].local_trace.verdict is not None
    assert roots[-1].local_trace.verdict is None
    for root in roots:
        root.end()
    assert len(tail.names()) == 3300


def test_when_too_many_bytes_are_held_traces_are_decided_about(tailed):
    tail = tailed(replace(NOTHING, max_bytes=1_000_000))
    with tail.start("root"):
        for _ in range(100):
            with tail.start("step", attributes={"body": "x" * 50_000}):
                pass
            tail.stage._sweep()
    assert tail.ledger()["decided_early"] == {"size": 1}


def test_a_starved_worker_does_not_let_memory_grow(tailed):
    tail = tailed(replace(NOTHING, max_spans=5_000))
    tail.stage._wake = lambda: None
    most = 0
    for number in range(30_000):
        with tail.start("root"):
            pass
        if number % 500 == 0:
            most = max(most, tail.ledger()["held"])
    assert most <= 5_000


# Flushing, stopping, forking ---------------------------------------------------------------------


def test_the_worker_decides_soon_after_the_linger(tailed):
    tail = tailed(replace(NOTHING, share=1.0, linger_s=0.02))
    request(tail, children=0)
    wait_until(lambda: not tail.ledger()["held"])


def test_a_flush_decides_also_about_what_is_under_way(tailed):
    tail = tailed()
    with tail.start("root") as root:
        with tail.start("failed") as failed:
            failed.set_status(StatusCode.ERROR)
        assert tail.names() == ["failed"]
        assert root.kept is True
    assert tail.names() == ["failed", "root"]
    assert tail.ledger()["decided_early"] == {"flush": 1}


def test_shutting_down_decides_and_later_spans_are_counted(tailed):
    tail = tailed(replace(NOTHING, share=1.0))
    request(tail)
    open_still = tail.tracer.start_span("open")
    tail.provider.shutdown(5)
    assert len(tail.exporter.get_finished_spans()) == 3
    open_still.end()
    (processor,) = tail.provider.stats()["processors"]
    assert processor["tail"]["held"] == 0
    assert processor["dropped"]["after_shutdown"] == 1
    assert tail.provider.stats()["live"] == 0


def test_what_cannot_be_sent_in_time_is_decided_and_put_aside(tailed):
    exporter = Keeping()
    tail = tailed(exporter=exporter)
    with tail.start("wanted") as span:
        span.keep()
    request(tail, "ordinary")
    assert tail.provider.flush_or_keep(200) is False
    assert [span.name for span in exporter.kept] == ["wanted"]
    exporter.may_go_on.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_keeps_what_is_its_own_and_nothing_of_its_parent(tailed):
    tail = tailed(replace(NOTHING, share=1.0))
    request(tail, "parent's")
    with tail.start("root"), tail.start("step"):
        with tail.start("ended before"):
            pass
        pid = os.fork()
        if not pid:
            with tail.start("child's"):
                pass
            with tail.start("child's"):
                pass
            names = tail.names()
            is_right = names == ["child's", "child's"] and tail.ledger()["held"] == 0
            os._exit(0 if is_right else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert sorted(set(tail.names())) == [
        "ended before",
        "parent's",
        "root",
        "step",
        "step 0",
        "step 1",
    ]


# Among the other parts ---------------------------------------------------------------------------


def test_it_stands_in_front_of_the_simple_processor_as_well():
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    stage = TailSampler(SimpleSpanProcessor(exporter), replace(NOTHING, share=1.0))
    provider.add_span_processor(stage)
    provider.get_tracer("test").start_span("a").end()
    wait_until(exporter.get_finished_spans)
    provider.shutdown()
    provider.get_tracer("test").start_span("dropped").end()


def test_a_stage_behind_it_lends_the_worker_of_the_batch_processor():
    exporter = InMemorySpanExporter()
    batch = BatchSpanProcessor(exporter, schedule_delay_millis=20)
    provider = TracerProvider(shutdown_on_exit=False)
    stage = TailSampler(CompressionProcessor(batch), replace(NOTHING, share=1.0))
    provider.add_span_processor(stage)
    provider.get_tracer("test").start_span("a").end()
    wait_until(exporter.get_finished_spans)
    assert "tracekit-tail" not in {thread.name for thread in threading.enumerate()}
    provider.shutdown()


def test_who_listens_behind_it_is_told_of_the_start():
    heard = []

    class Listening(BatchSpanProcessor):
        def on_start(self, span, parent_context=None):
            heard.append(span.name)

    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(TailSampler(Listening(InMemorySpanExporter()), NOTHING))
    provider.get_tracer("test").start_span("a").end()
    provider.shutdown()
    assert heard == ["a"]


def test_where_nobody_listens_to_the_start_spans_take_the_short_way(tailed):
    binding = tailed().tracer.binding
    assert binding.is_plain
    assert binding.keeps_roots
    assert binding.on_end.__name__ == "on_end_sampled"


def test_beside_other_processors_it_is_told_of_every_span(tailed):
    seen = []

    class Looking(SpanProcessor):
        def on_end(self, span):
            seen.append(span.name)

    tail = tailed()
    tail.provider.add_span_processor(Looking())
    request(tail, "ordinary", children=0)
    assert tail.names() == []
    assert seen == ["ordinary"]


def test_a_span_that_nobody_decides_about_is_passed_on(tailed):
    tail = tailed()
    tail.stage.on_end(build_span("of another provider"))
    assert tail.names() == ["of another provider"]


def test_a_span_that_is_only_recorded_is_counted_and_not_held(tailed):
    from tracekit.model import Decision, SamplingResult

    class RecordOnly:
        def should_sample(self, *arguments, **named):
            return SamplingResult(Decision.RECORD_ONLY)

        def get_description(self):
            return "RecordOnly"

    tail = tailed(sampler=RecordOnly())
    with tail.start("a") as span:
        span.keep()
    assert tail.names() == []
    assert tail.ledger()["held"] == 0


def test_settings_can_be_changed_while_traces_are_held(tailed):
    tail = tailed()
    request(tail, "held", children=0)
    tail.stage.use(replace(NOTHING, share=1.0))
    assert tail.names() == ["held"]


def test_what_was_learned_of_durations_outlives_a_change(tailed):
    tail = tailed(replace(NOTHING, slow_percentile=90.0))
    for _ in range(40):
        request(tail, children=1, took_s=0.01)
    tail.names()
    tail.exporter.clear()
    tail.stage.use(replace(NOTHING, slow_percentile=90.0, linger_s=0.1))
    request(tail, children=1, took_s=1.0)
    assert tail.names() == ["step 0", "GET /"]


def test_a_trace_that_was_begun_before_a_change_of_processors_is_finished(tailed):
    tail = tailed()
    with tail.start("root") as root:
        with tail.start("step"):
            pass
        root.keep()
        later = InMemorySpanExporter()
        stage = TailSampler(BatchSpanProcessor(later, schedule_delay_millis=60_000), NOTHING)
        tail.provider.reconfigure([stage])
        with tail.start("after"):
            pass
    assert tail.provider.force_flush()
    assert [span.name for span in tail.exporter.get_finished_spans()] == ["step"]
    assert [span.name for span in later.get_finished_spans()] == ["after"]
    assert tail.provider.stats()["live"] == 0
