"""What clients and servers of gRPC have in common: methods, status codes, metadata, exclusions.

https://opentelemetry.io/docs/specs/semconv/rpc/grpc/
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from opentelemetry.trace import Tracer

from tracekit import semconv
from tracekit.instrumentation._caller import Caller, caller_from
from tracekit.instrumentation._http import message_of, truncated
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import quiet
from tracekit.instrumentation._propagation import PropagationHosts, hosts_of
from tracekit.instrumentation._traceresponse import mode_of
from tracekit.instrumentation._trust import Trust, trust_of

__all__ = [
    "CANCELLED",
    "OK",
    "UNKNOWN",
    "GrpcSettings",
    "Method",
    "end_with",
    "method_of",
    "name_of_code",
    "texts_of",
]

# Names by number, as the protocol has them: a library that is not imported need not be to know.
# https://grpc.io/docs/guides/status-codes/
_NAMES = (
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
)
OK, CANCELLED, UNKNOWN = _NAMES[:3]

_LONGEST_METHOD = 256


@dataclass(frozen=True)
class GrpcSettings:
    """What calls of one program have in common.

    Attributes:
        excluded: Full names of services whose calls are not watched.
        hosts: Where metadata of ours may be sent.
        trust: Whose context is continued; everybody's, where there is none.
        caller: Finds the line of the program that calls; None where it is not wanted.
        traceresponse: When the other side is told, and asked, what was decided.
    """

    tracer: Tracer
    excluded: frozenset[str]
    hosts: PropagationHosts
    trust: Trust | None
    caller: Caller | None
    traceresponse: str

    @classmethod
    def read(
        cls,
        tracer: Tracer,
        environ: Mapping[str, str],
        *,
        excluded_services: str | Sequence[str] | None = None,
        propagation_hosts: str | Sequence[str] | None = None,
        trust: Any = None,
        code_location: bool | None = None,
        traceresponse: str | None = None,
    ) -> GrpcSettings:
        """Read the environment; options take the places of the variables.

        ``OTEL_PYTHON_GRPC_EXCLUDED_SERVICES``, ``TRACEKIT_PROPAGATION_HOSTS``, ``TRACEKIT_TRUST``,
        ``TRACEKIT_CODE_LOCATION`` and ``TRACEKIT_TRACERESPONSE``.
        """
        names = excluded_services
        if names is None:
            names = environ.get("OTEL_PYTHON_GRPC_EXCLUDED_SERVICES", "")
        listed = names.split(",") if isinstance(names, str) else names
        excluded = frozenset(name.strip() for name in listed if name.strip())
        hosts = hosts_of(propagation_hosts, environ)
        caller = caller_from(environ, code_location)
        mode = mode_of(traceresponse, environ)
        return cls(tracer, excluded, hosts, trust_of(trust, environ), caller, mode)


class Method(NamedTuple):
    """A method that is called; name is ``package.Service/Method``."""

    name: str
    service: str


@functools.lru_cache(maxsize=1024)
def method_of(path: str | bytes) -> Method:
    """Return the method that a path such as ``/package.Service/Method`` stands for."""
    text = path if isinstance(path, str) else path.decode("utf-8", "replace")
    name = truncated(text.removeprefix("/"), _LONGEST_METHOD)
    return Method(name, name.rpartition("/")[0])


def name_of_code(code: Any) -> str:
    """Return the name of a ``grpc.StatusCode``, of its number, or of None, which is OK."""
    if code is None:
        return OK
    if isinstance(code, int):
        return _NAMES[code] if 0 <= code < len(_NAMES) else str(code)
    return str(getattr(code, "name", code))


def texts_of(metadata: Iterable[tuple[str, Any]] | None) -> dict[str, str]:
    """Return the entries of metadata that are text, for a propagator to read."""
    return {key: value for key, value in metadata or () if isinstance(value, str)}


def end_with(
    operation: Operation,
    code: str,
    details: Any = None,
    exception: BaseException | None = None,
    is_error: bool = True,
) -> None:
    """End the span of a call with its status code, and as failed if that is an error."""
    told = {semconv.RPC_STATUS_CODE: code}
    if not is_error:
        operation.succeed(told)
        return
    if exception is not None:
        _record(operation, exception)
    operation.fail_with(code, _text(details, exception), told)


@quiet
def _record(operation: Operation, exception: BaseException) -> None:
    operation.span.record_exception(exception)


def _text(details: Any, exception: BaseException | None) -> str:
    if isinstance(details, bytes):
        details = details.decode("utf-8", "replace")
    if isinstance(details, str) and details:
        return truncated(details, 4096)
    return "" if exception is None else message_of(exception)
