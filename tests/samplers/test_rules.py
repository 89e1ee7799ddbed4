"""The first rule that matches decides, wherever the rules were written."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

import tracekit
from tracekit._ot_state import RANDOM_MASK, OtState
from tracekit.errors import ConfigurationError
from tracekit.sdk import ALWAYS_OFF, RuleSampler, TraceIdRatioBased

RANDOM = st.integers(0, RANDOM_MASK)
SHARES = st.floats(0.001, 1.0)


def is_kept(rules, name="n", kind=None, trace_id=1, otherwise=None, **attributes):
    given_ = {key.replace("__", "."): value for key, value in attributes.items()}
    sampler = RuleSampler(rules, otherwise)
    return sampler.should_sample(Context(), trace_id, name, kind, given_).decision.is_sampled()


@pytest.mark.parametrize(
    ("condition", "matching", "other"),
    [
        ("name=GET*", {"name": "GET /a"}, {"name": "POST /a"}),
        ('name="GET /a; b"', {"name": "GET /a; b"}, {"name": "GET"}),
        (r'name="/^GET /[ab];?$/"', {"name": "GET /a;"}, {"name": "GET /ab"}),
        ("kind=server", {"kind": SpanKind.SERVER}, {"kind": SpanKind.CLIENT}),
        ("kind=INTERNAL", {"kind": None}, {"kind": SpanKind.SERVER}),
        ("route=/health*", {"url__path": "/healthz"}, {"url__path": "/a/health"}),
        ("route=/users/{id}", {"http__route": "/users/{id}"}, {"http__route": "/users"}),
        ("route=/api/", {"url__path": "/v1/api"}, {"url__path": "/v1/a"}),
        ("method=post", {"http__request__method": "POST"}, {"http__request__method": "GET"}),
        ("host=*.internal", {"server__address": "a.internal"}, {"server__address": "internal"}),
        ("tenant=acme", {"tenant": "acme"}, {"tenant": "acme2"}),
        ("size=[12]?", {"size": 15}, {"size": 5}),
        ("cached=true", {"cached": True}, {"cached": False}),
        ("tenant=*", {"tenant": ""}, {}),
        ("route=/a kind=server", {"url__path": "/a", "kind": SpanKind.SERVER}, {"url__path": "/a"}),
    ],
)
def test_each_condition(condition, matching, other):
    assert not is_kept(f"drop {condition}", **matching)
    assert is_kept(f"drop {condition}", **other)


def test_the_route_is_looked_at_before_the_path():
    attributes = {"http__route": "/users/{id}", "url__path": "/users/7"}
    assert is_kept("drop route=/users/7", **attributes)


def test_the_first_match_wins():
    rules = "keep route=/health/deep; drop route=/health*; keep"
    assert is_kept(rules, url__path="/health/deep")
    assert not is_kept(rules, url__path="/healthz")
    assert is_kept(rules, url__path="/cart")


def test_what_no_rule_matches_is_the_other_samplers():
    assert not is_kept("keep name=a", name="b", otherwise=ALWAYS_OFF)
    assert is_kept("keep name=a", name="b")


def test_a_rate_has_a_bucket_for_each_rule():
    sampler = RuleSampler("0.001/s burst=3 name=a; 0.001/s name=b")
    for name, expected in (("a", 3), ("b", 1)):
        results = [sampler.should_sample(Context(), 1, name) for _ in range(9)]
        assert sum(result.decision.is_sampled() for result in results) == expected


def test_what_each_rule_decided_is_counted():
    sampler = RuleSampler("drop name=a; keep name=b; drop name=c", ALWAYS_OFF)
    for name in ("a", "a", "b", "d"):
        sampler.should_sample(Context(), 1, name)
    assert sampler.counts() == {
        "1: drop name=a": {"kept": 0, "sampled_out": 2},
        "2: keep name=b": {"kept": 1, "sampled_out": 0},
        "3: drop name=c": {"kept": 0, "sampled_out": 0},
        "otherwise": {"kept": 0, "sampled_out": 1},
    }


def test_the_ledger_says_which_rule_sampled_out():
    tracekit.configure(exporters="none", rules="drop name=health; keep name=pay", sampler=0.0)
    for name in ("health", "health", "pay", "other"):
        with tracekit.span(name):
            pass
    stats = tracekit.stats()
    by_rule = stats["sampling"]["rules"]
    assert by_rule["1: drop name=health"] == {"kept": 0, "sampled_out": 2}
    assert by_rule["2: keep name=pay"] == {"kept": 1, "sampled_out": 0}
    assert sum(counts["sampled_out"] for counts in by_rule.values()) == stats["sampled_out"]
    assert sum(counts["kept"] for counts in by_rule.values()) == stats["started"]


def test_a_rule_may_spread_its_rate_over_operations():
    sampler = RuleSampler("drop name=health; adaptive:5/s kind=server; adaptive:2 name=b; keep")
    assert "AdaptiveSampler{5/s},AdaptiveSampler{2/s}" in repr(sampler)
    result = sampler.should_sample(Context(), 1, "a", SpanKind.SERVER)
    assert result.trace_state["ot"] == "th:0"


WRITTEN = [
    "drop route=/health*; 10% name=b; 5/s name=c burst=20; keep",
    "\n  drop route=/health*\n\n  10% name=b\n  5/s name=c burst=20\n  keep;",
    '[{"keep": 0.0, "route": "/health*"}, {"keep": 0.1, "name": "b"},'
    ' {"keep": "5/s", "burst": 20, "name": "c"}, {"keep": true}]',
    [
        {"keep": False, "route": "/health*"},
        {"keep": "10%", "name": "b"},
        "5/s burst=20 name=c",
        "1",
    ],
]


@pytest.mark.parametrize("rules", WRITTEN)
def test_one_language_in_every_place(rules):
    text = repr(RuleSampler(rules)).replace("TraceIdRatioBased{0.000000}", "AlwaysOffSampler")
    assert text == (
        "RuleSampler{AlwaysOffSampler,TraceIdRatioBased{0.100000},RateLimitingSampler{5/s,20},"
        "AlwaysOnSampler;otherwise:AlwaysOnSampler}"
    )
    assert not is_kept(rules, url__path="/healthz")


@given(SHARES, RANDOM)
def test_a_kept_trace_says_its_threshold_and_reaches_it(share, trace_id):
    result = RuleSampler([{"keep": share}]).should_sample(Context(), trace_id or 1, "n")
    state = OtState.of(result.trace_state)
    expected = TraceIdRatioBased(share).should_sample(Context(), trace_id or 1, "n")
    assert result.decision is expected.decision
    if result.decision.is_sampled() and share < 1:
        assert state.threshold == TraceIdRatioBased(share).threshold
        assert state.keeps(trace_id or 1)
    else:
        assert state.threshold is None


@given(SHARES, SHARES, RANDOM)
def test_a_service_with_a_larger_share_keeps_what_one_with_a_smaller_one_keeps(one, two, trace_id):
    small, large = sorted((one, two))
    if is_kept([{"keep": small}], trace_id=trace_id or 1):
        assert is_kept([{"keep": large}], trace_id=trace_id or 1)


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            "keep name=b; sometimes name=a",
            r"rule 2 \('sometimes name=a' at position 14\).*no share.*keep",
        ),
        ("keep name=a; drop b", r"rule 2, position 19: 'b' is no condition.*field=pattern"),
        ("drop name=", r"rule 1, position 6"),
        ("name=a", r"rule 1.*begins with 'name=a'.*keep, drop"),
        ('drop name="a', r"position 11: a quote is not closed"),
        ("drop name=/(/", r"rule 1.*no regular expression"),
        ("drop kind=servant", r"rule 1.*unknown kind 'servant'.*client, consumer"),
        ("120% name=a", r"rule 1.*no share"),
        ("0/s name=a", r"rule 1.*number above 0"),
        ("x/s name=a", r"rule 1.*'x/s' is no rate"),
        ("adaptive:many/s name=a", r"rule 1.*'adaptive:many/s' is no target.*adaptive:5/s"),
        ("adaptive:5/s burst=9", r"rule 1.*a burst needs a rate"),
        ("keep burst=5", r"rule 1.*a burst needs a rate"),
        ("5/s burst=none", r"rule 1.*5/s, and burst=20"),
        ("drop; keep name=a", r"rule 2.*rule 1 already matches"),
        ("drop name=a; keep kind=server name=a", r"rule 2.*rule 1 already matches"),
        ('[{"keep": 1]', r"as JSON: .*column 12"),
        ('[{"name": "a"}]', r"rule 1: it does not say what it keeps"),
        ([5], r"rule 1: 5 is no rule"),
        (["keep; drop"], r"rule 1: 'keep; drop' is not one rule"),
        (5, r"5 is no list of rules"),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place_and_what_to_write(rules, said):
    with pytest.raises(ConfigurationError, match=said) as raised:
        RuleSampler(rules)
    assert "as in: drop route=/health" in str(raised.value)


def started(**options):
    tracekit.configure(exporters="memory", **options)
    with tracekit.span("a") as one, tracekit.span("b") as below:
        pass
    with tracekit.span("b") as two:
        pass
    return [span.is_recording() or span.get_span_context().trace_flags.sampled == 1
            for span in (one, below, two)]  # fmt: skip


def test_configure_takes_rules_for_roots_and_children_follow():
    assert started(rules="drop name=b") == [True, True, False]
    assert started(rules="drop name=a") == [False, False, True]


def test_the_sampler_decides_where_no_rule_does():
    assert started(rules="keep name=a", sampler=0.0) == [True, True, False]


def test_without_parentbased_every_span_is_asked():
    assert started(rules="drop name=b", sampler="always_on") == [True, False, False]


def test_the_environment_has_rules(monkeypatch):
    monkeypatch.setenv("TRACEKIT_RULES", "drop name=b")
    assert started() == [True, True, False]
    monkeypatch.setenv("TRACEKIT_RULES", json.dumps([{"keep": 0, "name": "a"}]))
    assert started() == [False, False, True]


def test_the_samplers_argument_has_rules(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_rules")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "drop name=b")
    assert started() == [True, True, False]


def test_the_project_file_has_rules(monkeypatch, tmp_path):
    table = '[[tool.tracekit.rules]]\nkeep = "drop"\nname = "b"\n'
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    assert started() == [True, True, False]


def test_wrong_rules_stop_configure_with_their_source(monkeypatch):
    monkeypatch.setenv("TRACEKIT_RULES", "often")
    with pytest.raises(ConfigurationError, match=r"TRACEKIT_RULES: sampling rules, rule 1"):
        tracekit.configure(exporters="none")
