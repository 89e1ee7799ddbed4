"""The attempts inside urllib3, seen on behalf of the exchange that is under way.

``HTTPConnectionPool._make_request`` is one request on one connection; ``urlopen`` calls it anew
for each retry, from inside itself, so there attempts would be nested. An instrumentation of a
library that sits on urllib3, or of urllib3 itself, opens the exchange and adds these patches.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from tracekit.instrumentation._http_client import (
    Attempt,
    Exchange,
    current_exchange,
)
from tracekit.instrumentation._http_client_attributes import ReceivedResponse
from tracekit.instrumentation._patch import Patch, quiet

__all__ = ["attempt_patches", "await_body", "body_patches", "hand_over", "peer_of", "version_of"]

_VERSIONS = {9: "0.9", 10: "1.0", 11: "1.1", 20: "2", 30: "3"}
# The attempt whose span ends with the body, in the instance dictionary of a response.
_BODY = "_tracekit_attempt"


def attempt_patches() -> Sequence[Patch]:
    """Return what makes every retry an attempt; without, an exchange is a single one."""
    pool = "urllib3.connectionpool"
    return (Patch(pool, "HTTPConnectionPool._make_request", _make_request, optional=True),)


def body_patches() -> Sequence[Patch]:
    """Return what ends spans at the end of response bodies, for :func:`await_body`."""
    response = "urllib3.response"
    return (
        Patch(response, "HTTPResponse.release_conn", _release_conn, optional=True),
        Patch(response, "HTTPResponse.close", _close, optional=True),
    )


def hand_over(attempt: Attempt) -> None:
    """Tell that `attempt` is about to be served by urllib3."""
    attempt.handed_over_ns = time.perf_counter_ns()
    # OpenTelemetry's instrumentation of urllib3 asks whether it may; ours knows the exchange.
    if "opentelemetry.instrumentation.urllib3" in sys.modules:
        attempt.silence()


def version_of(raw: Any) -> str:
    """Return the protocol version of a urllib3 response, empty when it has none."""
    return _VERSIONS.get(getattr(raw, "version", 0), "")


@quiet
def await_body(attempt: Attempt, raw: Any) -> None:
    """Leave the end of the span to the body of `raw`; at once where that cannot be seen."""
    response = getattr(sys.modules.get("urllib3.response"), "HTTPResponse", None)
    # An empty body is closed already.
    if response is not None and isinstance(raw, response) and not raw.closed:
        vars(raw)[_BODY] = attempt
    else:
        attempt.end()


def _make_request(
    wrapped: Callable[..., Any], pool: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    exchange = current_exchange.get()
    attempt = None if exchange is None else exchange.attempt
    if exchange is None or attempt is None or not attempt.under_way:
        return wrapped(*args, **kwargs)
    if attempt.noted is not None:
        attempt = _retry(exchange, attempt, kwargs) or attempt
    elif pool.block and pool.proxy is None:
        # Between the two lies the wait for a connection of a pool that is used up, and nothing
        # else that takes long; other pools open as many connections as they are asked for.
        attempt.pool_wait_ns = time.perf_counter_ns() - attempt.handed_over_ns
    try:
        response = wrapped(*args, **kwargs)
    except BaseException as error:
        attempt.noted, attempt.noted_at = error, time.time_ns()
        raise
    attempt.connection = args[0] if args else kwargs.get("conn")
    attempt.noted = functools.partial(_received, response, attempt.connection)
    attempt.noted_at = time.time_ns()
    return response


@quiet
def _retry(exchange: Exchange, attempt: Attempt, kwargs: dict[str, Any]) -> Attempt | None:
    """End the attempt that urllib3 gave up and start the next, with trace headers of its own."""
    silenced = attempt.silenced
    attempt.supersede()
    headers = kwargs.get("headers")
    carrier = None
    if headers is not None:
        # urlopen hands the same mapping to every retry, and the caller may hold it.
        carrier = kwargs["headers"] = headers.copy()
    following = attempt.steps.begin(exchange, attempt.request._replace(carrier=carrier))
    if following is not None and silenced:
        following.silence()
    return following


def _received(response: Any, connection: Any) -> ReceivedResponse:
    return ReceivedResponse(
        response.status, version_of(response), peer_of(connection), response.headers.items, response
    )


def peer_of(connection: Any) -> Sequence[Any]:
    """Return address and port at the other end of a connection, empty when there is none."""
    # The socket is gone when the server closes after each response: then it is with the response.
    sock = getattr(connection, "sock", None)
    try:
        peer = sock.getpeername() if sock is not None else ()
    except OSError:
        return ()
    return peer if isinstance(peer, tuple) else ()


def _release_conn(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    attempt = vars(instance).pop(_BODY, None)
    if attempt is not None:
        _end_body(attempt)
    return wrapped(*args, **kwargs)


@quiet
def _end_body(attempt: Attempt) -> None:
    """End a span whose body is read, or whose reading ends with an exception.

    urllib3 gives the connection back from a `finally`, with the exception on its way: its own
    when reading failed, GeneratorExit when a loop over the body was left.
    """
    error = sys.exc_info()[1]
    if isinstance(error, GeneratorExit):
        attempt.abandon_body()
    elif error is not None and type(error).__module__.startswith("urllib3."):
        attempt.fail_body(error)
    attempt.end()


def _close(
    wrapped: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    attempt = vars(instance).pop(_BODY, None)
    if attempt is not None:
        attempt.abandon_body()
    return wrapped(*args, **kwargs)
