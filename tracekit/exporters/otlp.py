"""Send spans by OTLP: HTTP with protobuf or JSON, or gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from tracekit._version import __version__
from tracekit.errors import InvalidValueError, NotInstalledError
from tracekit.exporters._answer import Answer, OnSkip, Payload, Sender, Verdict
from tracekit.exporters._concurrency import chosen_concurrency
from tracekit.exporters._http_sender import HttpSender, HttpTarget, Reply
from tracekit.exporters._network import NetworkExporter
from tracekit.exporters._otlp_encoder import encode_batches
from tracekit.exporters._otlp_json import encode_line
from tracekit.exporters._otlp_response import error_message, partial_success
from tracekit.exporters._otlp_settings import GRPC, HTTP_JSON, OtlpSettings, resolve
from tracekit.exporters._retry import RetryPolicy
from tracekit.exporters._spool_settings import GivenSpool, chosen_spool
from tracekit.exporters._transport import Delivery
from tracekit.interfaces import ReadableSpan, SpanExporter
from tracekit.store.spool import Spool

if TYPE_CHECKING:
    import requests

    from tracekit.exporters._grpc_sender import GrpcSender

__all__ = ["OTLPSpanExporter", "RetryPolicy", "Spool"]

MAX_REQUEST_BYTES = 4 * 1024 * 1024
"""What a gRPC server takes unless told otherwise; HTTP servers take at least as much (20 MiB).
https://grpc.github.io/grpc/core/group__grpc__arg__keys.html"""

USER_AGENT = f"tracekit/{__version__} OTel-OTLP-Exporter-Python/{__version__}"
"""https://opentelemetry.io/docs/specs/otel/protocol/exporter/#user-agent"""


