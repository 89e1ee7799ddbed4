"""Where OTLP settings come from, what they mean, and how wrong ones are refused."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression

from tracekit.errors import ConfigurationError, NotInstalledError
from tracekit.exporters._otlp_settings import OtlpSettings, resolve
from tracekit.exporters.otlp import OTLPSpanExporter

PREFIX = "OTEL_EXPORTER_OTLP_"

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nMIIE\n-----END PRIVATE KEY-----\n"
OLD_ENCRYPTED_KEY = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n"


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Resolve with variables by the end of their names, and arguments."""

    def resolved(variables: dict[str, str] | None = None, **arguments: Any) -> OtlpSettings:
        for name, value in (variables or {}).items():
            monkeypatch.setenv(PREFIX + name, value)
        return resolve(arguments)

    return resolved


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]


def test_defaults_are_those_of_the_specification(settings: Any) -> None:
    assert settings() == OtlpSettings(
        protocol="http/protobuf",
        endpoint="http://localhost:4318/v1/traces",
        is_secure=False,
        headers=(),
        timeout_s=10.0,
        compressed=False,
    )


@pytest.mark.parametrize(
    ("variables", "arguments", "endpoint"),
    [
        ({"ENDPOINT": "http://c:4318"}, {}, "http://c:4318/v1/traces"),
        ({"ENDPOINT": "http://c:4318/"}, {}, "http://c:4318/v1/traces"),
        ({"ENDPOINT": "https://c/otlp/"}, {}, "https://c/otlp/v1/traces"),
        ({"ENDPOINT": "http://c/?key=1"}, {}, "http://c/v1/traces?key=1"),
        ({"TRACES_ENDPOINT": "http://c:4318/in"}, {}, "http://c:4318/in"),
        ({"TRACES_ENDPOINT": "http://c:4318"}, {}, "http://c:4318"),
        ({"TRACES_ENDPOINT": "http://t/x", "ENDPOINT": "http://all"}, {}, "http://t/x"),
        ({"TRACES_ENDPOINT": "  ", "ENDPOINT": "http://all"}, {}, "http://all/v1/traces"),
        ({"TRACES_ENDPOINT": "http://t/x"}, {"endpoint": "http://a/y"}, "http://a/y"),
        ({}, {"endpoint": "http://a:1"}, "http://a:1/v1/traces"),
        ({}, {"endpoint": "http://a:1/"}, "http://a:1/"),
        ({}, {"endpoint": "http://[::1]:4318/v1/traces"}, "http://[::1]:4318/v1/traces"),
    ],
)
def test_an_http_endpoint(
    settings: Any, variables: dict[str, str], arguments: dict[str, Any], endpoint: str
) -> None:
    assert settings(variables, **arguments).endpoint == endpoint


@pytest.mark.parametrize(
    ("variables", "arguments", "address", "is_secure"),
    [
        ({}, {}, "localhost:4317", False),
        ({"ENDPOINT": "http://c:4317"}, {}, "c:4317", False),
        ({"ENDPOINT": "https://c:4317/ignored"}, {}, "c:4317", True),
        ({"ENDPOINT": "https://c"}, {}, "c:443", True),
        ({"ENDPOINT": "http://c"}, {}, "c:4317", False),
        ({"ENDPOINT": "c:4317"}, {}, "c:4317", True),
        ({"ENDPOINT": "c:4317", "INSECURE": "true"}, {}, "c:4317", False),
        ({"ENDPOINT": "c:4317", "INSECURE": "TRUE"}, {}, "c:4317", False),
        ({"ENDPOINT": "https://c:1", "INSECURE": "true"}, {}, "c:1", True),
        ({"ENDPOINT": "http://c:1", "INSECURE": "false"}, {}, "c:1", False),
        ({"INSECURE": "true"}, {"endpoint": "c:1", "insecure": False}, "c:1", True),
        (
            {"ENDPOINT": "unix:///run/otel.sock", "INSECURE": "true"},
            {},
            "unix:///run/otel.sock",
            False,
        ),
        ({"ENDPOINT": "dns:///c:4317"}, {}, "dns:///c:4317", True),
    ],
)
def test_a_grpc_endpoint(
    settings: Any,
    variables: dict[str, str],
    arguments: dict[str, Any],
    address: str,
    is_secure: bool,
) -> None:
    found = settings(variables, protocol="grpc", **arguments)
    assert (found.endpoint, found.is_secure) == (address, is_secure)


