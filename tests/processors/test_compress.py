"""Of siblings that are alike the first few are exported, and one that stands for the rest."""

from __future__ import annotations

import os
import threading
from collections import Counter

import pytest
from click.testing import CliRunner
from opentelemetry.trace import SpanContext, SpanKind, StatusCode

import tracekit
from tracekit.cli._fate import explain, fate_of
from tracekit.cli._group import group
from tracekit.errors import ConfigurationError
from tracekit.exporters._tree import render_tree
from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.findings._history import history_of
from tracekit.findings.n_plus_one import n_plus_one
from tracekit.findings.redundant_calls import redundant_calls
from tracekit.findings.slow_step import slow_step
from tracekit.processors import compress
from tracekit.processors.compress import CompressionProcessor
from tracekit.sdk import BatchSpanProcessor, SimpleSpanProcessor, TracerProvider
from tracekit.store.reader import StoreReader
from tracekit.testing import ManualClock, build_span, reset
from tracekit.trace import traces_of

COUNT, TOTAL = "tracekit.compressed.count", "tracekit.compressed.total_ns"
LEAST, MOST = "tracekit.compressed.min_ns", "tracekit.compressed.max_ns"
MS = 1_000_000


class Watched:
    """A provider that compresses, a clock that is moved by hand, and what was exported."""

    def __init__(self, above=3, batch=False):
        self.exporter = InMemorySpanExporter()
        make = BatchSpanProcessor if batch else SimpleSpanProcessor
        self.stage = CompressionProcessor(make(self.exporter), above)
        self.clock = ManualClock()
        self.provider = TracerProvider(shutdown_on_exit=False, clock=self.clock.clock)
        self.provider.add_span_processor(self.stage)
        self.tracer = self.provider.get_tracer("t")

    def query(self, took_ms=1.0, name="SELECT users", fails=False, **attributes):
        attributes = {"db.system.name": "sqlite", "db.query.text": "SELECT ?", **attributes}
        span = self.tracer.start_span(name, kind=SpanKind.CLIENT, attributes=attributes)
        if fails:
            span.record_exception(ValueError("no"))
            span.set_status(StatusCode.ERROR)
        self.clock.advance(took_ms / 1000)
        span.end()

    def span(self, name="root"):
        return self.tracer.start_as_current_span(name)

    @property
    def spans(self):
        return self.exporter.get_finished_spans()

    @property
    def counts(self):
        return [span.attributes.get(COUNT, 1) for span in self.spans]


def test_the_first_few_stay_and_the_rest_is_one_span_with_count_and_times():
    watched = Watched()
    with watched.span():
        for took in (1, 1, 1, 2, 7, 3):
            watched.query(took)
            watched.clock.advance(0.001)
    assert watched.counts == [1, 1, 1, 3, 1]
    one = watched.spans[3]
    assert (one.name, one.kind) == ("SELECT users", SpanKind.CLIENT)
    found = {key: one.attributes[key] for key in (COUNT, TOTAL, LEAST, MOST)}
    assert found == {COUNT: 3, TOTAL: 12 * MS, LEAST: 2 * MS, MOST: 7 * MS}
    assert (one.end_time or 0) - one.start_time == 14 * MS  # with what lay between them
    assert one.parent.span_id == watched.spans[-1].context.span_id
    assert one.attributes["db.query.text"] == "SELECT ?"


def test_failed_siblings_are_told_apart():
    watched = Watched()
    with watched.span():
        for number in range(20):
            watched.query(fails=number % 2 == 1)
    compressed = {
        span.status.status_code: span for span in watched.spans if COUNT in span.attributes
    }
    counts = {code: span.attributes[COUNT] for code, span in compressed.items()}
    assert counts == {StatusCode.UNSET: 8, StatusCode.ERROR: 9}
    (event,) = compressed[StatusCode.ERROR].events
    assert event.attributes["exception.type"] == "ValueError"


def test_what_says_something_else_stays_apart():
    watched = Watched(above=1)
    with watched.span():
        for number in range(3):
            watched.query(**{"db.query.text": f"SELECT {number % 2}"})
            watched.query(name="SELECT items")
        with watched.span("other"):
            watched.query()
    found = Counter((span.name, span.attributes.get(COUNT, 1)) for span in watched.spans)
    assert found == {
        ("SELECT users", 1): 4,
        ("SELECT items", 1): 1,
        ("SELECT items", 2): 1,
        ("other", 1): 1,
        ("root", 1): 1,
    }


def test_values_that_differ_from_call_to_call_are_left_out_and_equal_ones_stay():
    key = "tracekit.db.parameters.hash"
    watched = Watched(above=1)
    for hashes in ("aaaa", "aabc"):
        with watched.span():
            for value in hashes:
                watched.query(**{key: value})
    same, differing = (span.attributes for span in watched.spans if COUNT in span.attributes)
    assert (same.get(key), differing.get(key)) == ("a", None)


