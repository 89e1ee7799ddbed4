"""Send spans to a Datadog agent, by its own protocols."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from tracekit._version import __version__
from tracekit.errors import InvalidValueError
from tracekit.exporters import _datadog_v05
from tracekit.exporters._answer import OnSkip, Payload
from tracekit.exporters._concurrency import chosen_concurrency
from tracekit.exporters._datadog_agent import API_VERSIONS, V04, AgentSender
from tracekit.exporters._datadog_encoder import DatadogEncoder
from tracekit.exporters._datadog_v04 import PATH
from tracekit.exporters._given import (
    Given,
    checked_timeout_s,
    checked_url,
    from_environment,
    known_value,
)
from tracekit.exporters._http_sender import HttpTarget
from tracekit.exporters._network import NetworkExporter
from tracekit.exporters._retry import RetryPolicy
from tracekit.exporters._spool_settings import GivenSpool, chosen_spool
from tracekit.exporters._transport import Delivery
from tracekit.interfaces import ReadableSpan, SpanExporter

if TYPE_CHECKING:
    import requests

__all__ = ["DatadogExporter"]

DEFAULT_PORT = 8126
DEFAULT_TIMEOUT_S = 10.0

MAX_REQUEST_BYTES = 8 * 1024 * 1024
"""A third of what the agent takes (apm_config.max_payload_size, 25 MB)."""

DEFAULT_SOCKET = "/var/run/datadog/apm.socket"
"""Used when it is there and nothing else is said, as Datadog's own tracers do.
https://docs.datadoghq.com/tracing/trace_collection/library_config/"""


class DatadogExporter(NetworkExporter):
    """Send batches of spans to the agent's trace intake, by protocol v0.5 or v0.4.

    Sampling stays with tracekit: what it exports is marked to be kept.
    To send OTLP to an agent that takes it, use the destination ``datadog_otlp``.

    Args:
        agent_url: ``http://host:8126``, or ``unix:///path`` of the agent's socket;
            DD_TRACE_AGENT_URL, then DD_AGENT_HOST with DD_TRACE_AGENT_PORT.
        timeout: Seconds for a batch with all its retries, 0 for no limit;
            DD_TRACE_AGENT_TIMEOUT_SECONDS, 10 by default.
        service: Name for resources without one; DD_SERVICE. Likewise ``env`` (DD_ENV) and
            ``version`` (DD_VERSION).
        api_version: ``"v0.4"`` or ``"v0.5"``; DD_TRACE_API_VERSION. By default the agent is asked.
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
        agent_url: str | None = None,
        timeout: float | None = None,
        *,
        service: str | None = None,
        env: str | None = None,
        version: str | None = None,
        api_version: str | None = None,
        session: requests.Session | None = None,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        retry_policy: RetryPolicy | None = None,
        max_concurrent_requests: int | None = None,
        spool: GivenSpool = None,
    ) -> None:
        if max_request_bytes <= 0:
            raise InvalidValueError("max_request_bytes", max_request_bytes, "a size above 0")
        at_once = chosen_concurrency(max_concurrent_requests, session)
        url, unix_socket = _agent(agent_url)
        encoder = DatadogEncoder(
            {
                "service": service or os.environ.get("DD_SERVICE", ""),
                "env": env or os.environ.get("DD_ENV", ""),
                "version": version or os.environ.get("DD_VERSION", ""),
            }
        )
        target = HttpTarget(url, _headers(), method="PUT", unix_socket=unix_socket)
        sender = AgentSender(target, session, _api_version(api_version))
        delivery = Delivery(
            sender,
            partial(_encode, encoder, sender),
            _timeout_s(timeout),
            max_request_bytes,
            retry_policy,
            chosen_spool(spool),
        )
        nothing = Payload(b"\x90", headers=(("x-datadog-trace-count", "0"),))
        super().__init__("datadog", delivery, nothing, at_once)


def _encode(
    encoder: DatadogEncoder,
    sender: AgentSender,
    spans: Sequence[ReadableSpan],
    max_bytes: int,
    on_skip: OnSkip,
) -> Iterator[Payload]:
    if sender.api_version() == V04:
        yield from encoder.encode(spans, max_bytes, on_skip)
        return
    for payload in encoder.encode(spans, max_bytes, on_skip, _datadog_v05.bodies):
        yield sender.in_v05(payload)


def _api_version(argument: str | None) -> str | None:
    if argument is None:
        return known_value(from_environment("DD_TRACE_API_VERSION"), API_VERSIONS)
    if argument not in API_VERSIONS:
        raise Given(argument, "api_version (argument)").refused(f"one of {', '.join(API_VERSIONS)}")
    return argument


def _timeout_s(argument: float | None) -> float:
    if argument is not None:
        return checked_timeout_s(Given(argument, "timeout (argument)"))
    given = from_environment("DD_TRACE_AGENT_TIMEOUT_SECONDS")
    if given is None:
        return DEFAULT_TIMEOUT_S
    try:
        return checked_timeout_s(Given(float(given.value), given.source))
    except ValueError:
        raise given.refused("a number of seconds, 0 for no limit") from None


def _headers() -> tuple[tuple[str, str], ...]:
    return (
        ("content-type", "application/msgpack"),
        ("datadog-meta-lang", "python"),
        ("datadog-meta-lang-version", platform.python_version()),
        ("datadog-meta-lang-interpreter", platform.python_implementation()),
        ("datadog-meta-tracer-version", f"tracekit-{__version__}"),
        ("user-agent", f"tracekit/{__version__}"),
    )


def _agent(argument: str | None) -> tuple[str, str | None]:
    """Return the URL of the intake, and the path of the agent's socket if it has one."""
    given = (
        from_environment("DD_TRACE_AGENT_URL")
        if argument is None
        else Given(argument, "agent_url (argument)")
    )
    if given is None:
        return _default_agent()
    if isinstance(given.value, str) and given.value.startswith("unix:"):
        path = unquote(urlsplit(given.value).path)
        if not path.startswith("/"):
            raise given.refused("unix:// and the absolute path of a socket")
        return f"http://localhost{PATH}", path
    parts = checked_url(given, f"http://localhost:{DEFAULT_PORT}")
    return parts._replace(path=parts.path.rstrip("/") + PATH).geturl(), None


def _default_agent() -> tuple[str, str | None]:
    host = from_environment("DD_AGENT_HOST")
    port = from_environment("DD_TRACE_AGENT_PORT")
    if host is None and port is None and os.path.exists(DEFAULT_SOCKET):
        return f"http://localhost{PATH}", DEFAULT_SOCKET
    name = host.value if host else "localhost"
    # An IPv6 address stands in brackets in a URL.
    name = f"[{name}]" if ":" in name and not name.startswith("[") else name
    number = port.value if port else str(DEFAULT_PORT)
    if port and not (number.isdecimal() and 0 < int(number) < 65536):
        raise port.refused("a port from 1 to 65535")
    url = f"http://{name}:{number}{PATH}"
    checked_url(Given(url, host.source if host else "DD_AGENT_HOST"))
    return url, None


plugin: type[SpanExporter] = DatadogExporter
