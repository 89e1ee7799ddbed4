"""configure(): what is asked for is what runs, or an error says what to write."""

from __future__ import annotations

import logging
import warnings

import pytest
from opentelemetry import propagate, trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags

import tracekit
from tracekit.configure import current_settings
from tracekit.errors import (
    ConfigurationError,
    InvalidValueError,
    NotInstalledError,
    UnknownNameError,
)
from tracekit.libraries import _instrumentors
from tracekit.sdk import (
    ALWAYS_OFF,
    AlwaysOnSampler,
    ConsoleSpanExporter,
    InMemorySpanExporter,
    SimpleSpanProcessor,
    SpanLimits,
    TracerProvider,
)
from tracekit.testing import SequentialIdGenerator, reset

configure = tracekit.configure


def exporters_in_force(provider):
    lists = [getattr(part, "exporters", ()) for part in provider.span_processors]
    return [type(exporter).__name__ for exporters in lists for exporter in exporters]


def described(provider):
    return provider.sampler.get_description()


# Exporters ---------------------------------------------------------------------------------


def test_with_nothing_said_spans_go_to_the_store():
    assert exporters_in_force(configure()) == ["StoreExporter"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("none", []),
        ("None", []),
        ("memory", ["InMemorySpanExporter"]),
        ("CONSOLE", ["ConsoleSpanExporter"]),
        (" memory , console ", ["InMemorySpanExporter", "ConsoleSpanExporter"]),
        ("memory,,console,", ["InMemorySpanExporter", "ConsoleSpanExporter"]),
        ("memory,memory,MEMORY", ["InMemorySpanExporter"]),
        ("none,memory", ["InMemorySpanExporter"]),
    ],
)
def test_exporters_of_the_environment(monkeypatch, text, names):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", text)
    assert exporters_in_force(configure()) == names


def test_exporters_of_the_file(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.tracekit]\nexporters = ["memory", "console"]\n')
    monkeypatch.chdir(tmp_path)
    names = ["InMemorySpanExporter", "ConsoleSpanExporter"]
    assert exporters_in_force(configure()) == names
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console")
    assert exporters_in_force(configure()) == ["ConsoleSpanExporter"]
    assert exporters_in_force(configure(exporters="memory")) == ["InMemorySpanExporter"]


def test_objects_and_names_mix_and_one_object_counts_once():
    mine = InMemorySpanExporter()
    provider = configure(exporters=[mine, "console", mine])
    assert exporters_in_force(provider) == ["InMemorySpanExporter", "ConsoleSpanExporter"]


@pytest.mark.parametrize("given", [5, object(), ConsoleSpanExporter, [None], {"a": 1}])
def test_what_cannot_export_is_refused(given):
    with pytest.raises(ConfigurationError, match="exporters"):
        configure(exporters=given)


def test_an_endpoint_for_otlp_chooses_otlp(monkeypatch):
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    (name,) = exporters_in_force(configure())
    assert "otlp" in name.lower()
    reset()


# Names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "wrong", "near", "known"),
    [
        ("exporters", "consol", "console", "otlp_file"),
        ("sampler", "always_onn", "always_on", "parentbased_traceidratio"),
        ("propagators", "trace_context", "tracecontext", "baggage"),
    ],
)
def test_an_unknown_name_is_an_error_that_helps(setting, wrong, near, known):
    with pytest.raises(UnknownNameError) as caught:
        configure(**{setting: wrong})
    message = str(caught.value)
    assert repr(wrong) in message
    assert f"Did you mean {near!r}?" in message
    assert known in message


@pytest.mark.parametrize(
    ("variable", "wrong"),
    [
        ("OTEL_TRACES_EXPORTER", "consol"),
        ("TRACEKIT_EXPORTERS", "consol"),
        ("OTEL_TRACES_SAMPLER", "always"),
        ("OTEL_PROPAGATORS", "tracecontext,bagage"),
        ("OTEL_PYTHON_ID_GENERATOR", "randomm"),
        ("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", "nowhere"),
    ],
)
def test_an_unknown_name_out_of_the_environment_names_the_variable(monkeypatch, variable, wrong):
    monkeypatch.setenv(variable, wrong)
    with pytest.raises(UnknownNameError, match=variable):
        configure(exporters=None if "EXPORTER" in variable else "none")


