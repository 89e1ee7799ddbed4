"""Settings, methods, headers and failures are treated alike by HTTP clients and servers."""

from __future__ import annotations

import re
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.context import Context
from opentelemetry.trace import StatusCode

from instrumentation.conftest import Spans
from tracekit.errors import InvalidValueError
from tracekit.instrumentation._http import (
    HttpSettings,
    error_type,
    is_suppressed,
    record_failure,
    suppressed_http,
    truncated,
)
from tracekit.instrumentation._http_client_attributes import HttpClientSettings

CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SERVER_REQUEST"
SANITIZE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"


def settings(environ: dict[str, str] | None = None, **options: Any) -> HttpSettings:
    return HttpSettings.from_environment("flask", environ or {}, "SERVER", **options)


def captured(entries: str, *headers: tuple[str | bytes, str | bytes], **more: str) -> Any:
    capture = settings({CAPTURE: entries, **more}).request_headers
    return None if capture is None else capture.attributes(headers)


@pytest.mark.parametrize(
    ("method", "recorded"),
    [
        ("GET", ("GET", None)),
        ("QUERY", ("QUERY", None)),
        ("get", ("GET", "get")),
        ("PURGE", ("_OTHER", "PURGE")),
        ("", ("_OTHER", "")),
        ("X" * 100, ("_OTHER", "X" * 63 + "…")),
    ],
)
def test_method_is_a_known_one_or_other(method: str, recorded: tuple[str, str | None]) -> None:
    assert settings().method(method) == recorded


def test_known_methods_are_replaced_in_full() -> None:
    replaced = settings({"OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS": "GET, PURGE"})
    assert replaced.method("PURGE") == ("PURGE", None)
    assert replaced.method("POST") == ("_OTHER", "POST")


def test_nothing_is_captured_by_default() -> None:
    assert settings().request_headers is None
    assert settings().response_headers is None


def test_headers_keep_their_dashes_and_all_their_values() -> None:
    found = captured("X-Tenant-Id,accept", ("x-tenant-id", "a"), (b"X-Tenant-ID", b"b"), ("y", "c"))
    assert found == {"http.request.header.x-tenant-id": ["a", "b"]}


@pytest.mark.parametrize("entry", ["x-.*", "X-.*", "x-*", "x-(a|b)", ".*", "*"])
def test_headers_are_captured_by_patterns(entry: str) -> None:
    assert captured(entry, ("X-A", "1")) == {"http.request.header.x-a": ["1"]}


def test_pattern_matches_the_whole_name() -> None:
    assert captured("x-.", ("x-abc", "1"), ("my-x-a", "1")) == {}


def test_credentials_are_captured_by_name_only() -> None:
    headers = (("authorization", "Bearer x"), ("cookie", "a=1"), ("accept", "*/*"))
    assert captured(".*,cookie", *headers) == {
        "http.request.header.authorization": ["[REDACTED]"],
        "http.request.header.cookie": ["a=1"],
        "http.request.header.accept": ["*/*"],
    }


def test_sanitized_headers_are_captured_without_their_values() -> None:
    found = captured(
        "x-a,x-session-id", ("x-a", "1"), ("X-Session-Id", "2"), **{SANITIZE: ".*SESS"}
    )
    assert found == {
        "http.request.header.x-a": ["1"],
        "http.request.header.x-session-id": ["[REDACTED]"],
    }


def test_captured_values_are_bounded() -> None:
    found = captured("x", *[("x", "v" * 1_000_000)] * 1000)
    values = found["http.request.header.x"]
    assert (len(values), len(values[0])) == (128, 4096)


def test_options_take_the_place_of_the_environment() -> None:
    overridden = settings({CAPTURE: "x-a"}, capture_request_headers=["x-b"])
    assert overridden.request_headers is not None
    assert overridden.request_headers.names == {"x-b"}
    assert settings({CAPTURE: "x-a"}, capture_request_headers=[]).request_headers is None


def test_librarys_own_exclusions_take_the_place_of_the_general_ones() -> None:
    environ = {"OTEL_PYTHON_EXCLUDED_URLS": "a", "OTEL_PYTHON_FLASK_EXCLUDED_URLS": "b"}
    assert not settings(environ).is_excluded("http://shop/a")
    assert settings(environ).is_excluded("http://shop/b")
    assert not settings(environ, excluded_urls="").is_excluded("http://shop/b")


def test_nothing_is_excluded_by_an_empty_setting() -> None:
    assert not settings({"OTEL_PYTHON_EXCLUDED_URLS": " , "}).is_excluded("http://shop/")


@pytest.mark.parametrize(
    "options",
    [{"excluded_urls": "a,("}, {"capture_request_headers": ["x-("]}],
)
def test_setting_that_is_no_regular_expression_is_an_error(options: Any) -> None:
    with pytest.raises(InvalidValueError, match="regular expression"):
        settings(**options)


def test_unknown_value_for_the_end_of_spans_is_an_error() -> None:
    with pytest.raises(InvalidValueError, match="headers or body"):
        HttpClientSettings.read("requests", {"TRACEKIT_HTTP_CLIENT_SPAN_ENDS": "never"})


@pytest.mark.parametrize(("value", "old"), [("http/dup", True), ("http", False), ("", False)])
def test_old_names_are_written_on_request_only(value: str, old: bool) -> None:
    assert settings({"OTEL_SEMCONV_STABILITY_OPT_IN": value}).writes_old_names is old


def test_no_context_is_suppressed_by_default() -> None:
    assert not is_suppressed(Context())


def test_context_stays_as_it_was_when_a_suppressed_one_is_made() -> None:
    context = Context({"a": 1})
    assert is_suppressed(suppressed_http(context))
    assert not is_suppressed(context)


def test_suppression_can_be_lifted() -> None:
    context = otel_context.set_value("suppress_instrumentation", False, Context())
    assert not is_suppressed(context)


class OwnError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_error_type_is_the_class_with_its_module() -> None:
    assert error_type(ValueError()) == "ValueError"
    assert error_type(re.error("x")) == f"{re.error.__module__}.{re.error.__qualname__}"
    assert error_type(OwnError()) == f"{OwnError.__module__}.OwnError"


def test_failure_is_an_error_with_its_message(spans: Spans) -> None:
    span = spans.tracer.start_span("x")
    record_failure(span, ValueError("bad"))
    span.end()
    (ended,) = spans.ended
    assert (ended.status.status_code, ended.status.description) == (StatusCode.ERROR, "bad")
    assert (ended.attributes or {})["error.type"] == "ValueError"
    assert [event.name for event in ended.events] == ["exception"]


def test_failure_without_text_is_quiet(spans: Spans, caplog: pytest.LogCaptureFixture) -> None:
    span = spans.tracer.start_span("x")
    record_failure(span, OwnError())
    span.end()
    assert (spans.ended[0].attributes or {})["error.type"].endswith("OwnError")  # type: ignore[union-attr]


@pytest.mark.parametrize(("text", "cut"), [("abc", "abc"), ("abcd", "ab…"), ("", "")])
def test_long_text_is_cut_with_a_mark(text: str, cut: str) -> None:
    assert truncated(text, 3) == cut