class OTLPSpanExporter(NetworkExporter):
    """Send batches of spans to an OTLP server: a Collector, Jaeger, Tempo, or a vendor.

    What is not given is taken from ``OTEL_EXPORTER_OTLP_TRACES_*``, ``OTEL_EXPORTER_OTLP_*`` and
    the defaults of the specification. Nothing is imported or connected before the first batch.

    Args:
        endpoint: For HTTP the URL, which gets ``/v1/traces`` when it has no path at all; for
            gRPC ``host:port`` or a URL.
        certificate_file: PEM file of trusted certificates, instead of the machine's.
        client_key_file: PEM file, for servers that want to know their clients.
        client_certificate_file: PEM file, with the key in it when there is no file for that.
        headers: Mapping, pairs, or ``key=value,key=value``; replaces those of the environment.
        timeout: Seconds for a batch with all its retries; 10 by default, 0 for no limit. The
            variables are in milliseconds, as specified.
        compression: ``"gzip"`` or ``"none"``.
        session: A requests.Session to send with, HTTP only.
        protocol: ``"http/protobuf"``, ``"http/json"`` or ``"grpc"``.
        insecure: Without TLS, for gRPC endpoints that do not say so by their scheme.
        max_request_bytes: Larger batches are split, before compression.
        retry_policy: How patiently a failing server is treated.
        max_concurrent_requests: How many may be under way, when answers are slow; 4 by default,
            1 with a session of yours; TRACEKIT_MAX_CONCURRENT_REQUESTS.
        spool: Where to keep what cannot be sent: a Spool or a path; False for nowhere.
        credentials: grpc.ChannelCredentials, instead of the certificate files.
        channel_options: Further options of the gRPC channel.
        destination: A name such as ``"honeycomb"``, which knows its endpoint and headers; then
            the variables for endpoint, protocol, headers and certificates, which are another
            destination's, are not used. What is given beside it comes first; headers are added.

    Raises:
        UnknownNameError: There is no destination of that name.
        ConfigurationError: A setting cannot work; the message names it and its source.
        NotInstalledError: The protocol is gRPC, and grpcio is missing.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        certificate_file: str | None = None,
        client_key_file: str | None = None,
        client_certificate_file: str | None = None,
        headers: Mapping[str, str] | Sequence[tuple[str, str]] | str | None = None,
        timeout: float | None = None,
        compression: Any = None,
        session: requests.Session | None = None,
        *,
        protocol: str | None = None,
        insecure: bool | None = None,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        retry_policy: RetryPolicy | None = None,
        credentials: Any = None,
        channel_options: Sequence[tuple[str, Any]] = (),
        destination: str | None = None,
        max_concurrent_requests: int | None = None,
        spool: GivenSpool = None,
    ) -> None:
        given = {
            "endpoint": endpoint,
            "certificate_file": certificate_file,
            "client_key_file": client_key_file,
            "client_certificate_file": client_certificate_file,
            "headers": headers,
            "timeout": timeout,
            "compression": compression,
            "protocol": protocol,
            "insecure": insecure,
        }
        if max_request_bytes <= 0:
            raise InvalidValueError("max_request_bytes", max_request_bytes, "a size above 0")
        at_once = chosen_concurrency(max_concurrent_requests, session)
        name, sample_rate_attribute = "otlp", None
        if destination:
            # Here and not above: a program without a named destination need not know them.
            from tracekit.exporters._preset_arguments import arguments_of, known_preset

            name, preset = known_preset(destination)
            given = arguments_of(name, preset, given)
            sample_rate_attribute = preset.sample_rate_attribute
        self.settings = resolve(given, uses_destination_variables=not destination)
        if self.settings.protocol == GRPC:
            sender: Sender = _grpc_sender(self.settings, credentials, channel_options)
        else:
            sender = _http_sender(self.settings, session)
        is_json = self.settings.protocol == HTTP_JSON
        encode = partial(_encode_json if is_json else _encode_protobuf, sample_rate_attribute)
        delivery = Delivery(
            sender,
            encode,
            self.settings.timeout_s,
            max_request_bytes,
            retry_policy,
            chosen_spool(spool),
        )
        nothing = Payload(b'{"resourceSpans":[]}' if is_json else b"")
        super().__init__(name, delivery, nothing, at_once)


def _http_sender(settings: OtlpSettings, session: requests.Session | None) -> HttpSender:
    is_json = settings.protocol == HTTP_JSON
    headers = {
        "user-agent": USER_AGENT,
        "content-type": "application/json" if is_json else "application/x-protobuf",
        **dict(settings.headers),
    }
    if settings.compressed:
        headers["content-encoding"] = "gzip"
    certificate, key = settings.client_certificate, settings.client_key
    target = HttpTarget(
        settings.endpoint,
        tuple(headers.items()),
        compressed=settings.compressed,
        verify=settings.certificate or True,
        cert=(certificate, key) if certificate and key else certificate,
        read_success=_read_success,
        read_error=lambda reply: error_message(reply.body, reply.content_type),
    )
    return HttpSender(target, session)


def _read_success(reply: Reply) -> Answer:
    rejected, message = partial_success(reply.body, reply.content_type == "application/json")
    if rejected > 0 and not message:
        message = "no reason given"
    return Answer(Verdict.TAKEN, message, rejected=rejected)


def _grpc_sender(
    settings: OtlpSettings, credentials: Any, channel_options: Sequence[tuple[str, Any]]
) -> GrpcSender:
    from importlib.util import find_spec

    from tracekit.exporters._grpc_sender import GrpcSender, GrpcTarget

    if find_spec("grpc") is None:
        raise NotInstalledError("exporter 'otlp' with the protocol grpc", "tracekit[grpc]")
    target = GrpcTarget(
        settings.endpoint,
        settings.is_secure or credentials is not None,
        settings.headers,
        settings.compressed,
        settings.certificate,
        settings.client_key,
        settings.client_certificate,
        USER_AGENT,
        credentials,
        channel_options,
    )
    return GrpcSender(target)


def _weighted(
    spans: Sequence[ReadableSpan], sample_rate_attribute: str | None
) -> Sequence[ReadableSpan]:
    if sample_rate_attribute is None:
        return spans
    from tracekit.exporters._sample_rate import with_sample_rate

    return with_sample_rate(spans, sample_rate_attribute)


def _encode_protobuf(
    sample_rate_attribute: str | None,
    spans: Sequence[ReadableSpan],
    max_bytes: int,
    on_skip: OnSkip,
) -> Iterator[Payload]:
    spans = _weighted(spans, sample_rate_attribute)
    for body, encoded in encode_batches(spans, max_bytes, on_skip):
        yield Payload(body, encoded)


def _encode_json(
    sample_rate_attribute: str | None,
    spans: Sequence[ReadableSpan],
    max_bytes: int,
    on_skip: OnSkip,
) -> Iterator[Payload]:
    """Halve what turns out too large: only the finished text has a size."""
    yield from _json_halves(_weighted(spans, sample_rate_attribute), max_bytes, on_skip)


def _json_halves(
    spans: Sequence[ReadableSpan], max_bytes: int, on_skip: OnSkip
) -> Iterator[Payload]:
    skipped: list[tuple[ReadableSpan, Exception]] = []
    body = encode_line(spans, lambda span, error: skipped.append((span, error)))
    left_out = {id(span) for span, _ in skipped}
    kept = [span for span in spans if id(span) not in left_out]
    for span, error in skipped:
        on_skip(span, error)
    if len(body) <= max_bytes or len(kept) <= 1:
        if kept:
            yield Payload(body, kept)
        return
    middle = len(kept) // 2
    for half in (kept[:middle], kept[middle:]):
        yield from _json_halves(half, max_bytes, on_skip)


plugin: type[SpanExporter] = OTLPSpanExporter