def test_a_span_that_something_refers_to_stays():
    watched = Watched(above=1)
    with watched.span():
        for number in range(6):
            with watched.span("step"):
                if number in (2, 3):
                    with watched.span("child"):
                        pass
                if number == 4:
                    tracekit.inject({})
    steps = [span for span in watched.spans if span.name == "step"]
    assert sorted(span.attributes.get(COUNT, 1) for span in steps) == [1, 1, 1, 1, 2]
    known = {span.context.span_id for span in watched.spans}
    assert all(span.parent is None or span.parent.span_id in known for span in watched.spans)


def test_slow_spans_and_those_with_events_or_links_stay():
    watched = Watched(above=1)
    with watched.span():
        watched.query()
        watched.query(took_ms=51)
        for number in range(2):
            with watched.span("step") as span:
                span.add_event("something", {"number": number})
            with watched.span("step") as span:
                span.add_link(SpanContext(1, 2, True))
    assert set(watched.counts) == {1}
    assert watched.stage.stats()["compressed"] == 0


def test_roots_are_never_put_together():
    watched = Watched(above=1)
    for _ in range(5):
        watched.query()
    assert watched.counts == [1] * 5


def test_values_that_cannot_be_compared_stay():
    watched = Watched(above=1)
    with watched.span():
        for _ in range(4):
            watched.query(odd={"a": {"b": [1]}}, lists=[1, 2])
    assert sum(watched.counts) == 5


# Going on ----------------------------------------------------------------------------------


def ledger(watched):
    stats = watched.provider.stats()
    (processor,) = stats["processors"]
    (lane,) = processor["exporters"]
    return Counter(
        exported=lane["exported"],
        compressed=processor["compressed"],
        compressing=processor["compressing"],
        pending=processor["queued"] + lane["pending"],
        live=stats["live"],
    )


def test_where_the_parent_never_ends_a_flush_hands_on_and_the_sum_is_exact():
    watched = Watched()
    root = watched.span()
    root.__enter__()
    for _ in range(2):
        for _ in range(10):
            watched.query()
        watched.provider.force_flush()
    assert watched.counts == [1, 1, 1, 7, 10]
    assert ledger(watched) == Counter(exported=5, compressed=15, live=1)
    watched.query()
    watched.query()
    assert ledger(watched) == Counter(exported=5, compressed=16, compressing=1, live=1)
    watched.provider.shutdown()
    assert watched.counts == [1, 1, 1, 7, 10, 2]
    root.__exit__(None, None, None)


def test_what_waits_too_long_goes_on_without_a_flush(monkeypatch):
    monkeypatch.setattr(compress, "MAX_AGE_S", 0.0)
    watched = Watched(batch=True)
    watched.stage.next._delay_s = 0.01
    with watched.span():
        for _ in range(5):
            watched.query()
        for _ in range(500):
            if watched.counts == [1, 1, 1, 2]:
                break
            threading.Event().wait(0.01)
        assert watched.counts == [1, 1, 1, 2]
    watched.provider.shutdown()


def test_memory_is_bounded_by_parents_and_by_kinds_of_children(monkeypatch):
    monkeypatch.setattr(compress, "MAX_PARENTS", 20)
    monkeypatch.setattr(compress, "MAX_KINDS", 2)
    watched = Watched(above=1)
    roots = [watched.tracer.start_span("open") for _ in range(50)]
    from opentelemetry.trace import use_span

    for root in roots:
        with use_span(root):
            for number in range(10):
                watched.query(kind=number % 4)
    assert len(watched.stage._parents) == 20
    assert watched.stage._waiting <= 20 * 2
    found = ledger(watched)
    assert found.total() == 550
    watched.provider.shutdown()
    assert sum(watched.counts) == 500
    del roots


def test_names_without_end_are_not_remembered(monkeypatch):
    monkeypatch.setattr(compress, "MAX_NAMES", 5)
    monkeypatch.setattr(compress, "MAX_WAITING", 3)
    watched = Watched(above=1)
    with watched.span():
        for number in range(20):
            watched.query(name=f"item {number}")
        for _ in range(3):
            for number in range(20):
                watched.query(name=f"item {number}")
        (children,) = watched.stage._parents.values()
        assert len(children.numbers) == 5
        assert watched.stage._waiting == 3
    assert sum(watched.counts) == 81


def test_siblings_of_many_threads_are_counted_exactly():
    watched = Watched()
    with watched.span() as root:
        from opentelemetry.trace import use_span

        def work():
            with use_span(root):
                for _ in range(500):
                    watched.tracer.start_span("step").end()

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sum(watched.counts) == 2001
    assert ledger(watched)["compressed"] == 2001 - len(watched.spans)


def test_children_that_end_after_their_parent_are_counted_as_well():
    watched = Watched(above=1)
    with watched.span():
        late = [watched.tracer.start_span("late") for _ in range(5)]
    for span in late:
        span.end()
    watched.provider.shutdown()
    assert sum(watched.counts) == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_does_not_hand_on_what_is_the_parents():
    watched = Watched(above=1)
    with watched.span():
        for _ in range(4):
            watched.query()
        pid = os.fork()
        if not pid:
            watched.exporter.clear()
            watched.provider.force_flush()
            os._exit(len(watched.spans) + watched.stage.kept_back())
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert watched.counts == [1, 3, 1]


