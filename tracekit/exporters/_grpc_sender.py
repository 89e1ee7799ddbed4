"""One OTLP request over gRPC: the same bytes, through grpcio's stub for any method."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from tracekit.exporters._answer import Answer, Payload, Verdict, identity_of, printable
from tracekit.exporters._otlp_response import partial_success, retry_delay_s

__all__ = ["GrpcSender", "GrpcTarget"]

METHOD = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"

MAX_RESPONSE_BYTES = 4 * 1024 * 1024

# https://opentelemetry.io/docs/specs/otlp/#failures, by number: grpcio is not imported here.
_TRY_AGAIN = frozenset({1, 4, 10, 11, 14, 15})
_DEADLINE_EXCEEDED, _RESOURCE_EXHAUSTED, _UNAVAILABLE = 4, 8, 14

# What servers in Go and C say, with RESOURCE_EXHAUSTED, to a message over their limit.
_IS_TOO_LARGE = re.compile(r"larger than max", re.IGNORECASE).search

# Channels of a parent process are neither used nor closed in its forked children, where grpcio's
# threads are gone: they are kept here so that nothing collects them.
_left_alone: list[Any] = []


@dataclass(frozen=True)
class GrpcTarget:
    """Where requests go and how; certificates are paths of PEM files."""

    address: str
    is_secure: bool
    headers: tuple[tuple[str, str], ...] = ()
    compressed: bool = False
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    user_agent: str = ""
    credentials: Any = None
    channel_options: Sequence[tuple[str, Any]] = ()


class GrpcSender:
    """Send over one channel, made at the first request of each process."""

    def __init__(self, target: GrpcTarget) -> None:
        self._target = target
        self._channel: Any = None
        self._call: Any = None
        self._begin()

    def _begin(self) -> None:
        if self._channel is not None:
            _left_alone.append((self._channel, self._call))
        self._channel = self._call = None
        self._is_closed = False
        self._lock = threading.Lock()

    def after_fork_in_child(self) -> None:
        self._begin()

    @property
    def destination(self) -> str:
        return f"{'grpcs' if self._target.is_secure else 'grpc'}://{self._target.address}"

    @property
    def identity(self) -> str:
        return identity_of("grpc", self.destination, headers=self._target.headers)

    def close(self) -> None:
        with self._lock:
            self._is_closed = True
            if self._channel is not None:
                self._channel.close()

    def send(self, payload: Payload, timeout_s: float) -> Answer:
        try:
            call = self._export_call()
        except Exception as error:
            return Answer(Verdict.REFUSED, printable(f"{type(error).__name__}: {error}"))
        try:
            body = call(payload.body, timeout=timeout_s, metadata=self._target.headers)
        except Exception as error:
            # grpcio has the same error for metadata that it cannot send and for a closed channel.
            if isinstance(error, (ValueError, TypeError)) and not self._is_closed:
                return Answer(Verdict.REFUSED, printable(f"{type(error).__name__}: {error}"))
            return _answer_to(error)
        rejected, message = partial_success(body, is_json=False)
        return Answer(Verdict.TAKEN, message, rejected=rejected)

    def _export_call(self) -> Any:
        with self._lock:
            if self._call is None:
                if self._is_closed:
                    raise RuntimeError("the channel is closed")
                self._channel = _new_channel(self._target)
                # Without a serializer the bytes go and come as they are.
                self._call = self._channel.unary_unary(METHOD)
            return self._call


def _new_channel(target: GrpcTarget) -> Any:
    grpc: Any = import_module("grpc")
    options = [
        ("grpc.primary_user_agent", target.user_agent),
        ("grpc.max_receive_message_length", MAX_RESPONSE_BYTES),
        ("grpc.enable_retries", 0),  # retrying is ours: it honours the batch's deadline
        ("grpc.initial_reconnect_backoff_ms", 500),
        ("grpc.max_reconnect_backoff_ms", 5000),
        *target.channel_options,
    ]
    compression = grpc.Compression.Gzip if target.compressed else grpc.Compression.NoCompression
    if not target.is_secure:
        return grpc.insecure_channel(target.address, options, compression)
    credentials = target.credentials or grpc.ssl_channel_credentials(
        *map(_content, (target.certificate, target.client_key, target.client_certificate))
    )
    return grpc.secure_channel(target.address, credentials, options, compression)


def _content(path: str | None) -> bytes | None:
    if path is None:
        return None
    with open(path, "rb") as file:
        return file.read()


def _answer_to(error: Any) -> Answer:
    """Say what a failed call means; anything but an answer of gRPC is worth another try."""
    if not callable(getattr(error, "code", None)):
        said = printable(f"{type(error).__name__}: {error}")
        return Answer(Verdict.TRY_AGAIN, said, was_reached=False)
    code, name = error.code().value[0], error.code().name
    details = printable(error.details() or "")
    said = f"{name}: {details}" if details else name
    wait = _pushback_s(error)
    if code == _RESOURCE_EXHAUSTED:
        # "retryable only if the server signals that the recovery [...] is possible"
        if _IS_TOO_LARGE(details):
            return Answer(Verdict.TOO_LARGE, said)
        return Answer(Verdict.TRY_AGAIN if wait is not None else Verdict.REFUSED, said, wait)
    if code not in _TRY_AGAIN:
        return Answer(Verdict.REFUSED, said)
    was_reached = bool(error.trailing_metadata()) or code not in (_DEADLINE_EXCEEDED, _UNAVAILABLE)
    return Answer(Verdict.TRY_AGAIN, said, wait, was_reached=was_reached)


def _pushback_s(error: Any) -> float | None:
    """Return how long the server wants to wait: by RetryInfo, or by gRPC's own trailer.

    Source: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#pushback
    """
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            delay = retry_delay_s(bytes(value))
            if delay is not None:
                return delay
        elif key == "grpc-retry-pushback-ms" and value.isdecimal() and len(value) <= 9:
            return int(value) / 1000
    return None
