"""Spans that a rule calls noise are not exported, and nothing refers to them."""

from __future__ import annotations

import logging
import os
from collections import Counter

import pytest
from opentelemetry import trace as trace_api
from opentelemetry.context import Context
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState

import tracekit
from tracekit.errors import ConfigurationError
from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.processors._drop_rules import DropRules
from tracekit.processors.drop import DropProcessor
from tracekit.propagators.tracecontext import TraceContextPropagator
from tracekit.samplers.parentbased import ParentBased
from tracekit.samplers.ratelimiting import RateLimitingSampler
from tracekit.sdk import SimpleSpanProcessor, TracerProvider
from tracekit.testing import reset

SERVER, CLIENT, INTERNAL = SpanKind.SERVER, SpanKind.CLIENT, SpanKind.INTERNAL


class Watched:
    """A provider with the drop stage, and what was exported."""

    def __init__(self, rules=True, sampler=None):
        self.exporter = InMemorySpanExporter()
        rules = DropRules.from_setting(rules, "argument")
        self.stage = DropProcessor(SimpleSpanProcessor(self.exporter), rules)
        self.provider = TracerProvider(sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(self.stage)
        self.tracer = self.provider.get_tracer("t")

    def span(self, name, kind=INTERNAL, **attributes):
        return self.tracer.start_as_current_span(name, kind=kind, attributes=attributes)

    def request(self, path, method="GET", **more):
        attributes = {"url.path": path, "http.request.method": method, **more}
        return self.tracer.start_as_current_span("GET", kind=SERVER, attributes=attributes)

    @property
    def names(self):
        return [span.name for span in self.exporter.get_finished_spans()]

    def parents(self):
        spans = self.exporter.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans}
        return {span.name: span.parent and names[span.parent.span_id] for span in spans}

    def ledger(self):
        stats = self.provider.stats()
        (processor,) = stats["processors"]
        (lane,) = processor["exporters"]
        filtered = Counter(stats["filtered"]) + Counter(processor["filtered"])
        return lane["exported"], dict(filtered), stats["live"]


# Health checks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/health", "/healthz", "/livez", "/readyz", "/ping", "/health/", "/-/ready"]
)
def test_a_health_check_goes_with_all_that_it_does(path):
    watched = Watched()
    with watched.request(path) as request:
        assert not request.is_recording()
        with watched.span("SELECT 1", CLIENT), watched.span("inner"):
            pass
    with watched.request("/orders"):
        pass
    assert watched.names == ["GET"]
    assert watched.ledger() == (1, {"health": 3}, 0)


def test_a_health_check_that_a_caller_traces_stays_in_the_callers_trace():
    watched = Watched()
    headers = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
    caller = TraceContextPropagator().extract(headers, Context())
    checked = watched.tracer.start_span("GET", caller, SERVER, {"url.path": "/health"})
    served = watched.tracer.start_span("GET", caller, SERVER, {"url.path": "/orders"})
    assert (checked.is_recording(), served.is_recording()) == (False, True)
    told = checked.get_span_context()
    assert (told.trace_id, told.trace_flags.sampled) == (int("a" * 32, 16), False)
    assert watched.provider.stats()["filtered"] == {"health": 1}


@pytest.mark.parametrize(
    "attributes",
    [
        {"url.path": "/orders", "user_agent.original": "kube-probe/1.30"},
        {"url.path": "/", "user_agent.original": "ELB-HealthChecker/2.0"},
        {"http.target": "/healthz?full=1", "http.method": "GET"},
        {"http.target": "/", "http.user_agent": "GoogleHC/1.0"},
        {"rpc.method": "grpc.health.v1.Health/Check"},
        {"rpc.service": "grpc.health.v1.Health", "rpc.method": "Watch"},
    ],
)
def test_a_health_check_is_known_by_its_path_or_by_who_asks(attributes):
    watched = Watched()
    with watched.span("check", SERVER, **attributes):
        pass
    assert watched.names == []


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        (SERVER, {"url.path": "/api/healthy-food"}),
        (SERVER, {"url.path": "/pingpong"}),
        (SERVER, {"url.path": "/ping", "http.request.method": "POST"}),
        (SERVER, {"url.path": "/patients/1/health"}),
        (SERVER, {"url.path": 5}),
        (SERVER, {}),
        (CLIENT, {"url.path": "/health", "url.full": "http://other/health"}),
        (INTERNAL, {"url.path": "/health"}),
    ],
)
def test_what_only_looks_like_a_health_check_stays(kind, attributes):
    watched = Watched()
    with watched.span("span", kind, **attributes):
        pass
    assert watched.names == ["span"]