def test_a_span_that_is_not_ours_goes_past():
    watched = Watched(above=1)
    for _ in range(3):
        watched.stage.on_end(build_span("a", parent_id=7))
    assert watched.counts == [1, 1, 1]


# Who reads it -------------------------------------------------------------------------------


def loop(above, texts):
    watched = Watched(above=above)
    with watched.span():
        for number, text in enumerate(texts):
            hashed = {"tracekit.db.parameters.hash": str(number)} if "?" in text else {}
            watched.query(took_ms=2, **{"db.query.text": text, **hashed})
            watched.clock.advance(0.0001)
    (trace,) = traces_of(watched.spans)
    return trace


@pytest.mark.parametrize("above", [1, 5, 200])
def test_findings_are_the_same_with_and_without(above):
    queries = ["SELECT * FROM users WHERE id = ?"] * 100
    (found,) = n_plus_one(loop(above, queries), {})
    assert "100 times, one after another" in found.message
    assert not list(redundant_calls(loop(above, queries), {}))
    (found,) = redundant_calls(loop(above, ["SELECT count(*) FROM users"] * 100), {})
    assert "was asked 100 times" in found.message


def test_costs_of_findings_differ_by_little():
    queries = ["SELECT * FROM users WHERE id = ?"] * 100
    plain, put_together = (
        next(iter(n_plus_one(loop(above, queries), {}))).cost_ns for above in (200, 3)
    )
    assert put_together == pytest.approx(plain, rel=0.02)


def test_the_tree_says_how_many_and_how_long():
    trace = loop(1, ["SELECT 1"] * 1001)
    text = render_tree([node.span for node in trace.nodes], width=110, unicode=True)
    assert "3 spans · 1,002 before compression" in text
    assert "1,000× SELECT users" in text
    assert "mean 2.00 ms, max 2.00 ms" in text
    together = render_tree(
        [node.span for node in loop(4, ["SELECT 1"] * 104).nodes], width=110, unicode=True
    )
    assert "104× SELECT users" in together


def test_the_store_and_the_commands_keep_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACEKIT_STORE", str(tmp_path / "traces.db"))
    tracekit.configure("shop", exporters="store", compress=3)
    with tracekit.span("root"):
        for _ in range(1000):
            with tracekit.span("step", system="x"):
                pass
    tracekit.flush()
    reset()
    told = CliRunner().invoke(group, ["show", "--store", str(tmp_path / "traces.db")])
    assert told.exit_code == 0, told.output
    assert "1,000x step" in told.output or "1,000× step" in told.output
    with StoreReader(tmp_path / "traces.db") as reader:
        (usual,) = reader.operations(name="step")
    assert (usual.count, usual.max_ns < 5 * MS) == (4, True)  # not as long as all of the loop


def test_a_loop_is_no_slow_step_and_says_nothing_about_what_is_usual():
    trace = loop(1, ["SELECT * FROM users WHERE id = ?"] * 1000)
    assert not list(slow_step(trace, {}))
    usual = history_of([trace] * 20)
    (query,) = (figures for (_, name, _), figures in usual.items() if name == "SELECT users")
    assert query.p95_ns == 2 * MS


@pytest.mark.parametrize("count", ["many", True, -5, float("nan"), 1e300, None])
def test_a_count_that_makes_no_sense_is_one(count):
    (trace,) = traces_of([build_span(attributes={COUNT: count, TOTAL: "x", MOST: count})])
    assert trace.nodes[0].count == 1


# Configuration ------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "stay"), [(True, 10), (2, 2), ("3", 3), (False, 50), (None, 50)])
def test_how_many_stay_is_configured(value, stay):
    exporter = InMemorySpanExporter()
    tracekit.configure(exporters=exporter, compress=value)
    with tracekit.span("root"):
        for _ in range(50):
            with tracekit.span("step"):
                pass
    tracekit.flush()
    spans = exporter.get_finished_spans()
    assert sum(span.name == "step" and COUNT not in span.attributes for span in spans) == stay
    fate = fate_of({"stats": tracekit.stats()})
    assert fate.compressed == 51 - len(spans)
    told = " ".join(explain(fate, running=True))
    assert ("told by siblings that were alike" in told) is (stay < 50)
    reset()


@pytest.mark.parametrize("wrong", ["many", -1, 1.5, "1e3", [3]])
def test_a_wrong_number_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="how many siblings stay as they are"):
        tracekit.configure(compress=wrong, exporters="none")


def test_the_variable_is_named_where_it_is_wrong(monkeypatch):
    monkeypatch.setenv("TRACEKIT_COMPRESS", "yes please")
    with pytest.raises(ConfigurationError, match="TRACEKIT_COMPRESS"):
        tracekit.configure(exporters="none")


@pytest.mark.parametrize("above", [0, True, "3"])
def test_a_stage_made_by_hand_takes_a_number(above):
    with pytest.raises(ConfigurationError):
        CompressionProcessor(SimpleSpanProcessor(InMemorySpanExporter()), above)
