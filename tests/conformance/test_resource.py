"""Resources: https://opentelemetry.io/docs/specs/otel/resource/sdk/."""

from __future__ import annotations

import re
from typing import Any

import pytest
from opentelemetry.sdk.resources import Resource as SdkResource

from tracekit.configure import configure
from tracekit.sdk import InMemorySpanExporter, Resource, TracerProvider


def test_a_resource_is_made_from_attributes() -> None:
    """A resource can be created from attributes; without a schema URL it has an empty one.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#create
    """
    resource = Resource({"key": "value"})
    assert (resource.attributes, resource.schema_url) == ({"key": "value"}, "")
    assert Resource({}, "https://schema").schema_url == "https://schema"


def test_there_is_an_empty_resource() -> None:
    """An empty resource can be created quickly.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#the-empty-resource
    """
    assert Resource.get_empty().attributes == {}


def test_a_resource_does_not_change() -> None:
    """Resources are immutable; their attributes are read only.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#retrieve-attributes
    """
    given = {"key": "value"}
    resource: Any = Resource(given)
    given["key"] = "other"
    with pytest.raises(TypeError):
        resource.attributes["key"] = "other"
    assert resource.attributes == {"key": "value"}


def test_all_spans_of_a_provider_have_its_resource(
    make_provider: Any, exporter: InMemorySpanExporter
) -> None:
    """Every span of every tracer of a provider is associated with the provider's resource.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/
    """
    resource = Resource({"service.name": "shop"})
    provider = make_provider(resource=resource)
    for name in ("one", "two"):
        provider.get_tracer(name).start_span("a").end()
    assert [span.resource for span in exporter.get_finished_spans()] == [resource] * 2


@pytest.mark.parametrize("make", [TracerProvider, lambda: configure(exporters="none")])
def test_without_a_resource_there_are_the_attributes_of_the_sdk(make: Any) -> None:
    """The default resource has service.name and telemetry.sdk.*.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#sdk-provided-resource-attributes
    """
    attributes = make().resource.attributes
    assert attributes["telemetry.sdk.language"] == "python"
    assert attributes["telemetry.sdk.name"] == "tracekit"
    assert re.match(r"\d", attributes["telemetry.sdk.version"])
    assert attributes["service.name"] == "unknown_service:python"


def test_a_resource_that_was_given_is_taken_as_it_is() -> None:
    """A resource that has none of the SDK's attributes can be associated.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#sdk-provided-resource-attributes
    """
    provider = TracerProvider(resource=Resource({"key": 1}), shutdown_on_exit=False)
    assert provider.resource.attributes == {"key": 1}


@pytest.mark.parametrize(
    ("old", "updating", "merged"),
    [
        ({"a": 1}, {"b": 2}, {"a": 1, "b": 2}),
        ({"a": 1}, {"a": 2}, {"a": 2}),
        ({"a": "1"}, {"a": ""}, {"a": ""}),
        ({}, {}, {}),
    ],
)
def test_merging_takes_everything_and_the_updating_value(
    old: Any, updating: Any, merged: Any
) -> None:
    """All attributes are there; for the same key the updating resource's, even if empty.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#merge
    """
    assert Resource(old).merge(Resource(updating)).attributes == merged


@pytest.mark.parametrize(
    ("old", "updating", "expected"),
    [("", "u", "u"), ("o", "", "o"), ("s", "s", "s"), ("", "", ""), ("o", "u", "")],
)
def test_the_schema_url_of_a_merged_resource(old: str, updating: str, expected: str) -> None:
    """The non-empty one, or the common one; two different ones cannot be merged.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#merge
    """
    assert Resource({}, old).merge(Resource({}, updating)).schema_url == expected


def test_the_environment_is_weaker_than_what_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """OTEL_RESOURCE_ATTRIBUTES is merged in with less priority than the user's resource.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable
    """
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=environment,b=environment")
    for attributes in (
        Resource.create({"a": "code"}).attributes,
        configure(exporters="none", resource={"a": "code"}).resource.attributes,
    ):
        assert (attributes["a"], attributes["b"]) == ("code", "environment")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("key=value", "value"),
        ("key=1", "1"),
        ("key=true", "true"),
        ("key=a%2Cb%3Dc", "a,b=c"),
        ("key=%F0%9F%92%BC", "💼"),
        ("key=a=b", "a=b"),
        (" key = value ,other=1", "value"),
        ("key=", ""),
    ],
)
def test_values_are_texts_and_percent_encoded(
    monkeypatch: pytest.MonkeyPatch, text: str, expected: str
) -> None:
    """All values are strings; characters may be percent-encoded.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable
    """
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", text)
    assert Resource.create().attributes["key"] == expected