@pytest.mark.parametrize(
    ("attributes", "left"),
    [
        ({"url.path": "/healthz", "http.request.method": "GET"}, 0),
        ({"rpc.system.name": "grpc", "rpc.method": "grpc.health.v1.Health/Check"}, 0),
        ({"rpc.system.name": "grpc", "rpc.method": "shop.Orders/Get"}, 1),
        ({"url.path": ["/healthz"]}, 1),
        (None, 1),
    ],
)
def test_a_root_that_an_instrumentation_starts_is_looked_at_too(attributes, left):
    watched = Watched()
    watched.tracer.start_span("x", Context(), SERVER, attributes).end()
    watched.tracer.start_span("x", kind=SERVER, attributes=attributes).end()
    assert len(watched.names) == 2 * left


@pytest.mark.parametrize("rules", [True, "pings"])
def test_a_check_that_the_program_makes_itself_stays(rules):
    watched = Watched(rules)
    with watched.span("test"):
        with watched.request("/healthz"):
            pass
        attributes = {"url.path": "/healthz"}
        watched.tracer.start_span("by hand", None, SERVER, attributes).end()
    assert watched.names == ["GET", "by hand", "test"]


def test_a_health_check_tells_those_it_calls_not_to_record_either():
    watched = Watched()
    state = TraceState([("vendor", "x")])
    caller = SpanContext(0xA, 0xB, True, TraceFlags(3), state)
    context = trace_api.set_span_in_context(trace_api.NonRecordingSpan(caller))
    attributes = {"url.path": "/healthz"}
    span = watched.tracer.start_span("GET", context, SERVER, attributes)
    told = span.get_span_context()
    assert (told.trace_id, told.trace_flags, told.trace_state) == (0xA, 2, state)
    assert told.span_id not in (0, 0xB)


def test_a_health_check_uses_up_nothing_of_a_limited_rate():
    watched = Watched(sampler=ParentBased(RateLimitingSampler(1, burst=1)))
    for _ in range(3):
        with watched.request("/healthz"), watched.span("inner"):
            pass
    for _ in range(2):
        with watched.request("/orders"):
            pass
    stats = watched.provider.stats()
    assert (stats["filtered"], stats["sampled_out"]) == ({"health": 6}, 1)


def test_with_the_default_ordinary_spans_start_and_end_as_without_rules():
    binding = Watched().tracer.binding
    assert (binding.is_plain, binding.keeps_roots, binding.asks_all) == (True, True, False)
    watched = Watched()
    assert watched.stage.on_end_sampled == watched.stage.pass_on


# Rules of one's own -------------------------------------------------------------------------


def test_a_dropped_span_leaves_its_children_to_the_nearest_that_is_kept():
    watched = Watched("drop name=noise")
    with watched.span("root"):
        with watched.span("noise"), watched.span("noise"), watched.span("kept"):
            watched.tracer.start_span("leaf of kept").end()
            with watched.span("noise"), watched.span("leaf"):
                pass
        with watched.span("beside"):
            pass
    expected = {"leaf": "kept", "kept": "root", "beside": "root", "root": None}
    assert watched.parents() == {**expected, "leaf of kept": "kept"}
    assert watched.ledger() == (5, {"drop name=noise": 3}, 0)


