"""Environment variables: https://opentelemetry.io/docs/specs/otel/configuration/.

The specification's rule for names that are not known is to warn and go on; that is what a
TracerProvider does which is made by hand. ``configure()`` refuses them: it is called by somebody
who wants traces, at a time when they can still mend it.
"""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from programs import run
from tracekit.configure import configure, current_settings
from tracekit.errors import UnknownNameError
from tracekit.sdk import BatchSpanProcessor, InMemorySpanExporter, SpanLimits, TracerProvider

REPORT = """
import json, logging, sys
from opentelemetry import propagate, trace
import tracekit
from tracekit.sdk import InMemorySpanExporter, TracerProvider, SimpleSpanProcessor

records = []
class Noting(logging.Handler):
    def emit(self, record):
        records.append(record.getMessage())
logging.getLogger("tracekit").addHandler(Noting())
logging.getLogger("tracekit").propagate = False
"""

BY_HAND = (
    REPORT
    + """
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
tracer = trace.get_tracer("library")
tracer.start_span("a", attributes={"a": "abcdef", "b": 1}).end()
print(json.dumps({
    "sampler": provider.sampler.get_description(),
    "spans": [dict(span.attributes) for span in exporter.get_finished_spans()],
    "resource": {k: v for k, v in provider.resource.attributes.items() if "name" in k},
    "records": records,
}))
"""
)

CONFIGURED = (
    REPORT
    + """
exporter = InMemorySpanExporter()
provider = tracekit.configure(exporters=exporter)
with tracekit.span("a"):
    headers = tracekit.inject({})
tracekit.flush()
print(json.dumps({
    "spans": [span.name for span in exporter.get_finished_spans()],
    "headers": sorted(headers),
    "fields": sorted(propagate.get_global_textmap().fields),
    "level": logging.getLogger("tracekit").level,
    "records": records,
}))
"""
)


def by_hand(**environ: str) -> Any:
    """Run a program that makes a TracerProvider itself, and return what it reports."""
    return reported(BY_HAND, **environ)


def configured(**environ: str) -> Any:
    """Run a program that calls configure(), and return what it reports."""
    return reported(CONFIGURED, **environ)


def reported(program: str, **environ: str) -> Any:
    ended = run(program, **environ)
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


# How values are read -----------------------------------------------------------------------

NAMES = [
    "OTEL_SDK_DISABLED",
    "OTEL_RESOURCE_ATTRIBUTES",
    "OTEL_SERVICE_NAME",
    "OTEL_LOG_LEVEL",
    "OTEL_PROPAGATORS",
    "OTEL_TRACES_SAMPLER",
    "OTEL_TRACES_SAMPLER_ARG",
    "OTEL_TRACES_EXPORTER",
    "OTEL_BSP_SCHEDULE_DELAY",
    "OTEL_BSP_EXPORT_TIMEOUT",
    "OTEL_BSP_MAX_QUEUE_SIZE",
    "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
    "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_LINK_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_COMPRESSION",
    "OTEL_EXPORTER_OTLP_PROTOCOL",
    "OTEL_EXPORTER_ZIPKIN_ENDPOINT",
    "OTEL_EXPORTER_ZIPKIN_TIMEOUT",
]


def test_an_empty_value_is_the_same_as_none() -> None:
    """An empty value is interpreted as if the variable were not set, for every variable.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#parsing-empty-value
    """
    empty = dict.fromkeys(NAMES, "")
    assert by_hand(**empty) == by_hand()
    assert configured(**empty) == configured()


def test_what_the_environment_configures_can_be_configured_in_code(
    exporter: InMemorySpanExporter,
) -> None:
    """Configuration from the environment has an equivalent in code.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#implementation-guidelines
    """
    limits = SpanLimits(1, 1, 1, 1, 1, 1, 1, 1)
    provider = configure(
        "shop",
        exporters=exporter,
        sampler=0.5,
        propagators="b3",
        span_limits=limits,
        schedule_delay_millis=10,
        resource={"key": "value"},
    )
    assert provider.resource.attributes["service.name"] == "shop"
    assert {setting.source for setting in current_settings().values()} == {"argument"}
    BatchSpanProcessor(exporter, 10, 10, 10, 10).shutdown()


