"""A tail sampler is set up from code, the environment or a file, and refuses what cannot work."""

from __future__ import annotations

import json

import pytest
from opentelemetry.trace import SpanKind

import tracekit
from tracekit.errors import ConfigurationError, InvalidValueError, UnknownNameError
from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.processors.tail import TailSampler, TailSettings
from tracekit.sdk import BatchSpanProcessor, RedactionProcessor


def configured(tail=None, **options):
    """Return the settings in force, or None where there is no tail sampler."""
    *_, last = tracekit.configure("shop", exporters="memory", tail=tail, **options).span_processors
    stage = last.next  # behind the drop rules
    return stage.settings if isinstance(stage, TailSampler) else None


@pytest.mark.parametrize("tail", [None, False, "false", "0", 0])
def test_without_being_asked_there_is_none(tail):
    assert configured(tail) is None


@pytest.mark.parametrize("tail", [True, "true", "1", 1, {}, TailSettings()])
def test_it_is_asked_for_by_name(tail):
    assert configured(tail) == TailSettings()


@pytest.mark.parametrize(
    ("tail", "share"), [(0.05, 0.05), ("5%", 0.05), ("0.05", 0.05), (0.0, 0.0), ({"share": 1}, 1)]
)
def test_a_number_is_the_share(tail, share):
    assert configured(tail) == TailSettings(share=share)


def test_the_environment_says_it_as_json(monkeypatch):
    table = {"share": 0.5, "slow_s": 2, "rules": "keep a=b", "max_spans": 10}
    monkeypatch.setenv("TRACEKIT_TAIL", json.dumps(table))
    assert configured() == TailSettings(share=0.5, slow_s=2, rules="keep a=b", max_spans=10)


def test_a_project_says_it_in_a_table(monkeypatch, tmp_path):
    table = '[tool.tracekit.tail]\nshare = 0.2\nlinger_s = 1\nrules = [{keep = 1, a = "b"}]\n'
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    found = configured()
    assert (found.share, found.linger_s, found.rules) == (0.2, 1, [{"keep": 1, "a": "b"}])


def test_it_stands_behind_redaction_and_in_front_of_the_exporters():
    provider = tracekit.configure("shop", exporters="memory", tail=True, redact=True)
    redact, drop = provider.span_processors
    assert isinstance(redact, RedactionProcessor)
    assert isinstance(drop.next.next, BatchSpanProcessor)


@pytest.mark.parametrize(
    "tail",
    [
        "perhaps",
        "{half",
        3,
        pytest.param(object(), id="an object"),
        1.5,
        "120%",
        {"share": -0.1},
        {"share": "half"},
        {"share": True},
        {"share": float("nan")},
        {"slow_s": -1},
        {"slow_percentile": 100},
        {"slow_percentile": 10},
        {"linger_s": 4000},
        {"max_age_s": "long"},
        {"max_spans": 0},
        {"max_trace_spans": 1.5},
        {"max_bytes": True},
        {"predicate": "spans"},
        {"findings": "n_plus_one"},
        {"rules": "sometimes name=a"},
        {"rules": "5/s name=a"},
        {"rules": "keep name=a; keep name=a"},
        {"rules": "200% name=a"},
        pytest.param(TailSampler(BatchSpanProcessor(InMemorySpanExporter())), id="a processor"),
    ],
    ids=str,
)
def test_what_cannot_work_is_refused_with_what_to_write(tail):
    with pytest.raises(ConfigurationError, match=r"tail|rules") as refused:
        tracekit.configure("shop", exporters="none", tail=tail)
    assert any(word in str(refused.value) for word in ("expected", "Write"))


def test_an_unknown_name_in_the_table_is_refused_with_the_known_ones():
    with pytest.raises(UnknownNameError, match=r"tail 'shares'.* Did you mean 'share'"):
        configured({"shares": 0.1})
    with pytest.raises(UnknownNameError, match=r"finding 'n_plus_two'.* Did you mean"):
        configured({"findings": ["n_plus_two"]})


def test_a_variable_that_is_wrong_is_named(monkeypatch):
    monkeypatch.setenv("TRACEKIT_TAIL", '{"share": 2}')
    with pytest.raises(ConfigurationError, match=r"TRACEKIT_TAIL: tail: share=2 is not valid"):
        configured()


def test_a_processor_that_keeps_no_ledger_cannot_stand_behind_it():
    with pytest.raises(InvalidValueError, match="BatchSpanProcessor"):
        TailSampler(object())


# Findings --------------------------------------------------------------------------------------


def two_traces():
    """Make an ordinary trace, and one that asks the same query again and again."""
    query = {"db.system.name": "sqlite", "db.query.text": "SELECT * FROM t WHERE id = 1"}
    for name, count in ("ordinary", 1), ("repeats", 30):
        with tracekit.span(name):
            for _ in range(count):
                with tracekit.span("SELECT t", kind=SpanKind.CLIENT, **query):
                    pass
    assert tracekit.flush()
    (processor,) = tracekit.stats()["processors"]
    return processor["tail"]["traces"]["kept"]


@pytest.mark.parametrize("findings", [True, ["redundant_calls", "n_plus_one"]])
def test_what_a_finding_says_of_a_trace_keeps_it(findings):
    configured({"share": 0, "slow_percentile": None, "findings": findings})
    kept = two_traces()
    assert sum(kept.values()) == 1
    assert set(kept) <= {"redundant_calls", "n_plus_one"}


def test_only_findings_that_were_named_count():
    configured({"share": 0, "slow_percentile": None, "findings": ["timeouts"]})
    assert two_traces() == {}


def test_the_part_of_a_trace_that_begins_elsewhere_is_nothing_wrong():
    configured({"share": 0, "slow_percentile": None, "findings": True})
    header = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
    with tracekit.continue_trace(header), tracekit.span("GET /"):
        pass
    assert tracekit.flush()
    (processor,) = tracekit.stats()["processors"]
    assert processor["tail"]["traces"]["kept"] == {}