def test_a_dropped_span_shows_the_ids_of_the_one_above_it():
    watched = Watched("drop name=noise kind=client")
    with watched.span("root") as root, watched.span("noise", CLIENT) as noise:
        assert noise.get_span_context() == root.get_span_context()
        assert not noise.is_recording()
        headers = tracekit.inject({})
    root_id = f"{root.get_span_context().span_id:016x}"
    assert headers["traceparent"].split("-")[2:] == [root_id, "03"]


def test_what_a_dropped_span_records_goes_with_it_and_an_exception_goes_on():
    watched = Watched("drop name=noise")
    with (
        pytest.raises(ValueError, match="x"),
        watched.span("root"),
        watched.span("noise") as noise,
    ):
        noise.add_event("event")
        noise.add_link(SpanContext(1, 2, True))
        noise.set_attribute("a", 1)
        noise.record_exception(KeyError("y"))
        raise ValueError("x")
    (root,) = watched.exporter.get_finished_spans()
    assert (root.name, root.links) == ("root", ())
    assert root.status.description == "ValueError: x"
    assert [event.attributes["exception.type"] for event in root.events] == ["ValueError"]


def test_a_dropped_local_root_takes_its_whole_trace_along():
    watched = Watched("drop name=poll")
    with watched.span("poll"), watched.span("inner"):
        pass
    caller = SpanContext(0xA, 0xB, True, TraceFlags(1))
    context = trace_api.set_span_in_context(trace_api.NonRecordingSpan(caller))
    with watched.tracer.start_as_current_span("poll", context), watched.span("inner"):
        pass
    assert watched.ledger() == (0, {"drop name=poll": 4}, 0)


def test_a_keep_in_front_is_an_exception():
    watched = Watched("keep route=/health/deep; drop route=/health*; keep name=a; drop name=?")
    for path in ("/health/deep", "/health/x", "/health"):
        with watched.request(path):
            pass
    for name in "ab":
        with watched.span(name):
            pass
    assert watched.names == ["GET", "a"]


def test_a_last_keep_keeps_health_checks_too():
    watched = Watched("drop name=noise; keep")
    with watched.request("/healthz"):
        pass
    assert watched.names == ["GET"]


def test_pings_are_known_by_name():
    watched = Watched("pings")
    with watched.span("root"):
        for name, attributes in {
            "PING": {"db.system.name": "redis", "db.operation.name": "PING"},
            "ping": {"db.system.name": "mongodb", "db.operation.name": "ping"},
            "sqlite": {"db.query.text": "select 1", "tracekit.db.ping": True},
            "GET": {"db.system.name": "redis", "db.operation.name": "GET"},
        }.items():
            with watched.span(name, CLIENT, **attributes):
                pass
    assert watched.names == ["GET", "root"]
    assert watched.ledger() == (2, {"pings": 3}, 0)


def test_rules_are_read_from_lists_and_json_too():
    listed = [{"keep": "drop", "name": "a"}, "drop name=b", "pings"]
    text = '[{"keep": 0, "name": "a"}, {"keep": false, "name": "b"}, "pings"]'
    for given in (listed, text):
        assert DropRules(given).names == ("drop name=a", "drop name=b", "pings", "health")


def test_generators_decorators_and_spans_started_by_hand_are_passed_over_as_well():
    watched = Watched("drop name=noise")
    with watched.span("root"):
        noise = watched.tracer.start_span("noise")
        context = trace_api.set_span_in_context(noise)
        watched.tracer.start_span("child", context).end()
        noise.end()
        noise.end()

        @watched.tracer.start_as_current_span("noise")
        def decorated():
            with watched.span("inside"):
                return 5

        assert decorated() == 5
    assert watched.parents() == {"child": "root", "inside": "root", "root": None}


# What is known only at the end --------------------------------------------------------------


def test_a_span_that_a_rule_matches_at_its_end_goes_if_nothing_refers_to_it():
    watched = Watched("drop name=query rows=0")
    with watched.span("root"):
        for rows in (0, 1, 0):
            with watched.span("query") as span:
                span.set_attribute("rows", rows)
    assert watched.names == ["query", "root"]
    assert watched.ledger() == (2, {"drop name=query rows=0": 2}, 0)


