"""Send spans to a Zipkin server, or to what else takes Zipkin V2 JSON."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

from tracekit._version import __version__
from tracekit.errors import InvalidValueError
from tracekit.exporters._answer import Payload
from tracekit.exporters._concurrency import chosen_concurrency
from tracekit.exporters._given import (
    Given,
    checked_timeout_s,
    checked_url,
    from_environment,
    timeout_from_environment,
)
from tracekit.exporters._http_sender import HttpSender, HttpTarget
from tracekit.exporters._network import NetworkExporter
from tracekit.exporters._retry import RetryPolicy
from tracekit.exporters._spool_settings import GivenSpool, chosen_spool
from tracekit.exporters._transport import Delivery
from tracekit.exporters._zipkin_encoder import ZipkinEncoder
from tracekit.interfaces import SpanExporter

if TYPE_CHECKING:
    import requests

__all__ = ["ZipkinExporter"]

DEFAULT_ENDPOINT = "http://localhost:9411/api/v2/spans"
DEFAULT_TIMEOUT_S = 10.0

MAX_REQUEST_BYTES = 500_000
"""What Zipkin's own reporters send at most, since some of its transports take no more.
https://github.com/openzipkin/zipkin-reporter-java"""

_HEADERS = (("content-type", "application/json"), ("user-agent", f"tracekit/{__version__}"))


class ZipkinExporter(NetworkExporter):
    """Send batches of spans as Zipkin V2 JSON.

    Args:
        endpoint: The whole URL; OTEL_EXPORTER_ZIPKIN_ENDPOINT.
        local_node_ipv4: Address of this process, shown by Zipkin.
        local_node_port: And its port.
        max_tag_value_length: Longer tag values are cut; None for no limit.
        timeout: Seconds for a batch with all its retries; 10 by default, 0 for no limit.
            OTEL_EXPORTER_ZIPKIN_TIMEOUT is in milliseconds, as specified.
        session: A requests.Session to send with.
        max_request_bytes: Larger batches are split.
        max_concurrent_requests: How many may be under way, when answers are slow; 4 by default,
            1 with a session of yours; TRACEKIT_MAX_CONCURRENT_REQUESTS.
        spool: Where to keep what cannot be sent: a Spool or a path; False for nowhere.

    Raises:
        ConfigurationError: A setting cannot work; the message names it and its source.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        local_node_ipv4: Any = None,
        local_node_ipv6: Any = None,
        local_node_port: int | None = None,
        max_tag_value_length: int | None = None,
        timeout: float | None = None,
        session: requests.Session | None = None,
        *,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        retry_policy: RetryPolicy | None = None,
        max_concurrent_requests: int | None = None,
        spool: GivenSpool = None,
    ) -> None:
        if max_request_bytes <= 0:
            raise InvalidValueError("max_request_bytes", max_request_bytes, "a size above 0")
        at_once = chosen_concurrency(max_concurrent_requests, session)
        local = {
            "ipv4": _address("local_node_ipv4", local_node_ipv4, 4),
            "ipv6": _address("local_node_ipv6", local_node_ipv6, 6),
            "port": _port(local_node_port),
        }
        encoder = ZipkinEncoder(
            {name: value for name, value in local.items() if value}, max_tag_value_length
        )
        sender = HttpSender(HttpTarget(_endpoint(endpoint), _HEADERS), session)
        delivery = Delivery(
            sender,
            encoder.encode,
            _timeout_s(timeout),
            max_request_bytes,
            retry_policy,
            chosen_spool(spool),
        )
        super().__init__("zipkin", delivery, Payload(b"[]"), at_once)


def _endpoint(argument: str | None) -> str:
    if argument is not None:
        given: Given | None = Given(argument, "endpoint (argument)")
    else:
        given = from_environment("OTEL_EXPORTER_ZIPKIN_ENDPOINT")
    return checked_url(given, DEFAULT_ENDPOINT).geturl() if given else DEFAULT_ENDPOINT


def _timeout_s(argument: float | None) -> float:
    if argument is not None:
        return checked_timeout_s(Given(argument, "timeout (argument)"))
    return timeout_from_environment("OTEL_EXPORTER_ZIPKIN_TIMEOUT") or DEFAULT_TIMEOUT_S


def _address(setting: str, value: Any, version: int) -> str | None:
    if value is None:
        return None
    try:
        address = ip_address(value)
    except ValueError:
        raise InvalidValueError(setting, value, f"an IPv{version} address") from None
    if address.version != version:
        raise InvalidValueError(setting, value, f"an IPv{version} address")
    return str(address)


def _port(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 < value < 65536:
        raise InvalidValueError("local_node_port", value, "a port from 1 to 65535")
    return value


plugin: type[SpanExporter] = ZipkinExporter