@pytest.mark.parametrize("text", ["a=1,novalue", "=1,a=1", "a"])
def test_a_malformed_variable_is_discarded_as_a_whole_and_reported(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    """In case of any error the entire value is discarded, and an error is reported.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable
    """
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", text)
    assert "a" not in Resource.create().attributes
    assert len(caplog.records) == 1


class Detector:
    def __init__(self, attributes: Any = None, schema_url: str = "") -> None:
        self._resource = SdkResource(attributes or {}, schema_url)

    def detect(self) -> Any:
        return self._resource


class Failing:
    def detect(self) -> Any:
        raise RuntimeError("no metadata server")


@pytest.fixture
def detectors(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Let names stand for resource detectors, as entry points do."""
    from tracekit import discovery

    known: dict[str, Any] = {}
    find = discovery.find

    def found(kind: str, name: str, source: str = "") -> Any:
        is_known = kind == "resource detector" and name in known
        return (lambda: known[name]) if is_known else find(kind, name, source)

    monkeypatch.setattr(discovery, "find", found)
    return known


def detected(monkeypatch: pytest.MonkeyPatch, *names: str) -> Resource:
    monkeypatch.setenv("OTEL_EXPERIMENTAL_RESOURCE_DETECTORS", ",".join(names))
    return configure(exporters="none").resource  # type: ignore[return-value]


def test_what_detectors_find_is_in_the_resource(
    monkeypatch: pytest.MonkeyPatch, detectors: Any
) -> None:
    """A detector returns a resource, which is associated with the provider.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#detecting-resource-information-from-the-environment
    """
    detectors["cloud"] = Detector({"cloud.region": "here"})
    detectors["container"] = Detector({"container.id": "c1"})
    attributes = detected(monkeypatch, "cloud", "container").attributes
    assert (attributes["cloud.region"], attributes["container.id"]) == ("here", "c1")


def test_finding_nothing_is_no_error(
    monkeypatch: pytest.MonkeyPatch, detectors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Failure to detect any information is not considered an error.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#detecting-resource-information-from-the-environment
    """
    detectors["cloud"] = Detector()
    assert detected(monkeypatch, "cloud").attributes["telemetry.sdk.name"] == "tracekit"
    assert caplog.records == []


def test_a_detector_that_fails_is_reported_and_stops_no_other(
    monkeypatch: pytest.MonkeyPatch, detectors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """An error while detecting is considered one, is reported, and is thrown to nobody.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#detecting-resource-information-from-the-environment
    """
    detectors.update(bad=Failing(), good=Detector({"good": 1}))
    assert detected(monkeypatch, "bad", "good").attributes["good"] == 1
    assert ["'bad'" in record.getMessage() for record in caplog.records] == [True]


def test_our_own_detection_says_its_schema(monkeypatch: pytest.MonkeyPatch) -> None:
    """Detectors that follow the semantic conventions set the schema URL that matches them.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#detecting-resource-information-from-the-environment
    """
    pattern = r"https://opentelemetry\.io/schemas/\d+\.\d+\.\d+"
    assert re.fullmatch(pattern, Resource.create().schema_url)


def test_detectors_with_different_schemas_are_an_error(
    monkeypatch: pytest.MonkeyPatch, detectors: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Different schema URLs of combined detectors are an error; the attributes are ours to keep.

    https://opentelemetry.io/docs/specs/otel/resource/sdk/#detecting-resource-information-from-the-environment
    """
    detectors["cloud"] = Detector({"cloud.region": "here"}, "https://schema/other")
    resource = detected(monkeypatch, "cloud")
    assert (resource.attributes["cloud.region"], resource.schema_url) == ("here", "")
    assert ["schema" in record.getMessage() for record in caplog.records] == [True]
