"""`tracekit collector-config`: valid for a real Collector, which then does what it says."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result

from exporters.made import context, made
from servers import free_port, listens, running
from tracekit.exporters._otlp_json import decode
from tracekit.exporters.otlp import OTLPSpanExporter

ROOT = Path(__file__).parents[2]
COLLECTOR = Path(os.environ.get("BACKENDS") or ROOT / ".backends", "collector", "otelcol")

needs_collector = pytest.mark.skipif(
    not COLLECTOR.exists(), reason=f"no OpenTelemetry Collector at {COLLECTOR}: make backends"
)


@pytest.fixture(autouse=True)
def nothing_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*os.environ]:
        if name.startswith(("OTEL_", "TRACEKIT_")):
            monkeypatch.delenv(name)


def parsed(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return yaml.safe_load(result.stdout)


def pipeline(tree: Any) -> tuple[list[str], list[str]]:
    traces = tree["service"]["pipelines"]["traces"]
    return traces["processors"], traces["exporters"]


def test_a_single_collector_limits_itself_samples_and_sends_on(tracekit) -> None:
    tree = parsed(tracekit("collector-config"))
    assert pipeline(tree) == (["memory_limiter", "tail_sampling", "batch"], ["otlphttp"])
    for kind in ("processors", "exporters", "receivers"):
        assert set(tree[kind]) == set(tree["service"]["pipelines"]["traces"][kind])
    policies = [policy["type"] for policy in tree["processors"]["tail_sampling"]["policies"]]
    assert policies == ["status_code", "latency", "probabilistic"]


def test_it_listens_where_programs_here_send(tracekit) -> None:
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:5555",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
    }
    protocols = parsed(tracekit("collector-config", env=environment))["receivers"]["otlp"][
        "protocols"
    ]
    assert protocols["grpc"]["endpoint"] == "0.0.0.0:5555"
    assert protocols["http"]["endpoint"] == "0.0.0.0:4318"


def test_encrypted_where_programs_here_encrypt(tracekit) -> None:
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector:4318"}
    protocols = parsed(tracekit("collector-config", env=environment))["receivers"]["otlp"][
        "protocols"
    ]
    assert protocols["http"]["tls"]["cert_file"] == "${env:COLLECTOR_TLS_CERT}"


def test_the_service_and_the_sampling_of_programs_are_said(tracekit) -> None:
    environment = {"OTEL_SERVICE_NAME": "shop\n- evil", "OTEL_TRACES_SAMPLER": "traceidratio"}
    text = tracekit("collector-config", env=environment).stdout
    assert text.startswith("# Configuration of an OpenTelemetry Collector for shop?- evil, layer")
    assert "The programs sample themselves (traceidratio)" in text


@pytest.mark.parametrize(
    ("to", "exporter", "expected"),
    [
        ("jaeger", "otlphttp", {"traces_endpoint": "http://jaeger:4318/v1/traces"}),
        ("http://tempo:4318", "otlphttp", {"traces_endpoint": "http://tempo:4318/v1/traces"}),
        ("http://tempo:4317", "otlp", {"endpoint": "tempo:4317", "tls": {"insecure": True}}),
        ("https://tempo:4317", "otlp", {"tls": {"insecure": False}}),
        ("grpc://tempo", "otlp", {"endpoint": "tempo"}),
        ("clickhouse://ch/traces", "clickhouse", {"database": "traces"}),
        ("honeycomb", "otlphttp", {"headers": {"x-honeycomb-team": "${env:HONEYCOMB_API_KEY}"}}),
        (
            "grafana-cloud",
            "otlphttp",
            {"headers": {"authorization": "Basic ${env:GRAFANA_CLOUD_BASIC_AUTH}"}},
        ),
    ],
)
def test_the_destination_is_a_name_or_a_url(
    tracekit, to: str, exporter: str, expected: dict[str, Any]
) -> None:
    exporters = parsed(tracekit("collector-config", "--to", to))["exporters"]
    assert [*exporters] == [exporter]
    assert {key: exporters[exporter][key] for key in expected} == expected


def test_the_destination_that_is_configured_is_the_default(tracekit) -> None:
    tree = parsed(tracekit("collector-config", env={"OTEL_TRACES_EXPORTER": "store,tempo"}))
    assert tree["exporters"]["otlphttp"]["traces_endpoint"] == "http://tempo:4318/v1/traces"


def test_of_two_layers_the_first_sends_each_trace_to_one_of_the_second(tracekit) -> None:
    words = ["collector-config", "--layer", "balancing"]
    tree = parsed(tracekit(*words, "--sampler", "a:4317", "--sampler", "b:4317"))
    assert pipeline(tree) == (["memory_limiter"], ["loadbalancing"])
    balancing = tree["exporters"]["loadbalancing"]
    assert balancing["routing_key"] == "traceID"
    assert balancing["resolver"] == {"static": {"hostnames": ["a:4317", "b:4317"]}}
    by_name = parsed(tracekit(*words, "--sampler", "samplers.internal:5317"))
    assert by_name["exporters"]["loadbalancing"]["resolver"] == {
        "dns": {"hostname": "samplers.internal", "port": "5317"}
    }
    second = parsed(tracekit("collector-config", "--layer", "sampling"))
    assert pipeline(second)[0] == ["memory_limiter", "tail_sampling", "batch"]


def test_memory_follows_the_traffic(tracekit) -> None:
    small = parsed(tracekit("collector-config"))["processors"]
    words = ["--traces-per-second", "5000", "--spans-per-trace", "40", "--decision-wait", "30s"]
    large = parsed(tracekit("collector-config", *words))["processors"]
    assert small["memory_limiter"]["limit_mib"] == 512
    assert large["tail_sampling"]["num_traces"] == 5000 * 30 * 3 // 2
    # Traces that wait, spans in them, 2 KiB each; and twice that for all the rest.
    assert large["memory_limiter"]["limit_mib"] == 2 * (225_000 * 40 * 2048 >> 20)
    fixed = parsed(tracekit("collector-config", "--memory", "2000"))["processors"]
    assert fixed["memory_limiter"]["limit_mib"] == 2000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--layer", "balance"], "Did you mean 'balancing'?"),
        (["--to", "jager"], "Did you mean 'jaeger'?"),
        (["--to", "ftp://x"], "grpc:// or clickhouse://"),
        (["--layer", "balancing"], "--sampler"),
        (["--layer", "balancing", "--sampler", "a b"], "sampler-1:4317"),
        (["--to", "sentry"], "--to"),
    ],
)
def test_what_cannot_work_is_an_error_that_says_what_does(
    tracekit, words: list[str], said: str
) -> None:
    result = tracekit("collector-config", *words)
    assert result.exit_code == 1
    assert said in result.stderr


# --- a real Collector


@needs_collector
@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--layer", "sampling", "--to", "honeycomb", "--keep", "0"],
        ["--no-tail-sampling", "--to", "http://tempo:4317"],
        ["--to", "grafana_cloud", "--keep", "2.5", "--slow", "250ms"],
    ],
)
def test_a_collector_finds_it_valid(tracekit, tmp_path: Path, words: list[str]) -> None:
    path = tmp_path / "collector.yaml"
    path.write_text(tracekit("collector-config", *words).stdout)
    keys = ("HONEYCOMB_API_KEY", "GRAFANA_CLOUD_OTLP_ENDPOINT", "GRAFANA_CLOUD_BASIC_AUTH")
    done = subprocess.run(
        [COLLECTOR, "validate", f"--config={path}"],
        env=os.environ | dict.fromkeys(keys, "https://x"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@needs_collector
@pytest.mark.slow
def test_a_collector_keeps_what_failed_or_took_long_whole(tracekit, tmp_path: Path) -> None:
    """Two processes send one half of each trace; the decision is about both."""
    words = ["--decision-wait", "1s", "--keep", "0", "--slow", "500ms"]
    tree = parsed(tracekit("collector-config", *words))
    out = tmp_path / "kept.jsonl"
    port = free_port()
    tree["receivers"]["otlp"]["protocols"] = {"grpc": {"endpoint": f"127.0.0.1:{port}"}}
    tree["exporters"] = {"file": {"path": str(out), "flush_interval": "50ms"}}
    tree["service"]["pipelines"]["traces"]["exporters"] = ["file"]
    tree["service"]["telemetry"] = {"metrics": {"level": "none"}}
    failed, slow, others = 1, 2, range(3, 9)
    with _running(tree, tmp_path, port):
        _send(port, [_root(trace, 600 if trace == slow else 10) for trace in (1, 2, *others)])
        _send(port, [_child(trace, fails=trace == failed) for trace in (1, 2, *others)])
        kept = _wait_for(out, 4)
        time.sleep(0.5)  # nothing more is to come, which no event tells
        kept = _wait_for(out, 4)
    assert kept == {(failed, "root"), (failed, "child"), (slow, "root"), (slow, "child")}


def _root(trace: int, for_ms: float) -> Any:
    now = time.time_ns()
    return made(
        1,
        "root",
        for_ms=for_ms,
        context=context(1, trace),
        trace_id=trace,
        start_time=now,
        end_time=now + int(for_ms * 1e6),
    )


def _child(trace: int, fails: bool) -> Any:
    now = time.time_ns()
    failure = {"error": "declined"} if fails else {}
    return made(
        2,
        "child",
        parent=1,
        context=context(2, trace),
        trace_id=trace,
        start_time=now,
        end_time=now + 10**6,
        **failure,
    )


def _send(port: int, spans: list[Any]) -> None:
    exporter = OTLPSpanExporter(f"http://127.0.0.1:{port}", protocol="grpc")
    exporter.export(spans)
    assert exporter.stats()["sent"] == len(spans)
    exporter.shutdown()


def _wait_for(path: Path, count: int) -> set[tuple[int, str]]:
    deadline = time.monotonic() + 30
    while True:
        lines = path.read_bytes().rpartition(b"\n")[0] if path.exists() else b""
        found = {(span.context.trace_id, span.name) for span in decode(lines)}
        if len(found) >= count or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


@contextmanager
def _running(tree: Any, folder: Path, port: int) -> Iterator[None]:
    path = folder / "collector.json"
    path.write_text(json.dumps(tree))  # JSON is YAML
    with running([COLLECTOR, f"--config={path}"], lambda: listens(port), folder / "log"):
        yield