def test_a_name_that_was_updated_is_matched_too():
    watched = Watched('drop name="GET /x"')
    with watched.request("/x") as span:
        span.update_name("GET /x")
    assert watched.names == []


@pytest.mark.parametrize("by", ["child", "inject"])
def test_a_span_that_something_refers_to_stays_and_that_is_said_once(by, caplog):
    watched = Watched("drop name=query rows=0")
    for _ in range(2):
        with watched.span("query") as span:
            span.set_attribute("rows", 0)
            if by == "child":
                with watched.span("child"):
                    pass
            else:
                tracekit.inject({})
    assert watched.names.count("query") == 2
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "Name what is known at the start" in caplog.text
    assert watched.ledger()[1] == {}


def test_a_dropped_child_is_no_reason_to_keep_its_parent():
    watched = Watched("drop name=noise; drop name=query rows=0")
    with watched.span("root"), watched.span("query") as query:
        with watched.span("noise"):
            pass
        query.set_attribute("rows", 0)
    assert watched.names == ["root"]


def test_a_grandchild_below_a_dropped_span_is_a_reason_to_keep_its_grandparent():
    watched = Watched("drop name=noise; drop name=query rows=0")
    with watched.span("root"), watched.span("query") as query:
        with watched.span("noise"), watched.span("leaf"):
            pass
        query.set_attribute("rows", 0)
    assert watched.parents() == {"leaf": "query", "query": "root", "root": None}


# While it runs ------------------------------------------------------------------------------


def test_other_rules_can_be_used_while_it_runs():
    watched = Watched()
    with watched.span("a"), watched.span("b"):
        pass
    watched.stage.use("drop name=b; drop name=c late=1")
    with watched.span("a"), watched.span("b"), watched.span("c") as late:
        late.set_attribute("late", 1)
    watched.stage.use(True)
    with watched.span("a"), watched.span("b"):
        pass
    with watched.request("/ping"):
        pass
    watched.stage.use(False)
    with watched.request("/ping"):
        pass
    assert Counter(watched.names) == {"a": 3, "b": 2, "GET": 1}
    expected = {"drop name=b": 1, "drop name=c late=1": 1, "health": 1}
    assert watched.ledger() == (6, expected, 0)


def test_wrong_rules_change_nothing():
    watched = Watched("drop name=a")
    with pytest.raises(ConfigurationError):
        watched.stage.use("10%")
    with watched.span("root"), watched.span("a"):
        pass
    assert watched.names == ["root"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_counts_from_zero():
    watched = Watched("drop name=noise; drop late=1")
    with watched.span("root"), watched.span("noise"), watched.span("late") as late:
        late.set_attribute("late", 1)
    pid = os.fork()
    if not pid:
        before = watched.ledger()
        with watched.span("root"), watched.span("noise"):
            pass
        os._exit(0 if (before[1], watched.ledger()[1]) == ({}, {"drop name=noise": 1}) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# Bad input ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            "10% name=a",
            r"rule 1 .*'10%' neither keeps nor drops. Write keep, drop, health or pings",
        ),
        ("5/s name=a", r"shares go into rules="),
        ("drop name=a; drop", r"rule 2 .*it drops every span. Write a condition"),
        ("drop name=a burst=5", r"rule 1 .*it has a burst"),
        ("pigns", r"'pigns' neither keeps nor drops. Write keep, drop, health or pings"),
        ("pings name=a", r"'pings' neither keeps nor drops"),
        ("drop name=/(/", r"name=/\(/ is no regular expression"),
        ("drop kind=srever", r"unknown kind 'srever'. Write one of client, consumer"),
        ("drop name=a; drop name=a kind=client", r"rule 2 .*rule 1 already matches all"),
        ("keep; drop name=a", r"rule 2 .*rule 1 already matches all"),
        ("drop name=a name=b", r"rule 1 .*name cannot be both 'a' and 'b'"),
        ("drop kind=client kind=server", r"kind cannot be both"),
        ("name=a", r"rule 1 .*it begins with 'name=a'"),
        ('drop name="a', r"position 11: a quote is not closed"),
        ("drop name", r"rule 1, position 6: 'name' is no condition"),
        ("[{]", r"as JSON"),
        ([5], r"rule 1: 5 is no rule"),
        (5, r"5 is no list of rules"),
        (object(), r"is no list of rules"),
    ],
)
def test_a_wrong_rule_is_refused_by_number_and_remedy(rules, said):
    with pytest.raises(ConfigurationError, match=said) as caught:
        tracekit.configure(drop=rules, exporters="none")
    assert str(caught.value).startswith("drop: drop rules, ")
    assert "as in: keep route=/health/deep; drop name=PING" in str(caught.value)


