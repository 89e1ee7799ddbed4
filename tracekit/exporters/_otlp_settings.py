"""Settings of the OTLP exporter, resolved once: arguments before variables before defaults.

Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from tracekit.errors import ConfigurationError
from tracekit.exporters._given import (
    Given,
    checked_file,
    checked_headers,
    checked_timeout_s,
    checked_url,
    from_environment,
    known_value,
    listed_headers,
    timeout_from_environment,
)

__all__ = ["GRPC", "HTTP_JSON", "HTTP_PROTOBUF", "OtlpSettings", "resolve"]

_logger = logging.getLogger("tracekit")

GRPC, HTTP_PROTOBUF, HTTP_JSON = "grpc", "http/protobuf", "http/json"
PROTOCOLS = (HTTP_PROTOBUF, HTTP_JSON, GRPC)

DEFAULT_TIMEOUT_S = 10.0
PATH = "/v1/traces"

Arguments = Mapping[str, Any]


@dataclass(frozen=True)
class OtlpSettings:
    """Everything that an OTLP exporter needs to know to send.

    Attributes:
        endpoint: The whole URL for HTTP; ``host:port``, or what else gRPC takes, for gRPC.
        is_secure: Whether the connection is encrypted.
    """

    protocol: str = HTTP_PROTOBUF
    endpoint: str = f"http://localhost:4318{PATH}"
    is_secure: bool = False
    headers: tuple[tuple[str, str], ...] = ()
    timeout_s: float = DEFAULT_TIMEOUT_S
    compressed: bool = False
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None


def resolve(arguments: Arguments, uses_destination_variables: bool = True) -> OtlpSettings:
    """Return the settings that the arguments and the environment make.

    Args:
        arguments: By name; None counts as not given.
        uses_destination_variables: False for an exporter whose destination is known by name:
            endpoint, headers and certificates of another must not be sent to it.

    Raises:
        ConfigurationError: An argument cannot be used, or a URL or file that a variable names.
    """
    given = _Sources(arguments, uses_destination_variables)
    protocol = _protocol(given)
    settings = OtlpSettings(
        protocol=protocol,
        headers=_headers(given),
        timeout_s=_timeout_s(given),
        compressed=_compressed(given),
        certificate=given.file("certificate_file", "CERTIFICATE"),
        client_key=given.file("client_key_file", "CLIENT_KEY", "PRIVATE KEY"),
        client_certificate=given.file("client_certificate_file", "CLIENT_CERTIFICATE"),
    )
    _check_pair(settings, given)
    if protocol == GRPC:
        return _with_grpc_endpoint(settings, given)
    return _with_http_endpoint(settings, given)


class _Sources:
    """Arguments, and the variables behind them: those for traces before those for all signals."""

    def __init__(self, arguments: Arguments, uses_destination_variables: bool) -> None:
        self._arguments = arguments
        self.uses_destination_variables = uses_destination_variables

    def argument(self, name: str) -> Given | None:
        value = self._arguments.get(name)
        return None if value is None else Given(value, f"{name} (argument)")

    def variable(self, suffix: str) -> Given | None:
        if not self.uses_destination_variables:
            return None
        return from_environment(*_variables(suffix))

    def find(self, argument: str, suffix: str) -> Given | None:
        return self.argument(argument) or self.variable(suffix)

    def file(self, argument: str, suffix: str, holds: str = "CERTIFICATE") -> str | None:
        return checked_file(self.find(argument, suffix), holds)


def _variables(suffix: str) -> tuple[str, str]:
    return f"OTEL_EXPORTER_OTLP_TRACES_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"


def _protocol(given: _Sources) -> str:
    argument = given.argument("protocol")
    if argument:
        if argument.value not in PROTOCOLS:
            raise argument.refused(f"one of {', '.join(PROTOCOLS)}")
        return str(argument.value)
    return known_value(given.variable("PROTOCOL"), PROTOCOLS) or HTTP_PROTOBUF


def _headers(given: _Sources) -> tuple[tuple[str, str], ...]:
    if argument := given.argument("headers"):
        return checked_headers(argument)
    variable = given.variable("HEADERS")
    return listed_headers(variable) if variable else ()


def _timeout_s(given: _Sources) -> float:
    if argument := given.argument("timeout"):
        return checked_timeout_s(argument)
    return timeout_from_environment(*_variables("TIMEOUT")) or DEFAULT_TIMEOUT_S


def _compressed(given: _Sources) -> bool:
    if argument := given.argument("compression"):
        # opentelemetry-sdk's enumeration has the text as value, grpcio's as name.
        value = getattr(argument.value, "value", argument.value)
        name = value if isinstance(value, str) else getattr(argument.value, "name", value)
        text = str(name).lower().replace("nocompression", "none")
        if text not in ("gzip", "none"):
            raise argument.refused("gzip or none")
        return text == "gzip"
    return known_value(from_environment(*_variables("COMPRESSION")), ("gzip", "none")) == "gzip"


def _check_pair(settings: OtlpSettings, given: _Sources) -> None:
    if settings.client_key and not settings.client_certificate:
        raise ConfigurationError(
            "a client key without a client certificate is not valid: set "
            "client_certificate_file or OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE as well."
        )
    if not settings.client_key:
        # Then it is in the file of the certificate.
        given.file("client_certificate_file", "CLIENT_CERTIFICATE", "PRIVATE KEY")


def _with_http_endpoint(settings: OtlpSettings, given: _Sources) -> OtlpSettings:
    own = given.argument("endpoint")
    if own:
        # A URL without any path is completed; opentelemetry-sdk would send to "/".
        parts = checked_url(own)
        url = own.value.strip() if parts.path else parts._replace(path=PATH).geturl()
        return replace(settings, endpoint=url, is_secure=parts.scheme == "https")
    of_traces, of_all = _variables("ENDPOINT")
    if not given.uses_destination_variables:
        return settings
    if variable := from_environment(of_traces):
        parts = checked_url(variable)  # used as it is, with "/" when it has no path
    elif variable := from_environment(of_all):
        parts = checked_url(variable)
        parts = parts._replace(path=parts.path.rstrip("/") + PATH)
    else:
        return settings
    return replace(settings, endpoint=parts.geturl(), is_secure=parts.scheme == "https")


def _with_grpc_endpoint(settings: OtlpSettings, given: _Sources) -> OtlpSettings:
    """Accept a URL or any form that gRPC takes; a scheme of https or http beats ``insecure``."""
    found = given.find("endpoint", "ENDPOINT")
    if found is None:
        is_secure = not _is_insecure(given, default=True)
        return replace(settings, endpoint="localhost:4317", is_secure=is_secure)
    if not isinstance(found.value, str) or not found.value.strip():
        raise found.refused("host:port or a URL such as http://localhost:4317")
    text = found.value.strip()
    if text.startswith(("http://", "https://")):
        parts = checked_url(found)
        host = parts.netloc.rpartition("@")[2]
        # gRPC's own default for a name without a port is 443, also without TLS.
        address = host if parts.port else f"{host}:{443 if parts.scheme == 'https' else 4317}"
        return replace(settings, endpoint=address, is_secure=parts.scheme == "https")
    scheme = urlsplit(text).scheme
    if "://" in text and scheme not in ("dns", "unix", "ipv4", "ipv6", "xds", "vsock"):
        raise found.refused("a URL with the scheme http or https, or host:port")
    return replace(settings, endpoint=text, is_secure=not _is_insecure(given, default=False))


def _is_insecure(given: _Sources, default: bool) -> bool:
    argument = given.argument("insecure")
    if argument:
        return bool(argument.value)
    variable = given.variable("INSECURE")
    if variable is None:
        return default
    if variable.value.lower() not in ("true", "false"):
        _logger.warning(
            "%s=%r is taken for false: expected true or false", variable.source, variable.value
        )
    return bool(variable.value.lower() == "true")
