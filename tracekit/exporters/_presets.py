"""Destinations that speak OTLP, by name: where they are and which variables hold their keys.

A preset is data. Its texts are templates: ``{NAME}`` is the value of an environment variable,
``{NAME|OLDER}`` of the first that is set, and ``{NAME:-text}`` has a default. Nothing here is read
before somebody names the destination.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["PRESETS", "Header", "Preset", "canonical", "maker"]

_LOCAL_HTTP = "http://localhost:4318/v1/traces"
_LOCAL_GRPC = "http://localhost:4317"

# 32 hexadecimal digits, or an ingest key whose third letter says classic.
# https://docs.honeycomb.io/get-started/configure/environments/manage-api-keys/
_CLASSIC_KEY = r"[0-9a-f]{32}|hc[a-z]ic_[0-9a-z]{58}"


@dataclass(frozen=True)
class Header:
    """A header's value.

    Attributes:
        value: A template; without a variable that it needs, the exporter cannot be made.
        when: A variable and the pattern it must match for the header to be sent at all.
        instead: A variable and the template that is used in place of ``value`` when it is set.
        base64: Whether the value is a user and password for HTTP Basic.
    """

    value: str
    when: tuple[str, str] | None = None
    instead: tuple[str, str] | None = None
    base64: bool = False


@dataclass(frozen=True)
class Preset:
    """What a destination expects.

    Attributes:
        endpoint: For HTTP, the whole URL.
        endpoint_variables: What its users know for saying another; ``TRACEKIT_<NAME>_ENDPOINT``
            comes before them. A URL without ``/v1/traces`` gets it.
        grpc_endpoint: For gRPC, where it is taken.
        url_variable: A variable whose URL has ``{scheme}``, ``{user}``, ``{host}`` (with its port),
            ``{hostname}``, ``{folder}`` and ``{file}`` of its path, and ``{grpc}``, the port that
            its query names so.
        url_example: How such a URL looks.
        sample_rate_attribute: The attribute that says how many spans a sampled one stands for.
        page: What the destination's own documentation says.
    """

    endpoint: str
    page: str
    headers: Mapping[str, Header] = field(default_factory=dict)
    endpoint_variables: tuple[str, ...] = ()
    grpc_endpoint: str | None = None
    url_variable: str | None = None
    url_example: str = ""
    compression: str | None = None
    sample_rate_attribute: str | None = None


def _honeycomb(host: str) -> Preset:
    return Preset(
        f"https://{host}/v1/traces",
        "https://docs.honeycomb.io/send-data/opentelemetry/",
        {
            "x-honeycomb-team": Header("{HONEYCOMB_API_KEY}"),
            "x-honeycomb-dataset": Header(
                "{HONEYCOMB_DATASET}", when=("HONEYCOMB_API_KEY", _CLASSIC_KEY)
            ),
        },
        endpoint_variables=("HONEYCOMB_TRACES_ENDPOINT", "HONEYCOMB_API_ENDPOINT"),
        grpc_endpoint=f"https://{host}:443",
        compression="gzip",
        sample_rate_attribute="SampleRate",
    )


def _axiom(host: str) -> Preset:
    return Preset(
        f"https://{host}/v1/traces",
        "https://axiom.co/docs/send-data/opentelemetry",
        {
            "authorization": Header("Bearer {AXIOM_TOKEN}"),
            "x-axiom-dataset": Header("{AXIOM_DATASET}"),
        },
        endpoint_variables=("AXIOM_URL",),
        compression="gzip",
    )


def _logfire(host: str) -> Preset:
    return Preset(
        f"https://{host}/v1/traces",
        "https://logfire.pydantic.dev/docs/how-to-guides/alternative-clients/",
        {"authorization": Header("{LOGFIRE_TOKEN}")},
        endpoint_variables=("LOGFIRE_BASE_URL",),
        compression="gzip",
    )


def _newrelic(host: str) -> Preset:
    return Preset(
        f"https://{host}/v1/traces",
        "https://docs.newrelic.com/docs/opentelemetry/best-practices/opentelemetry-otlp/",
        {"api-key": Header("{NEW_RELIC_LICENSE_KEY}")},
        grpc_endpoint=f"https://{host}:4317",
        compression="gzip",
    )


def _signoz(region: str) -> Preset:
    host = f"https://ingest.{region}.signoz.cloud:443"
    return Preset(
        f"{host}/v1/traces",
        "https://signoz.io/docs/ingestion/signoz-cloud/overview/",
        {"signoz-ingestion-key": Header("{SIGNOZ_INGESTION_KEY}")},
        grpc_endpoint=host,
        compression="gzip",
    )


PRESETS: Mapping[str, Preset] = {
    "axiom": _axiom("api.axiom.co"),
    "axiom_eu": _axiom("api.eu.axiom.co"),
    "datadog_otlp": Preset(
        "http://{DD_AGENT_HOST:-localhost}:4318/v1/traces",
        "https://docs.datadoghq.com/opentelemetry/setup/otlp_ingest_in_the_agent/",
        grpc_endpoint="http://{DD_AGENT_HOST:-localhost}:4317",
    ),
    "elastic": Preset(
        "{ELASTIC_APM_SERVER_URL}/v1/traces",
        "https://www.elastic.co/docs/solutions/observability/apm/opentelemetry",
        {
            "authorization": Header(
                "Bearer {ELASTIC_APM_SECRET_TOKEN}",
                instead=("ELASTIC_APM_API_KEY", "ApiKey {ELASTIC_APM_API_KEY}"),
            )
        },
        compression="gzip",
    ),
    "grafana_cloud": Preset(
        "{GRAFANA_CLOUD_OTLP_ENDPOINT}/v1/traces",
        "https://grafana.com/docs/grafana-cloud/send-data/otlp/send-data-otlp/",
        {
            "authorization": Header(
                "{GRAFANA_CLOUD_INSTANCE_ID}:{GRAFANA_CLOUD_API_KEY}", base64=True
            )
        },
        compression="gzip",
    ),
    "honeycomb": _honeycomb("api.honeycomb.io"),
    "honeycomb_eu": _honeycomb("api.eu1.honeycomb.io"),
    "jaeger": Preset(
        _LOCAL_HTTP,
        "https://www.jaegertracing.io/docs/latest/getting-started/",
        grpc_endpoint=_LOCAL_GRPC,
    ),
    "langfuse": Preset(
        "{LANGFUSE_BASE_URL|LANGFUSE_HOST:-https://cloud.langfuse.com}/api/public/otel/v1/traces",
        "https://langfuse.com/integrations/native/opentelemetry",
        {
            "authorization": Header("{LANGFUSE_PUBLIC_KEY}:{LANGFUSE_SECRET_KEY}", base64=True),
            # Without it, spans are shown about ten minutes later.
            "x-langfuse-ingestion-version": Header("4"),
        },
        compression="gzip",
    ),
    "logfire": _logfire("logfire-us.pydantic.dev"),
    "logfire_eu": _logfire("logfire-eu.pydantic.dev"),
    "newrelic": _newrelic("otlp.nr-data.net"),
    "newrelic_eu": _newrelic("otlp.eu01.nr-data.net"),
    "newrelic_fedramp": _newrelic("gov-otlp.nr-data.net"),
    "sentry": Preset(
        "{scheme}://{host}{folder}/api/{file}/integration/otlp/v1/traces",
        "https://docs.sentry.io/concepts/otlp/direct/traces/",
        {"x-sentry-auth": Header("sentry sentry_key={user}")},
        url_variable="SENTRY_DSN",
        url_example="https://key@host/project",
        compression="gzip",
    ),
    "signoz": Preset(
        _LOCAL_HTTP,
        "https://signoz.io/docs/instrumentation/opentelemetry-python/",
        {"signoz-ingestion-key": Header("{SIGNOZ_INGESTION_KEY}", ("SIGNOZ_INGESTION_KEY", ".+"))},
        grpc_endpoint=_LOCAL_GRPC,
    ),
    "signoz_eu": _signoz("eu"),
    "signoz_in": _signoz("in"),
    "signoz_us": _signoz("us"),
    "tempo": Preset(
        _LOCAL_HTTP,
        "https://grafana.com/docs/tempo/latest/getting-started/",
        grpc_endpoint=_LOCAL_GRPC,
    ),
    "uptrace": Preset(
        "{scheme}://{host}/v1/traces",
        "https://uptrace.dev/get",
        {"uptrace-dsn": Header("{UPTRACE_DSN}")},
        grpc_endpoint="{scheme}://{hostname}:{grpc}",
        url_variable="UPTRACE_DSN",
        url_example="https://key@api.uptrace.dev?grpc=4317",
        compression="gzip",
    ),
}
"""By the name that users configure; a dash is as good as an underscore."""


def canonical(name: str) -> str | None:
    """Return the name under which a preset is listed; None for a name that is none."""
    known = name.lower().replace("-", "_")
    return known if known in PRESETS else None


def maker(name: str) -> Callable[..., Any]:
    """Return what makes the exporter of a preset."""
    from functools import partial

    from tracekit.exporters.otlp import OTLPSpanExporter

    return partial(OTLPSpanExporter, destination=name)