@pytest.mark.parametrize("text", ["true", "True", "TRUE", "tRuE"])
def test_a_boolean_is_true_in_any_case(text: str) -> None:
    """True is only the case-insensitive string "true".

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#boolean
    """
    assert configured(OTEL_SDK_DISABLED=text)["spans"] == []


@pytest.mark.parametrize("text", ["1", "yes", "on", "t", "truee", "enabled"])
def test_anything_else_is_false_and_is_said_once(text: str) -> None:
    """No other values are true; a warning tells of the fallback to false.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#boolean
    """
    for report in (configured(OTEL_SDK_DISABLED=text), by_hand(OTEL_SDK_DISABLED=text)):
        assert len(report["spans"]) == 1
        assert ["OTEL_SDK_DISABLED" in record for record in report["records"]] == [True]


@pytest.mark.parametrize("text", ["false", "False", "FALSE"])
def test_false_is_false_and_needs_no_warning(text: str) -> None:
    """The string "false" gives no warning.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#boolean
    """
    report = configured(OTEL_SDK_DISABLED=text)
    assert (len(report["spans"]), report["records"]) == (1, [])


def test_a_limit_of_nothing_keeps_nothing() -> None:
    """Zero is a value that limits may have.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#attribute-limits
    """
    assert by_hand(OTEL_ATTRIBUTE_COUNT_LIMIT="0")["spans"] == [{}]
    assert by_hand(OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT="0")["spans"] == [{"a": "", "b": 1}]


# Names that are not known ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "what"),
    [("OTEL_TRACES_SAMPLER", "sampler"), ("OTEL_PYTHON_ID_GENERATOR", "id generator")],
)
def test_a_provider_by_hand_reports_an_unknown_name_and_goes_on(name: str, what: str) -> None:
    """An enum value that is not recognised gives a warning and is ignored.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#enum
    """
    report = by_hand(**{name: "nobody"})
    assert report["sampler"].startswith("ParentBased{root:AlwaysOnSampler")
    assert len(report["spans"]) == 1
    (record,) = report["records"]
    assert "nobody" in record
    assert what in record


@pytest.mark.parametrize(
    "name", ["OTEL_TRACES_SAMPLER", "OTEL_PROPAGATORS", "OTEL_TRACES_EXPORTER"]
)
def test_configure_refuses_an_unknown_name(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """An SDK may fail fast on initialisation for a bad configuration.

    https://opentelemetry.io/docs/specs/otel/error-handling/#basic-error-handling-principles
    """
    monkeypatch.setenv(name, "nobody")
    with pytest.raises(UnknownNameError, match=name):
        configure()


@pytest.mark.parametrize("name", ["OTEL_TRACES_EXPORTER", "OTEL_PROPAGATORS"])
def test_none_is_the_name_of_nothing(name: str) -> None:
    """The enum value that stands for a null object is "none".

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#enum
    """
    report = configured(**{name: "none"})
    assert report["records"] == []
    if name == "OTEL_PROPAGATORS":
        assert report["headers"] == report["fields"] == []


# Each variable -----------------------------------------------------------------------------


def test_disabled_is_a_no_op_sdk_that_leaves_propagators_alone() -> None:
    """OTEL_SDK_DISABLED makes the SDK a no-op, and has no effect on OTEL_PROPAGATORS.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration
    """
    assert by_hand(OTEL_SDK_DISABLED="true")["spans"] == []
    report = configured(OTEL_SDK_DISABLED="true", OTEL_PROPAGATORS="b3")
    assert (report["spans"], report["fields"]) == ([], ["b3"])


def test_the_service_name_comes_before_the_resource_attributes() -> None:
    """OTEL_SERVICE_NAME takes precedence over service.name in OTEL_RESOURCE_ATTRIBUTES.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration
    """
    attributes = "service.name=a,my.name=b"
    resource = by_hand(OTEL_RESOURCE_ATTRIBUTES=attributes)["resource"]
    assert (resource["service.name"], resource["my.name"]) == ("a", "b")
    both = by_hand(OTEL_RESOURCE_ATTRIBUTES=attributes, OTEL_SERVICE_NAME="c")["resource"]
    assert (both["service.name"], both["my.name"]) == ("c", "b")


@pytest.mark.parametrize(
    ("text", "level"),
    [("debug", logging.DEBUG), ("INFO", logging.INFO), ("warn", logging.WARNING)],
)
def test_the_log_level_of_the_sdk(text: str, level: int) -> None:
    """OTEL_LOG_LEVEL is the level of the SDK's own logger.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration
    """
    assert configured(OTEL_LOG_LEVEL=text)["level"] == level


def test_an_unknown_log_level_is_reported_and_ignored() -> None:
    """The same; an unknown value gives a warning.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#enum
    """
    report = configured(OTEL_LOG_LEVEL="loud")
    assert report["level"] == configured()["level"]
    assert ["OTEL_LOG_LEVEL" in record for record in report["records"]] == [True]


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        (None, ["baggage", "traceparent", "tracestate"]),
        ("b3", ["b3"]),
        ("baggage,b3", ["b3", "baggage"]),
        ("jaeger", ["uber-trace-id"]),
        ("xray", ["X-Amzn-Trace-Id"]),
    ],
)
def test_propagators(text: str | None, fields: list[str]) -> None:
    """OTEL_PROPAGATORS is a list, "tracecontext,baggage" by default.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration
    """
    report = configured(**({"OTEL_PROPAGATORS": text} if text else {}))
    assert sorted(map(str.lower, report["fields"])) == sorted(map(str.lower, fields))


