"""``configure()`` with a destination that cannot work names the setting and where it came from."""

from __future__ import annotations

import logging

import pytest

import tracekit
from tracekit.errors import ConfigurationError
from tracekit.exporters.datadog import DatadogExporter
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.exporters.zipkin import ZipkinExporter


@pytest.mark.parametrize(
    ("exporter", "variable", "value"),
    [
        ("otlp", "OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector"),
        ("otlp", "OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
        ("otlp", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://c:port"),
        ("otlp", "OTEL_EXPORTER_OTLP_CERTIFICATE", "/no/such.pem"),
        ("otlp", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/no/such.key"),
        ("zipkin", "OTEL_EXPORTER_ZIPKIN_ENDPOINT", "zipkin:9411"),
        ("datadog", "DD_TRACE_AGENT_URL", "agent:8126"),
        ("datadog", "DD_TRACE_AGENT_URL", "unix://relative"),
        ("datadog", "DD_TRACE_AGENT_PORT", "0"),
        ("datadog", "DD_AGENT_HOST", "two words"),
        ("datadog", "DD_TRACE_AGENT_TIMEOUT_SECONDS", "soon"),
        ("jaeger", "TRACEKIT_JAEGER_ENDPOINT", "jaeger:4318"),
        ("honeycomb", "HONEYCOMB_API_ENDPOINT", "eu"),
        ("sentry", "SENTRY_DSN", "https://no.key/1"),
        ("uptrace", "UPTRACE_DSN", "https://no.key"),
        ("logfire", "LOGFIRE_BASE_URL", "logfire-eu.pydantic.dev"),
    ],
)
def test_a_wrong_variable_is_named(
    monkeypatch: pytest.MonkeyPatch, exporter: str, variable: str, value: str
) -> None:
    monkeypatch.setenv("HONEYCOMB_API_KEY", "hcaik_0")
    monkeypatch.setenv("LOGFIRE_TOKEN", "t")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable):
        tracekit.configure(exporters=exporter)


@pytest.mark.parametrize(
    ("make", "arguments"),
    [
        (OTLPSpanExporter, {"endpoint": "collector:4318"}),
        (OTLPSpanExporter, {"endpoint": "ftp://collector", "protocol": "grpc"}),
        (OTLPSpanExporter, {"protocol": "http/xml"}),
        (OTLPSpanExporter, {"headers": "no equals sign"}),
        (OTLPSpanExporter, {"headers": {"bad name": "1"}}),
        (OTLPSpanExporter, {"certificate_file": "/no/such.pem"}),
        (OTLPSpanExporter, {"client_certificate_file": "/no/such.pem"}),
        (OTLPSpanExporter, {"endpoint": "jaeger", "destination": "jaeger"}),
        (ZipkinExporter, {"endpoint": "zipkin:9411"}),
        (ZipkinExporter, {"timeout": -1}),
        (DatadogExporter, {"agent_url": "agent:8126"}),
    ],
)
def test_a_wrong_argument_is_named(make: type, arguments: dict[str, object]) -> None:
    wrong = next(iter(arguments))
    with pytest.raises(ConfigurationError, match=rf"{wrong} \(argument\)"):
        tracekit.configure(exporters=[make(**arguments)])


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/xml"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "no equals sign"),
    ],
)
def test_what_the_specification_has_ignored_is_refused_by_configure_and_else_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigurationError, match=variable) as refused:
        tracekit.configure(exporters="otlp")
    assert "no equals" not in str(refused.value), "it may be a secret"
    OTLPSpanExporter().shutdown()
    said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
    assert [message for message in said if variable in message]
    assert not [message for message in said if "no equals" in message], "it may be a secret"


def test_what_was_configured_before_goes_on_after_a_refusal() -> None:
    provider = tracekit.configure(exporters="memory", sampler="always_on")
    with pytest.raises(ConfigurationError):
        tracekit.configure(exporters=["memory", "honeycomb"])
    with tracekit.span("still exported"):
        pass
    assert tracekit.flush()
    (processor,) = provider.stats()["processors"]
    assert [each["exported"] for each in processor["exporters"]] == [1]
