"""What is known of the process: where it comes from, and which source wins."""

from __future__ import annotations

import os

import pytest

import tracekit
from tracekit.core.resource import parse_resource_attributes
from tracekit.errors import ConfigurationError, InvalidValueError
from tracekit.sdk import Resource
from tracekit.testing import capture_spans


def attributes(**settings):
    with capture_spans(**settings) as exporter:
        with tracekit.span("a"):
            pass
        (span,) = exporter.get_finished_spans()
        return dict(span.resource.attributes)


def test_process_host_and_sdk_are_detected():
    found = attributes()
    assert found["process.pid"] == os.getpid()
    assert found["telemetry.sdk.language"] == "python"
    assert found["telemetry.sdk.name"] == "tracekit"
    assert found["process.runtime.name"] == "cpython"
    assert found["host.name"]
    assert len(found["service.instance.id"]) == 36
    assert found["service.name"].startswith("unknown_service")


def test_two_resources_have_two_instance_ids():
    first, second = Resource.create(), Resource.create()
    assert first.attributes["service.instance.id"] != second.attributes["service.instance.id"]


def test_the_environment_names_the_service_and_more(monkeypatch):
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=weak, a=1,b=%20x%2Cy ,")
    found = attributes()
    assert (found["service.name"], found["a"], found["b"]) == ("weak", "1", " x,y")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "strong")
    assert attributes()["service.name"] == "strong"


def test_arguments_win_over_the_environment(monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "environment")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=environment,b=environment")
    found = attributes(service_name="code", resource={"a": "code"})
    assert (found["service.name"], found["a"], found["b"]) == ("code", "code", "environment")


def test_the_environment_wins_over_the_file(monkeypatch, tmp_path):
    (tmp_path / "pyproject.toml").write_text('[tool.tracekit]\nservice_name = "file"\n')
    monkeypatch.chdir(tmp_path)
    assert attributes()["service.name"] == "file"
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=environment")
    assert attributes()["service.name"] == "environment"


@pytest.mark.parametrize("text", ["a", "a=1,b", "=1", "a=1,=2"])
def test_malformed_attributes_of_the_environment_are_reported_and_all_ignored(
    monkeypatch, caplog, text
):
    """The specification discards the whole value, and the program must start all the same."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", text)
    found = attributes()
    assert not {"a", "b", ""} & set(found)
    assert "OTEL_RESOURCE_ATTRIBUTES" in caplog.text
    with pytest.raises(InvalidValueError):
        parse_resource_attributes(text)


@pytest.mark.parametrize("text", ["", ",", " , ,"])
def test_attributes_of_the_environment_may_be_empty(text):
    assert parse_resource_attributes(text) == {}


def test_a_resource_of_ours_or_of_the_sdk_is_merged_over_what_is_detected():
    from opentelemetry.sdk.resources import Resource as SdkResource

    for given in (Resource({"k": "v"}), SdkResource({"k": "v"})):
        found = attributes(resource=given)
        assert found["k"] == "v"
        assert found["process.pid"] == os.getpid()


@pytest.mark.parametrize("given", [5, "a=b", [("a", "b")], Resource])
def test_what_is_no_resource_is_refused(given):
    with pytest.raises(ConfigurationError, match="resource"):
        tracekit.configure(exporters="none", resource=given)


def test_merging_keeps_the_others_values_where_both_have_one():
    merged = Resource({"a": 1, "b": 1}).merge(Resource({"b": 2}))
    assert dict(merged.attributes) == {"a": 1, "b": 2}