def test_an_unknown_name_out_of_the_file_names_the_file(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.tracekit]\nsampler = "sometimes"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UnknownNameError, match=r"pyproject\.toml"):
        configure()


def test_an_unknown_instrumentation_is_an_error_that_helps():
    with pytest.raises(UnknownNameError, match="Did you mean 'requests'"):
        tracekit.instrument("request")


def test_an_instrumentation_whose_library_is_missing_gives_the_pip_command(monkeypatch):
    class Absent:
        contrib = ()
        distributions = ("a-library",)

        class status:
            installed = None

        def uninstrument(self):
            pass

    monkeypatch.setitem(_instrumentors, "absent", Absent())
    with pytest.raises(NotInstalledError, match="pip install 'a-library'"):
        tracekit.instrument("absent")
    del _instrumentors["absent"]


# Samplers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "description"),
    [
        ("always_on", "AlwaysOnSampler"),
        ("ALWAYS_OFF", "AlwaysOffSampler"),
        ("traceidratio", "TraceIdRatioBased{0.250000}"),
        (" parentbased_always_off ", "ParentBased{root:AlwaysOffSampler,"),
        ("parentbased_traceidratio", "ParentBased{root:TraceIdRatioBased{0.250000},"),
    ],
)
def test_samplers_of_the_environment(monkeypatch, name, description):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", name)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.25")
    assert described(configure(exporters="none")).startswith(description)


@pytest.mark.parametrize("number", [0, 0.25, 1])
def test_a_number_is_the_share_of_traces(number):
    provider = configure(exporters="none", sampler=number)
    assert f"TraceIdRatioBased{{{number:f}}}" in described(provider)