@pytest.mark.parametrize(
    ("variables", "arguments", "headers"),
    [
        ({"HEADERS": "api-key=abc,X-Two=2"}, {}, {"api-key": "abc", "x-two": "2"}),
        ({"HEADERS": " a = b , c=d "}, {}, {"a": "b", "c": "d"}),
        ({"HEADERS": "a=one%20two%2Cthree"}, {}, {"a": "one two,three"}),
        ({"HEADERS": "a=b=c=="}, {}, {"a": "b=c=="}),
        ({"HEADERS": "a="}, {}, {"a": ""}),
        ({"HEADERS": "a=1", "TRACES_HEADERS": "b=2"}, {}, {"b": "2"}),
        ({"HEADERS": "a=1"}, {"headers": {"B": "2"}}, {"b": "2"}),
        ({}, {"headers": [("b", "2"), ("c", "3")]}, {"b": "2", "c": "3"}),
        ({}, {"headers": "b=2,c=3"}, {"b": "2", "c": "3"}),
    ],
)
def test_headers(
    settings: Any, variables: dict[str, str], arguments: dict[str, Any], headers: dict[str, str]
) -> None:
    assert dict(settings(variables, **arguments).headers) == headers


def test_malformed_headers_of_the_environment_are_left_out_and_said(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    text = "good=1,no equals,=nameless,bad name=2,inject=a%0d%0aEvil: b,last=3,,"
    assert dict(settings({"HEADERS": text}).headers) == {"good": "1", "last": "3"}
    assert len(warnings(caplog)) == 4
    assert all("OTEL_EXPORTER_OTLP_HEADERS" in message for message in warnings(caplog))
    assert "Evil" not in str(warnings(caplog)), "a value may be a secret"


@pytest.mark.parametrize(
    ("variables", "arguments", "seconds"),
    [
        ({"TIMEOUT": "2500"}, {}, 2.5),
        ({"TIMEOUT": "2500", "TRACES_TIMEOUT": "1000"}, {}, 1.0),
        ({"TIMEOUT": "2500"}, {"timeout": 3}, 3.0),
        ({"TIMEOUT": "0"}, {}, 3600.0),
        ({}, {"timeout": 0}, 3600.0),
    ],
)
def test_variables_are_in_milliseconds_and_arguments_in_seconds(
    settings: Any, variables: dict[str, str], arguments: dict[str, Any], seconds: float
) -> None:
    assert settings(variables, **arguments).timeout_s == seconds


def test_a_variable_that_was_meant_in_seconds_is_pointed_out(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    assert settings({"TIMEOUT": "10"}).timeout_s == 0.01
    assert "10 milliseconds" in warnings(caplog)[0]


@pytest.mark.parametrize(
    ("variables", "arguments", "compressed"),
    [
        ({"COMPRESSION": "gzip"}, {}, True),
        ({"COMPRESSION": "GZIP"}, {}, True),
        ({"COMPRESSION": "none"}, {}, False),
        ({"COMPRESSION": "gzip", "TRACES_COMPRESSION": "none"}, {}, False),
        ({"COMPRESSION": "gzip"}, {"compression": "none"}, False),
        ({}, {"compression": Compression.Gzip}, True),
        ({}, {"compression": Compression.NoCompression}, False),
        ({}, {"compression": grpc.Compression.Gzip}, True),
        ({}, {"compression": grpc.Compression.NoCompression}, False),
    ],
)
def test_compression(
    settings: Any, variables: dict[str, str], arguments: dict[str, Any], compressed: bool
) -> None:
    assert settings(variables, **arguments).compressed is compressed


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("PROTOCOL", "carrier pigeon", "protocol", "http/protobuf"),
        ("COMPRESSION", "brotli", "compressed", False),
        ("TIMEOUT", "soon", "timeout_s", 10.0),
        ("TIMEOUT", "-5", "timeout_s", 10.0),
        ("TIMEOUT", "1.5", "timeout_s", 10.0),
        ("TIMEOUT", "9" * 400, "timeout_s", 10.0),
    ],
)
def test_unknown_values_of_variables_are_ignored_and_said(
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    name: str,
    value: str,
    field: str,
    expected: object,
) -> None:
    assert getattr(settings({name: value}), field) == expected
    (message,) = warnings(caplog)
    assert PREFIX + name in message


