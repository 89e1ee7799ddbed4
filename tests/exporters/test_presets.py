"""Destinations by name: found, filled from their own variables, and loud about what is missing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.trace import SpanContext, TraceState

import tracekit
from exporters.destinations import Destination
from exporters.made import made
from tracekit import discovery
from tracekit.errors import ConfigurationError, UnknownNameError
from tracekit.exporters._presets import PRESETS
from tracekit.exporters._sample_rate import sample_rate
from tracekit.exporters.otlp import OTLPSpanExporter

VARIABLES = {
    "AXIOM_TOKEN": "t",
    "AXIOM_DATASET": "d",
    "ELASTIC_APM_SERVER_URL": "https://apm.example:8200/",
    "ELASTIC_APM_SECRET_TOKEN": "t",
    "GRAFANA_CLOUD_OTLP_ENDPOINT": "https://otlp-gateway-prod-eu-west-0.grafana.net/otlp",
    "GRAFANA_CLOUD_INSTANCE_ID": "123",
    "GRAFANA_CLOUD_API_KEY": "key",
    "HONEYCOMB_API_KEY": "hcaik_0123",
    "LANGFUSE_PUBLIC_KEY": "pk",
    "LANGFUSE_SECRET_KEY": "sk",
    "LOGFIRE_TOKEN": "pylf_v1",
    "NEW_RELIC_LICENSE_KEY": "nr",
    "SENTRY_DSN": "https://abc@o1.ingest.us.sentry.io/456",
    "SIGNOZ_INGESTION_KEY": "sk",
    "UPTRACE_DSN": "https://secret@api.uptrace.dev?grpc=4317",
}

# Variables without which a destination can do.
OPTIONAL = {("signoz", "SIGNOZ_INGESTION_KEY")}

# Endpoint and headers of each preset under the variables above.
EXPECTED: dict[str, tuple[str, dict[str, str]]] = {
    "axiom": (
        "https://api.axiom.co/v1/traces",
        {"authorization": "Bearer t", "x-axiom-dataset": "d"},
    ),
    "axiom_eu": (
        "https://api.eu.axiom.co/v1/traces",
        {"authorization": "Bearer t", "x-axiom-dataset": "d"},
    ),
    "datadog_otlp": ("http://localhost:4318/v1/traces", {}),
    "elastic": ("https://apm.example:8200/v1/traces", {"authorization": "Bearer t"}),
    "grafana_cloud": (
        "https://otlp-gateway-prod-eu-west-0.grafana.net/otlp/v1/traces",
        {"authorization": "Basic MTIzOmtleQ=="},
    ),
    "honeycomb": ("https://api.honeycomb.io/v1/traces", {"x-honeycomb-team": "hcaik_0123"}),
    "honeycomb_eu": ("https://api.eu1.honeycomb.io/v1/traces", {"x-honeycomb-team": "hcaik_0123"}),
    "jaeger": ("http://localhost:4318/v1/traces", {}),
    "langfuse": (
        "https://cloud.langfuse.com/api/public/otel/v1/traces",
        {"authorization": "Basic cGs6c2s=", "x-langfuse-ingestion-version": "4"},
    ),
    "logfire": ("https://logfire-us.pydantic.dev/v1/traces", {"authorization": "pylf_v1"}),
    "logfire_eu": ("https://logfire-eu.pydantic.dev/v1/traces", {"authorization": "pylf_v1"}),
    "newrelic": ("https://otlp.nr-data.net/v1/traces", {"api-key": "nr"}),
    "newrelic_eu": ("https://otlp.eu01.nr-data.net/v1/traces", {"api-key": "nr"}),
    "newrelic_fedramp": ("https://gov-otlp.nr-data.net/v1/traces", {"api-key": "nr"}),
    "sentry": (
        "https://o1.ingest.us.sentry.io/api/456/integration/otlp/v1/traces",
        {"x-sentry-auth": "sentry sentry_key=abc"},
    ),
    "signoz": ("http://localhost:4318/v1/traces", {"signoz-ingestion-key": "sk"}),
    "signoz_eu": (
        "https://ingest.eu.signoz.cloud:443/v1/traces",
        {"signoz-ingestion-key": "sk"},
    ),
    "signoz_in": (
        "https://ingest.in.signoz.cloud:443/v1/traces",
        {"signoz-ingestion-key": "sk"},
    ),
    "signoz_us": (
        "https://ingest.us.signoz.cloud:443/v1/traces",
        {"signoz-ingestion-key": "sk"},
    ),
    "tempo": ("http://localhost:4318/v1/traces", {}),
    "uptrace": (
        "https://api.uptrace.dev/v1/traces",
        {"uptrace-dsn": "https://secret@api.uptrace.dev?grpc=4317"},
    ),
}

Make = Callable[..., OTLPSpanExporter]


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)
    for name in ("DD_AGENT_HOST", "ELASTIC_APM_API_KEY", "HONEYCOMB_DATASET", "LANGFUSE_HOST"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def make() -> Iterator[Make]:
    """Make exporters by their configured names."""
    exporters: list[OTLPSpanExporter] = []

    def found(name: str, **arguments: Any) -> OTLPSpanExporter:
        exporters.append(discovery.find("exporter", name)(**arguments))
        return exporters[-1]

    yield found
    for exporter in exporters:
        exporter.shutdown()


def test_every_preset_is_described_here() -> None:
    assert sorted(EXPECTED) == sorted(PRESETS)


@pytest.mark.parametrize("name", PRESETS)
def test_a_destination_is_filled_from_its_own_variables(make: Make, name: str) -> None:
    exporter = make(name)
    endpoint, headers = EXPECTED[name]
    assert exporter.settings.endpoint == endpoint
    assert dict(exporter.settings.headers) == headers
    assert exporter.settings.compressed is (PRESETS[name].compression == "gzip")
    assert exporter.name == name


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        (n, v)
        for n in PRESETS
        for v in VARIABLES
        if v in repr(PRESETS[n]) and (n, v) not in OPTIONAL
    ],
)
def test_a_variable_that_is_missing_is_named(
    make: Make, monkeypatch: pytest.MonkeyPatch, name: str, variable: str
) -> None:
    monkeypatch.delenv(variable)
    with pytest.raises(ConfigurationError, match=variable) as refusal:
        make(name)
    assert PRESETS[name].page in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "address", "is_secure"),
    [
        ("jaeger", "localhost:4317", False),
        ("tempo", "localhost:4317", False),
        ("honeycomb", "api.honeycomb.io:443", True),
        ("newrelic_eu", "otlp.eu01.nr-data.net:4317", True),
        ("signoz_eu", "ingest.eu.signoz.cloud:443", True),
        ("uptrace", "api.uptrace.dev:4317", True),
    ],
)
def test_grpc_has_an_address_of_its_own(
    make: Make, name: str, address: str, is_secure: bool
) -> None:
    settings = make(name, protocol="grpc").settings
    assert (settings.endpoint, settings.is_secure) == (address, is_secure)


def test_a_destination_without_grpc_says_so(make: Make) -> None:
    with pytest.raises(ConfigurationError, match="http/protobuf"):
        make("sentry", protocol="grpc")


def test_variables_of_another_destination_are_not_used(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "secret=of-the-collector")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2500")
    settings = make("honeycomb").settings
    assert settings.endpoint == "https://api.honeycomb.io/v1/traces"
    assert "secret" not in dict(settings.headers)
    assert settings.timeout_s == 2.5, "how long we wait is ours to say, for all of them"


def test_compression_may_be_switched_off_for_all(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_COMPRESSION", "none")
    assert make("honeycomb").settings.compressed is False


@pytest.mark.parametrize(
    ("variables", "endpoint"),
    [
        ({"TRACEKIT_JAEGER_ENDPOINT": "http://j:1"}, "http://j:1/v1/traces"),
        ({"TRACEKIT_JAEGER_ENDPOINT": "http://j:1/base/"}, "http://j:1/base/v1/traces"),
        ({"TRACEKIT_JAEGER_ENDPOINT": "http://j:1/v1/traces"}, "http://j:1/v1/traces"),
    ],
)
def test_another_endpoint_is_said_by_a_variable(
    make: Make, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], endpoint: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert make("jaeger").settings.endpoint == endpoint


def test_an_endpoint_that_is_none_is_named_by_its_variable(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONEYCOMB_API_ENDPOINT", "eu")
    with pytest.raises(ConfigurationError, match="HONEYCOMB_API_ENDPOINT"):
        make("honeycomb")


def test_arguments_come_before_the_preset_and_headers_are_added(make: Make) -> None:
    exporter = make(
        "honeycomb",
        endpoint="http://refinery:8080",
        headers={"X-Honeycomb-Team": "other", "x-more": "1"},
        compression="none",
    )
    assert exporter.settings.endpoint == "http://refinery:8080/v1/traces"
    assert dict(exporter.settings.headers) == {"x-honeycomb-team": "other", "x-more": "1"}
    assert exporter.settings.compressed is False


@pytest.mark.parametrize("key", ["0123456789abcdef" * 2, "hcaic_" + "a" * 58])
def test_a_classic_honeycomb_key_needs_a_dataset(
    make: Make, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", key)
    with pytest.raises(ConfigurationError, match="HONEYCOMB_DATASET"):
        make("honeycomb")
    monkeypatch.setenv("HONEYCOMB_DATASET", "shop")
    assert dict(make("honeycomb").settings.headers)["x-honeycomb-dataset"] == "shop"


def test_other_honeycomb_keys_have_their_dataset_from_the_service(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONEYCOMB_DATASET", "shop")
    assert "x-honeycomb-dataset" not in dict(make("honeycomb").settings.headers)


@pytest.mark.parametrize(
    "dsn", ["not a url", "https://o1.sentry.io/4", "https://k@host", "http://["]
)
def test_a_dsn_that_is_none_is_named_and_not_repeated(
    make: Make, monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    monkeypatch.setenv("SENTRY_DSN", dsn)
    with pytest.raises(ConfigurationError, match="SENTRY_DSN") as refusal:
        make("sentry")
    assert dsn not in str(refusal.value)


@pytest.mark.parametrize(
    "dsn", ["not a url", "https://api.uptrace.dev", "ftp://k@host", "http://["]
)
def test_a_dsn_of_uptrace_that_is_none_is_named_and_not_repeated(
    make: Make, monkeypatch: pytest.MonkeyPatch, dsn: str
) -> None:
    monkeypatch.setenv("UPTRACE_DSN", dsn)
    with pytest.raises(ConfigurationError, match="UPTRACE_DSN") as refusal:
        make("uptrace")
    assert dsn not in str(refusal.value)


@pytest.mark.parametrize(
    ("name", "said", "endpoint"),
    [
        ("sentry", {"SENTRY_DSN": "http://k@localhost:9000/2"}, "http://localhost:9000/api/2"),
        ("sentry", {"SENTRY_DSN": "https://k@s.example/base/2"}, "https://s.example/base/api/2"),
        ("uptrace", {"UPTRACE_DSN": "http://s@localhost:14318"}, "http://localhost:14318/v1"),
        ("langfuse", {"LANGFUSE_BASE_URL": "https://us.cloud.langfuse.com/"}, "https://us.cloud."),
        ("langfuse", {"LANGFUSE_HOST": "http://localhost:3000"}, "http://localhost:3000/api"),
        ("axiom", {"AXIOM_URL": "https://api.eu.axiom.co"}, "https://api.eu.axiom.co/v1/traces"),
        ("datadog_otlp", {"DD_AGENT_HOST": "agent"}, "http://agent:4318/v1/traces"),
        ("logfire", {"LOGFIRE_BASE_URL": "https://logfire.example"}, "https://logfire.example/v1"),
    ],
)
def test_who_runs_it_elsewhere_says_so_as_the_destination_has_it(
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    said: dict[str, str],
    endpoint: str,
) -> None:
    for variable, value in said.items():
        monkeypatch.setenv(variable, value)
    assert make(name).settings.endpoint.startswith(endpoint)


def test_the_port_for_grpc_is_in_the_dsn(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UPTRACE_DSN", "http://s@localhost:14318?grpc=14317")
    settings = make("uptrace", protocol="grpc").settings
    assert (settings.endpoint, settings.is_secure) == ("localhost:14317", False)


def test_an_elastic_api_key_comes_before_its_token(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELASTIC_APM_API_KEY", "k")
    monkeypatch.delenv("ELASTIC_APM_SECRET_TOKEN")
    assert dict(make("elastic").settings.headers) == {"authorization": "ApiKey k"}


def test_a_local_signoz_needs_no_key(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SIGNOZ_INGESTION_KEY")
    assert make("signoz").settings.headers == ()


# Discovery ---------------------------------------------------------------------------------


def test_presets_are_known_names() -> None:
    assert {*PRESETS, "otlp", "zipkin", "datadog"} <= set(discovery.names("exporter"))


def test_a_dash_is_as_good_as_an_underscore(make: Make) -> None:
    assert make("grafana-cloud").name == "grafana_cloud"


def test_a_near_miss_is_pointed_out() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'honeycomb'"):
        discovery.find("exporter", "honeycom", "OTEL_TRACES_EXPORTER")
    with pytest.raises(UnknownNameError, match="Did you mean 'jaeger'"):
        OTLPSpanExporter(destination="jäger")


def test_listing_names_loads_no_exporter() -> None:
    program = (
        "import sys; from tracekit import discovery; discovery.own_names('exporter')\n"
        "print([n for n in ('tracekit.exporters.otlp', 'requests', 'grpc') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


def test_one_line_configures_two_destinations(monkeypatch: pytest.MonkeyPatch) -> None:
    with Destination() as jaeger, Destination() as honeycomb:
        monkeypatch.setenv("TRACEKIT_JAEGER_ENDPOINT", jaeger.url)
        monkeypatch.setenv("HONEYCOMB_API_ENDPOINT", honeycomb.url)
        tracekit.configure(service_name="shop", exporters="jaeger, honeycomb")
        with tracekit.span("checkout"):
            pass
        assert tracekit.flush()
        tracekit.shutdown()
        assert jaeger.span_names() == honeycomb.span_names() == ["checkout"]
        assert honeycomb.received[0].headers["x-honeycomb-team"] == "hcaik_0123"
        assert "x-honeycomb-team" not in jaeger.received[0].headers


# Sample rates ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "rate"),
    [
        ("", None),
        ("a=1", None),
        ("ot=th:0", 1),
        ("ot=th:8", 2),
        ("a=1,ot=rv:00000000000000;th:c", 4),
        ("ot=th:fd70a3d70a3d71", 100),
        ("ot=th:ffffffffffffff", 2**56),
        ("ot=th:", None),
        ("ot=th:xyz", None),
        ("ot=th:0123456789abcdef", None),
        ("ot=rv:8", None),
    ],
)
def test_a_threshold_says_how_many_a_span_stands_for(state: str, rate: int | None) -> None:
    assert sample_rate(state) == rate


def attributes_of(destination: Destination) -> list[dict[str, Any]]:
    return [
        {pair.key: pair.value.int_value for pair in span.attributes}
        for received in destination.received
        for of_resource in received.request().resource_spans
        for of_scope in of_resource.scope_spans
        for span in of_scope.spans
    ]


def test_honeycomb_is_told_the_weight_of_sampled_spans(make: Make) -> None:
    sampled = SpanContext(1, 1, False, trace_state=TraceState([("ot", "th:c")]))
    spans = [
        made(1, context=sampled, attributes={"own": 7}),
        made(2, attributes={"own": 8}),
        made(3, context=sampled, attributes={"SampleRate": 9}),
    ]
    with Destination() as destination:
        make("honeycomb", endpoint=destination.url).export(spans)
        assert attributes_of(destination) == [
            {"SampleRate": 4, "own": 7},
            {"own": 8},
            {"SampleRate": 9},
        ]


def test_other_destinations_get_spans_as_they_are(make: Make) -> None:
    sampled = SpanContext(1, 1, False, trace_state=TraceState([("ot", "th:c")]))
    with Destination() as destination:
        make("jaeger", endpoint=destination.url).export([made(1, context=sampled)])
        assert attributes_of(destination) == [{}]
