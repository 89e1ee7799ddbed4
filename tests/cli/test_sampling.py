"""`tracekit sampling`: the dry run says what a program with those settings would have kept."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from opentelemetry.trace import SpanKind, StatusCode

import tracekit as library
from tracekit.exporters._otlp_json import encode
from tracekit.sdk import InMemorySpanExporter, TraceIdRatioBased
from tracekit.store.writer import StoreWriter
from tracekit.testing import build_span

START = 1_700_000_000_000_000_000
SECOND = 1_000_000_000
IDS = [random.Random(number).getrandbits(128) for number in range(200)]


def stored(path: Path, spans) -> str:
    writer = StoreWriter(path, max_age_s=1e12)
    writer.write(list(spans))
    writer.close()
    return str(path)


def request(number, name="GET /cart", *, path="/cart", service="shop", failed=False, took_s=0.01):
    return build_span(
        name,
        trace_id=IDS[number],
        span_id=1,
        kind=SpanKind.SERVER,
        start_time=START + number * SECOND // 10,
        duration_ns=round(took_s * SECOND),
        status=StatusCode.ERROR if failed else StatusCode.UNSET,
        attributes={
            "http.request.method": "GET",
            "url.path": path,
            "http.route": path,
            "http.response.status_code": 500 if failed else 200,
        },
        service_name=service,
    )


@pytest.fixture
def shop(tmp_path):
    """200 requests in 20 s: every tenth to search, every hundredth fails."""
    return stored(
        tmp_path / "t.db",
        (
            request(number, failed=number % 100 == 55)
            if number % 10
            else request(number, "GET /search", path="/search")
            for number in range(200)
        ),
    )


@pytest.fixture
def dry(tracekit, shop):
    def run(*words, store=shop):
        result = tracekit("sampling", "--dry-run", "--json", "--store", store, *words)
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def test_with_nothing_said_everything_is_kept(dry):
    found = dry()
    assert found["total"]["traces"] == found["total"]["kept_traces"] == 200
    assert found["total"]["bytes"] == found["total"]["kept_bytes"] > 200 * 100
    assert found["spans"] == {"kept": 200}
    assert found["window_s"] == pytest.approx(19.9)


def test_a_share_keeps_the_traces_that_it_would_have_kept(dry):
    sampler = TraceIdRatioBased(0.3)
    expected = sum(sampler.should_sample(None, one, "n").decision.is_sampled() for one in IDS)
    found = dry("--sampler", "0.3")
    assert found["total"]["kept_traces"] == expected
    assert found["spans"] == {"kept": expected, "sampler": 200 - expected}


def test_rates_go_by_the_time_at_which_traces_began(dry):
    assert dry("--rules", "2/s burst=1")["total"]["kept_traces"] == pytest.approx(40, abs=2)
    assert dry("--sampler", "parentbased_adaptive:3")["total"]["kept_traces"] == pytest.approx(
        60, abs=20
    )


def test_operations_are_told_apart(dry):
    found = dry("--rules", "keep route=/search; drop")
    rows = {row["name"]: (row["traces"], row["kept_traces"]) for row in found["operations"]}
    assert rows == {"GET /search": (20, 20), "GET /cart": (180, 0)}


def test_a_server_span_has_its_method_for_a_name_when_it_starts(dry):
    """A rule for the name that is stored would keep nothing of it, and the dry run says so."""
    found = dry("--rules", 'drop name="GET /cart"; drop name=GET route=/search')
    assert found["total"]["kept_traces"] == 180
    assert found["rules_that_matched_nothing"] == ["1: drop name=GET /cart"]


def test_failed_and_slow_traces_are_kept_at_the_end(dry):
    found = dry("--tail", '{"share": 0.0, "slow_percentile": null}')
    assert found["total"]["kept_traces"] == 2
    assert found["reasons"] == {"error": 2}
    assert found["spans"] == {"kept": 2, "tail": 198}


def test_what_the_head_left_out_no_tail_brings_back(dry):
    assert dry("--sampler", "0", "--tail", "1.0")["total"]["kept_traces"] == 0


def test_a_caller_is_kept_with_what_it_called(dry, tmp_path):
    calls = [
        request(0),
        build_span(
            "GET",
            trace_id=IDS[0],
            span_id=2,
            parent_id=1,
            kind=SpanKind.CLIENT,
            start_time=START,
            duration_ns=SECOND // 100,
            service_name="shop",
        ),
        build_span(
            "GET /price",
            trace_id=IDS[0],
            span_id=3,
            parent_id=2,
            kind=SpanKind.SERVER,
            start_time=START,
            duration_ns=SECOND // 200,
            status=StatusCode.ERROR,
            service_name="prices",
        ),
    ]
    store = stored(tmp_path / "calls.db", [*calls, request(1)])
    found = dry("--tail", '{"share": 0.0, "slow_percentile": null}', store=store)
    assert found["total"]["kept_spans"] == 3
    assert found["reasons"] == {"error": 1, "a service that was called": 1}


def test_health_checks_and_what_is_below_them_are_dropped(dry, tmp_path):
    below = build_span(
        "SELECT 1", trace_id=IDS[1], span_id=2, parent_id=1, start_time=START + SECOND // 10
    )
    spans = [request(0), request(1, "GET /healthz", path="/healthz", service=""), below]
    found = dry(store=stored(tmp_path / "health.db", spans))
    assert found["spans"] == {"kept": 1, "drop: health": 2}
    assert dry("--drop", "false", store=str(tmp_path / "health.db"))["spans"] == {"kept": 3}


def test_it_says_what_a_program_with_those_settings_keeps(tracekit, tmp_path):
    """The same requests with the same ids: once kept whole and replayed, once really sampled."""

    class Ids:
        """The trace ids of a list, whichever of them are drawn."""

        number = 0
        ids = [random.Random(number).getrandbits(128) for number in range(300)]

        def generate_trace_id(self):
            return self.ids[Ids.number]

        def generate_span_id(self):
            return random.getrandbits(64) or 1

    def made(**settings):
        exporter = InMemorySpanExporter()
        library.configure("shop", exporters=exporter, id_generator=Ids(), **settings)
        for number in range(300):
            Ids.number = number
            given = {"http.request.method": "GET", "url.path": ("/a", "/b", "/ping")[number % 3]}
            with library.span("GET", kind=SpanKind.SERVER, **given) as span:
                with library.span("SELECT", kind=SpanKind.CLIENT):
                    pass
                if number % 50 == 7:
                    span.set_status(StatusCode.ERROR)
        library.flush()
        library.shutdown()
        return exporter.get_finished_spans()

    path = tmp_path / "all.json"
    path.write_text(json.dumps(encode(made(drop=False))))
    rules, tail = "drop route=/b; 60%", '{"share": 0.2, "slow_percentile": null, "linger_s": 0.0}'
    really = made(rules=rules, tail=json.loads(tail), drop=True)
    words = ("--rules", rules, "--tail", tail, "--file", str(path))
    result = tracekit("sampling", "--dry-run", "--json", *words)
    found = json.loads(result.stdout)
    assert found["total"]["traces"] == 300
    assert 0 < found["total"]["kept_spans"] == len(really) < 200


def test_a_price_says_what_a_month_costs(dry):
    found = dry("--rules", "keep route=/search; drop", "--price-per-million", "2")
    cost = found["cost"]
    assert (cost["all"], cost["kept"]) == (pytest.approx(4e-4), pytest.approx(4e-5))
    assert cost["month_all"] == pytest.approx(4e-4 * 30 * 86_400 / 19.9)


def test_people_get_a_table(tracekit, shop):
    words = ("--rules", "drop route=/nowhere; keep route=/search; drop", "--price-per-million=2")
    told = tracekit("sampling", "--dry-run", "--store", shop, *words, color=False).stdout
    lines = told.splitlines()
    assert lines[0].split() == ["traces", "kept", "spans", "kept", "operation"]
    assert lines[1].split() == ["20", "20", "100.0%", "20", "shop", "▸", "GET", "/search"]
    assert lines[3].split() == ["200", "20", "10.0%", "20", "altogether"]
    assert "20 of 200 spans" in told
    assert "spans left out: 180 by sampler" in told
    assert "rule 1: drop route=/nowhere matched nothing" in told
    assert "a month of such traffic costs" in told


def test_what_is_configured_here_is_what_is_tried(tracekit, shop, tmp_path, monkeypatch):
    path = tmp_path / "tracekit.toml"
    path.write_text("sampler = 0.0\n")
    environment = {"TRACEKIT_RULES": "keep route=/search; drop"}
    words = ("sampling", "--dry-run", "--json", "--store", shop)
    found = json.loads(tracekit(*words, env=environment).stdout)
    assert found["total"]["kept_traces"] == 20
    assert found["settings"]["rules"]["source"] == "TRACEKIT_RULES"
    found = json.loads(tracekit(*words, "--config", str(path), env=environment).stdout)
    assert found["total"]["kept_traces"] == 0


def test_without_the_option_it_says_what_is_configured(tracekit):
    told = tracekit("sampling", env={"OTEL_TRACES_SAMPLER": "always_off"}).stdout
    assert "AlwaysOffSampler" in told
    assert "from OTEL_TRACES_SAMPLER" in told
    assert json.loads(tracekit("sampling", "--json").stdout)["settings"]["sampler"]["source"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--rules", "sometimes"), "--rules: sampling rules, rule 1"),
        (("--sampler", "alwayson"), "unknown sampler 'alwayson' (from --sampler)"),
        (("--sampler", "7"), "--sampler: sampling rate=7.0"),
        (("--tail", "7"), "--tail: "),
        (("--drop", "sometimes"), "--drop: drop rules"),
        (("--config", "nowhere.toml"), "nowhere.toml is not there"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_anything_is_read(tracekit, words, said):
    result = tracekit("sampling", "--dry-run", "--store", "nowhere.db", *words)
    assert result.exit_code == 1
    assert said in result.output


def test_no_traces_are_told(tracekit, shop):
    result = tracekit("sampling", "--dry-run", "--store", shop, "--service", "nobody")
    assert "No trace is like that" in result.stderr