def test_the_variable_is_named_where_it_is_wrong(monkeypatch):
    monkeypatch.setenv("TRACEKIT_DROP", "drop")
    with pytest.raises(ConfigurationError, match=r"^TRACEKIT_DROP: drop rules, rule 1"):
        tracekit.configure(exporters="none")


def test_attributes_that_cannot_be_read_drop_nothing():
    class Odd:
        __hash__ = None  # pyright: ignore[reportAssignmentType]

        def __str__(self):
            raise RuntimeError

    watched = Watched("drop name=a x=1; drop odd=1")
    with watched.tracer.start_as_current_span("a", attributes={"odd": Odd(), "x": 2}):
        pass
    with watched.tracer.start_as_current_span(["no", "name"], kind="no kind"):
        pass
    assert len(watched.names) == 2


# Configuration ------------------------------------------------------------------------------


@pytest.fixture
def configured():
    yield tracekit.configure
    reset()


def kept_by(configure, **settings):
    exporter = InMemorySpanExporter()
    configure(exporters=exporter, **settings)
    with tracekit.span("GET", kind=SERVER, **{"url.path": "/healthz"}):
        pass
    with tracekit.span("root"), tracekit.span("noise"):
        pass
    tracekit.flush()
    return [span.name for span in exporter.get_finished_spans()]


@pytest.mark.parametrize(
    ("drop", "names"),
    [
        (None, ["noise", "root"]),
        (True, ["noise", "root"]),
        (False, ["GET", "noise", "root"]),
        ("none", ["GET", "noise", "root"]),
        ("drop name=noise", ["root"]),
        ([{"keep": 0, "name": "noise"}, "keep"], ["GET", "root"]),
    ],
)
def test_what_is_dropped_is_configured(configured, drop, names):
    assert kept_by(configured, drop=drop) == names


def test_rules_come_from_the_environment_and_the_project(configured, monkeypatch, tmp_path):
    monkeypatch.setenv("TRACEKIT_DROP", "drop name=noise")
    assert kept_by(configured) == ["root"]
    monkeypatch.delenv("TRACEKIT_DROP")
    text = '[[tool.tracekit.drop]]\nkeep = "drop"\nname = "no*"\n'
    (tmp_path / "pyproject.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    assert kept_by(configured) == ["root"]


def test_rules_that_were_asked_for_work_without_an_exporter_of_ours(configured):
    exporter = InMemorySpanExporter()
    configured(exporters="none", processors=[SimpleSpanProcessor(exporter)], drop="drop name=b")
    with tracekit.span("a"), tracekit.span("b"), tracekit.span("c"):
        pass
    assert [span.name for span in exporter.get_finished_spans()] == ["c", "a"]
    assert tracekit.stats()["filtered"] == {"drop name=b": 1}


def test_stats_metrics_and_the_ledger_of_the_command_count_what_is_filtered(configured, caplog):
    from tracekit.cli._fate import explain, fate_of

    caplog.set_level(logging.DEBUG, "tracekit")
    kept_by(configured, drop="drop name=noise")
    fate = fate_of({"stats": tracekit.stats()})
    assert fate.filtered == {"health": 1, "drop name=noise": 1}
    told = explain(fate, running=True)
    assert "1 filtered: health checks, which are dropped by default" in told[0] + told[1]
    assert "the rule 'drop name=noise' of TRACEKIT_DROP" in told[0] + told[1]