def test_a_propagator_that_is_named_twice_is_registered_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Values are deduplicated, so that a propagator is registered only once.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration
    """
    from opentelemetry import propagate

    monkeypatch.setenv("OTEL_PROPAGATORS", "b3,tracecontext,b3, B3 ")
    configure(exporters="none")
    parts: Any = propagate.get_global_textmap()
    names = [type(part).__name__ for part in parts.injectors]
    assert names == ["B3SinglePropagator", "TraceContextPropagator"]


@pytest.mark.parametrize(
    ("name", "argument", "description"),
    [
        (None, None, "ParentBased{root:AlwaysOnSampler"),
        ("always_on", None, "AlwaysOnSampler"),
        ("always_off", None, "AlwaysOffSampler"),
        ("traceidratio", "0.25", "TraceIdRatioBased{0.250000}"),
        ("traceidratio", None, "TraceIdRatioBased{1.000000}"),
        ("parentbased_always_on", None, "ParentBased{root:AlwaysOnSampler"),
        ("parentbased_always_off", None, "ParentBased{root:AlwaysOffSampler"),
        ("parentbased_traceidratio", "0.5", "ParentBased{root:TraceIdRatioBased{0.500000}"),
    ],
)
def test_samplers(
    monkeypatch: pytest.MonkeyPatch, name: str | None, argument: str | None, description: str
) -> None:
    """OTEL_TRACES_SAMPLER has its known values; the ratio is 1.0 if no argument is set.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration
    """
    for variable, value in (("SAMPLER", name), ("SAMPLER_ARG", argument)):
        if value is not None:
            monkeypatch.setenv(f"OTEL_TRACES_{variable}", value)
    by_hand, by_configure = TracerProvider(shutdown_on_exit=False), configure(exporters="none")
    for provider in (by_hand, by_configure):
        assert provider.sampler.get_description().startswith(description)


@pytest.mark.parametrize("argument", ["2", "-0.1", "half", "nan"])
def test_an_invalid_sampler_argument_is_logged_and_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, argument: str
) -> None:
    """Invalid input is logged, and otherwise as if OTEL_TRACES_SAMPLER_ARG were not set.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#general-sdk-configuration
    """
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", argument)
    for make in (lambda: TracerProvider(shutdown_on_exit=False), configure):
        caplog.clear()
        assert make().sampler.get_description() == "TraceIdRatioBased{1.000000}"
        assert ["SAMPLER_ARG" in record.getMessage() for record in caplog.records] == [True]


OTHER_SIGNALS = {
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "nobody",
    "OTEL_BLRP_MAX_QUEUE_SIZE": "abc",
    "OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT": "-1",
    "OTEL_METRIC_EXPORT_INTERVAL": "abc",
    "OTEL_METRICS_EXEMPLAR_FILTER": "nobody",
}


def test_variables_of_other_signals_are_no_concern() -> None:
    """Variables for metrics and logs are not ours to judge.

    https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/#exporter-selection
    """
    assert configured(**OTHER_SIGNALS) == configured()