@pytest.mark.parametrize("text", ["half", "-1", "1.5", "nan", "0,5"])
def test_a_malformed_argument_out_of_the_environment_is_reported_and_ignored(
    monkeypatch, caplog, text
):
    """OTEL_TRACES_SAMPLER_ARG: "Invalid or unrecognized input MUST be logged and MUST be otherwise
    ignored". https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", text)
    assert described(configure(exporters="none")) == "TraceIdRatioBased{1.000000}"
    assert "OTEL_TRACES_SAMPLER_ARG" in caplog.text


def test_a_malformed_argument_out_of_the_file_is_an_error(monkeypatch, tmp_path):
    folder = tmp_path / "pyproject.toml"
    folder.write_text('[tool.tracekit]\nsampler = "traceidratio"\nsampler_argument = "half"\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InvalidValueError, match="half"):
        configure(exporters="none")


def test_a_share_of_nothing_in_the_file_is_nothing(monkeypatch, tmp_path):
    folder = tmp_path / "pyproject.toml"
    folder.write_text('[tool.tracekit]\nsampler = "traceidratio"\nsampler_argument = 0\n')
    monkeypatch.chdir(tmp_path)
    assert described(configure(exporters="none")) == "TraceIdRatioBased{0.000000}"


@pytest.mark.parametrize("wrong", [-0.5, 1.5, float("nan")])
def test_a_share_that_is_none_is_refused(wrong):
    with pytest.raises(InvalidValueError):
        configure(sampler=wrong)


@pytest.mark.parametrize("wrong", [True, object(), AlwaysOnSampler, ["always_on"]])
def test_what_cannot_sample_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="sampler"):
        configure(sampler=wrong)


# Other parts -------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [5, object(), [None]])
def test_what_cannot_propagate_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="propagators"):
        configure(propagators=wrong)


@pytest.mark.parametrize("wrong", [5, SimpleSpanProcessor, None])
def test_what_cannot_process_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="processors"):
        configure(processors=[wrong])


@pytest.mark.parametrize("wrong", [-1, "soon", float("nan")])
def test_a_delay_that_is_none_is_refused(wrong):
    with pytest.raises(ConfigurationError, match="delay"):
        configure(schedule_delay_millis=wrong)


def test_a_delay_of_the_environment_that_is_none_is_reported_and_ignored(monkeypatch, caplog):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "soon")
    assert exporters_in_force(configure(exporters="memory"))
    assert "OTEL_BSP_SCHEDULE_DELAY" in caplog.text


def test_propagators_none_and_several(monkeypatch):
    configure(exporters="none", propagators="none")
    with tracekit.span("a"):
        assert tracekit.inject({}) == {}
    monkeypatch.setenv("OTEL_PROPAGATORS", "B3, tracecontext,b3")
    configure(exporters="none")
    with tracekit.span("a"):
        assert set(tracekit.inject({})) == {"b3", "traceparent"}


def test_limits_and_ids_are_used():
    exporter = InMemorySpanExporter()
    configure(
        exporters="none",
        processors=[SimpleSpanProcessor(exporter)],
        span_limits=SpanLimits(max_span_attributes=1),
        id_generator=SequentialIdGenerator(),
    )
    with tracekit.span("a", x=1, y=2):
        pass
    (span,) = exporter.get_finished_spans()
    assert (span.context.trace_id, dict(span.attributes)) == (1, {"x": 1})


def test_the_settings_in_force_name_their_source(monkeypatch):
    monkeypatch.setenv("OTEL_PROPAGATORS", "b3")
    configure("shop", exporters="none")
    found = current_settings()
    assert found["service_name"] == ("shop", "argument")
    assert found["propagators"] == ("b3", "OTEL_PROPAGATORS")
    assert found["sampler"].source == "default"


# Failing, again, and by hand ---------------------------------------------------------------


@pytest.mark.parametrize(
    "wrong",
    [
        {"exporters": "nope"},
        {"sampler": "nope"},
        {"propagators": "nope"},
        {"processors": [5]},
        {"resource": 5},
        {"schedule_delay_millis": -1},
    ],
)
def test_nothing_is_changed_when_configuring_fails(wrong):
    exporter = InMemorySpanExporter()
    provider = configure("before", exporters="none", processors=[SimpleSpanProcessor(exporter)])
    before = (
        provider.span_processors,
        provider.sampler,
        provider.resource,
        propagate.get_global_textmap(),
        current_settings(),
    )
    with pytest.raises(ConfigurationError):
        configure("after", **wrong)
    after = (
        provider.span_processors,
        provider.sampler,
        provider.resource,
        propagate.get_global_textmap(),
        current_settings(),
    )
    assert after == before
    with tracekit.span("still here"):
        pass
    assert [span.name for span in exporter.get_finished_spans()] == ["still here"]


def test_a_first_configure_that_fails_leaves_the_program_unconfigured():
    with pytest.raises(ConfigurationError):
        configure(exporters="nope")
    with tracekit.span("a") as span:
        assert not span.is_recording()
    assert current_settings() == {}


def test_configuring_again_replaces_what_was_there_and_the_ledger_goes_on():
    first, second = InMemorySpanExporter(), InMemorySpanExporter()
    provider = configure("first", exporters=[first])
    tracer = trace.get_tracer("library")
    tracer.start_span("a").end()
    again = configure("second", exporters=[second])
    assert again is provider
    tracer.start_span("b").end()
    with tracekit.span("c"):
        pass
    assert tracekit.flush(10)
    assert [span.name for span in first.get_finished_spans()] == ["a"]
    assert [span.name for span in second.get_finished_spans()] == ["b", "c"]
    assert second.get_finished_spans()[0].resource.attributes["service.name"] == "second"
    stats = tracekit.stats()
    assert (stats["started"], stats["ended"], stats["live"]) == (3, 3, 0)
    assert sum(part["received"] for part in stats["processors"]) == 3


def test_a_processor_added_later_leaves_the_ledger_whole():
    provider = configure(exporters=[InMemorySpanExporter()])
    under_way = trace.get_tracer("t").start_span("under way")
    trace.get_tracer("t").start_span("a").end()
    late = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(late))
    trace.get_tracer("t").start_span("b").end()
    under_way.end()
    assert [span.name for span in late.get_finished_spans()] == ["b"]
    stats = tracekit.stats()
    assert (stats["started"], stats["ended"], stats["live"]) == (3, 3, 0)


def test_spans_under_way_when_it_is_configured_again_are_counted():
    configure(exporters=[InMemorySpanExporter()])
    span = trace.get_tracer("t").start_span("under way")
    configure(exporters=[InMemorySpanExporter()])
    span.end()
    stats = tracekit.stats()
    assert (stats["started"], stats["ended"], stats["live"]) == (1, 1, 0)
    assert [part["dropped"]["after_shutdown"] for part in stats["processors"]] == [0, 1]


def test_shut_down_and_configured_again_it_works_as_at_first():
    first, second = InMemorySpanExporter(), InMemorySpanExporter()
    configure(exporters=[first])
    tracer = trace.get_tracer("library")
    tracekit.shutdown()
    tracekit.shutdown()
    tracer.start_span("lost").end()
    with tracekit.span("lost too") as span:
        assert not span.is_recording()
    configure(exporters=[second])
    tracer.start_span("a").end()
    with tracekit.span("b"):
        pass
    assert tracekit.flush(10)
    assert [span.name for span in second.get_finished_spans()] == ["a", "b"]


def test_flush_and_shutdown_before_configuring():
    assert tracekit.flush() is True
    tracekit.shutdown()


@pytest.mark.parametrize("text", ["true", "TRUE", " True "])
def test_disabled_by_the_environment_nothing_is_recorded_and_contexts_pass(monkeypatch, text):
    monkeypatch.setenv("OTEL_SDK_DISABLED", text)
    exporter = InMemorySpanExporter()
    configure(exporters=[exporter])
    headers = {"traceparent": f"00-{5:032x}-{6:016x}-01"}
    with tracekit.continue_trace(headers), tracekit.span("a") as span:
        assert not span.is_recording()
        assert tracekit.inject({}) == headers
    assert tracekit.flush(10)
    assert exporter.get_finished_spans() == ()


@pytest.mark.parametrize("text", ["false", "", "1", "yes"])
def test_only_true_disables(monkeypatch, text):
    monkeypatch.setenv("OTEL_SDK_DISABLED", text)
    configure(exporters="none")
    with tracekit.span("a") as span:
        assert span.is_recording()


def test_a_provider_by_hand_takes_what_it_is_not_given_from_the_environment(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER_ARG", "0.5")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "by hand")
    monkeypatch.setenv("OTEL_SPAN_EVENT_COUNT_LIMIT", "1")
    provider = TracerProvider(shutdown_on_exit=False)
    assert described(provider) == "TraceIdRatioBased{0.500000}"
    assert provider.resource.attributes["service.name"] == "by hand"
    assert TracerProvider(ALWAYS_OFF, shutdown_on_exit=False).sampler is ALWAYS_OFF
    span = TracerProvider(AlwaysOnSampler(), shutdown_on_exit=False).get_tracer("t").start_span("x")
    span.add_event("1")
    span.add_event("2")
    assert len(span.events) == 1


def test_another_provider_that_was_set_by_hand_is_told_of_and_left_alone(monkeypatch, caplog):
    from opentelemetry.sdk.trace import TracerProvider as SdkProvider

    theirs = SdkProvider()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", theirs)
    exporter = InMemorySpanExporter()
    with caplog.at_level(logging.WARNING):
        configure(exporters="none", processors=[SimpleSpanProcessor(exporter)])
    assert "another TracerProvider" in caplog.text
    assert trace.get_tracer_provider() is theirs
    with tracekit.span("ours"), trace.get_tracer("t").start_as_current_span("theirs") as span:
        assert type(span).__module__ == "opentelemetry.sdk.trace"
    assert [span.name for span in exporter.get_finished_spans()] == ["ours"]
    theirs.shutdown()


def test_a_parent_of_another_provider_is_a_parent():
    exporter = InMemorySpanExporter()
    configure(exporters="none", processors=[SimpleSpanProcessor(exporter)])
    foreign = NonRecordingSpan(SpanContext(5, 6, False, TraceFlags(1)))
    with trace.use_span(foreign), tracekit.span("child"):
        pass
    (span,) = exporter.get_finished_spans()
    assert (span.context.trace_id, span.parent.span_id) == (5, 6)


def test_configuring_warns_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        configure(exporters="memory")
        configure(exporters="memory")


def test_headers_that_are_refused_are_counted_by_reason():
    configure(exporters="none")
    assert "traceparent_version" not in tracekit.stats()["refused"]
    tracekit.extract({"traceparent": "nonsense"})
    assert tracekit.stats()["refused"]["traceparent_version"] == 1