def test_a_boolean_that_is_none_counts_as_false_and_is_said(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = settings({"INSECURE": "1", "ENDPOINT": "c:4317"}, protocol="grpc")
    assert found.is_secure is True
    assert "OTEL_EXPORTER_OTLP_INSECURE" in warnings(caplog)[0]


@pytest.mark.parametrize("protocol", ["http/protobuf", "http/json", "HTTP/JSON", "grpc"])
def test_the_protocol_of_the_environment(settings: Any, protocol: str) -> None:
    assert settings({"PROTOCOL": protocol}).protocol == protocol.lower()
    assert settings({"TRACES_PROTOCOL": "http/json"}).protocol == "http/json"


@pytest.mark.parametrize(
    ("variables", "arguments", "named"),
    [
        ({"ENDPOINT": "collector:4318"}, {}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"ENDPOINT": "ftp://collector"}, {}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"TRACES_ENDPOINT": "http://"}, {}, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"),
        ({"ENDPOINT": "http://c:99999"}, {}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"ENDPOINT": "http://c:port"}, {}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"ENDPOINT": "http://[::1"}, {}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({"ENDPOINT": "ftp://c"}, {"protocol": "grpc"}, "OTEL_EXPORTER_OTLP_ENDPOINT"),
        ({}, {"endpoint": "localhost"}, "endpoint (argument)"),
        ({}, {"endpoint": "http://a b"}, "endpoint (argument)"),
        ({}, {"endpoint": 4318}, "endpoint (argument)"),
        ({}, {"endpoint": "", "protocol": "grpc"}, "endpoint (argument)"),
        ({}, {"protocol": "http/xml"}, "protocol (argument)"),
        ({}, {"compression": "brotli"}, "compression (argument)"),
        ({}, {"timeout": -1}, "timeout (argument)"),
        ({}, {"timeout": "10"}, "timeout (argument)"),
        ({}, {"timeout": float("nan")}, "timeout (argument)"),
        ({}, {"timeout": True}, "timeout (argument)"),
        ({}, {"headers": {"bad name": "secret"}}, "headers (argument)"),
        ({}, {"headers": {"key": "secret\r\nEvil: 1"}}, "headers (argument)"),
        ({}, {"headers": {"key": "secret\u20ac"}}, "headers (argument)"),
        ({}, {"headers": {"key": 5}}, "headers (argument)"),
        ({}, {"headers": 5}, "headers (argument)"),
        ({}, {"headers": "no equals secret"}, "headers (argument)"),
        ({"CERTIFICATE": "/no/such.pem"}, {}, "OTEL_EXPORTER_OTLP_CERTIFICATE"),
        ({"TRACES_CLIENT_KEY": "/no/k"}, {}, "OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY"),
        ({}, {"certificate_file": "/no/such.pem"}, "certificate_file (argument)"),
        ({}, {"client_certificate_file": "/"}, "client_certificate_file (argument)"),
    ],
)
def test_what_cannot_work_is_refused_with_its_name_and_source(
    settings: Any, variables: dict[str, str], arguments: dict[str, Any], named: str
) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        settings(variables, **arguments)
    assert named in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_key_needs_its_certificate(settings: Any, tmp_path: Path) -> None:
    key = tmp_path / "key.pem"
    key.write_text(KEY)
    with pytest.raises(ConfigurationError, match="CLIENT_CERTIFICATE"):
        settings({"CLIENT_KEY": str(key)})


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("CERTIFICATE", "", "a PEM file that holds a certificate"),
        ("CERTIFICATE", KEY, "a PEM file that holds a certificate"),
        ("CLIENT_KEY", CERTIFICATE, "a PEM file that holds a private key"),
        ("CLIENT_CERTIFICATE", CERTIFICATE, "a PEM file that holds a private key"),
        ("CLIENT_CERTIFICATE", KEY, "a PEM file that holds a certificate"),
        ("CLIENT_KEY", KEY.replace("N P", "N ENCRYPTED P"), "a key without a passphrase"),
        ("CLIENT_CERTIFICATE", CERTIFICATE + OLD_ENCRYPTED_KEY, "a key without a passphrase"),
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    settings: Any, tmp_path: Path, name: str, content: str, expected: str
) -> None:
    """It would fail at each connection, or ask for a passphrase in the middle of a program."""
    file = tmp_path / "file.pem"
    file.write_text(content)
    with pytest.raises(ConfigurationError, match=f"OTEL_EXPORTER_OTLP_{name}=.*{expected}"):
        settings({name: str(file)})


def test_a_password_in_a_refused_url_is_not_repeated(settings: Any) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        settings(endpoint="ftp://user:secret@host/?token=secret")
    assert "secret" not in str(refusal.value)


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(ConfigurationError, match="max_request_bytes"):
        OTLPSpanExporter(max_request_bytes=size)


def test_grpc_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(NotInstalledError, match=r"pip install 'tracekit\[grpc\]'"):
        OTLPSpanExporter(protocol="grpc")


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_making_an_exporter_imports_no_transport(protocol: str) -> None:
    program = (
        "import sys\n"
        "from tracekit.exporters.otlp import OTLPSpanExporter\n"
        "import threading\n"
        f"OTLPSpanExporter(protocol={protocol!r})\n"
        "assert threading.active_count() == 1\n"
        "print([n for n in ('requests', 'urllib3', 'grpc', 'ssl', 'google') if n in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")
