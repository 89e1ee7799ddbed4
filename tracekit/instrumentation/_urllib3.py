"""The attempts inside urllib3, seen on behalf of the exchange that is under way.

``HTTPConnectionPool._make_request`` is one request on one connection; ``urlopen`` calls it anew
for each retry, from inside itself, so there attempts would be nested. An instrumentation of a
library that sits on urllib3, or of urllib3 itself, opens the exchange and adds these patches.
"""

from __future__ import annotations

import inspect
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.propagate import get_global_textmap

from tracekit.instrumentation._around import around
from tracekit.instrumentation._http_client import Attempt, current_exchange
from tracekit.instrumentation._http_client_attributes import record_exception
from tracekit.instrumentation._patch import quiet, report
from tracekit.instrumentation._replacing import Replacing

__all__ = [
    "CONTRIB",
    "VERSIONS",
    "attempt_patches",
    "await_body",
    "body_patches",
    "fail",
    "give_up",
    "peer_of",
    "hand_over",
    "loaded",
    "now_ns",
    "record_noted",
    "version_of",
    "without_other_spellings",
]

CONTRIB = "opentelemetry.instrumentation.urllib3"
"""Asks the current context whether it may; ours knows the exchange."""
loaded = sys.modules
now_ns = time.perf_counter_ns
VERSIONS = {9: "0.9", 10: "1.0", 11: "1.1", 20: "2", 30: "3"}
SEEN = object()
"""Noted of an attempt that has ended, when what was seen is recorded."""
# Those of urllib3 itself, which read the headers that they are given, and do nothing else to them.
_own_connections: set[type] = set()
# Those of `_make_request` in urllib3 2.
_PARAMETERS = (
    *("self", "conn", "method", "url", "body", "headers", "retries", "timeout", "chunked"),
    *("response_conn", "preload_content", "decode_content", "enforce_content_length"),
)
# The attempt whose span ends with the body, in the instance dictionary of a response.
_BODY = "_tracekit_attempt"


def attempt_patches() -> Sequence[Replacing]:
    """Return what makes every retry an attempt; without, an exchange is a single one."""
    pool = "urllib3.connectionpool"
    return (Replacing(pool, "HTTPConnectionPool._make_request", _make_request, optional=True),)


def body_patches() -> Sequence[Replacing]:
    """Return what ends spans at the end of response bodies, for :func:`await_body`."""
    response = "urllib3.response"
    return (
        Replacing(response, "HTTPResponse.release_conn", _release_conn, optional=True),
        Replacing(response, "HTTPResponse.close", _close, optional=True),
    )


def hand_over(attempt: Attempt) -> None:
    """Tell that `attempt` is about to be served by urllib3."""
    attempt.handed_over_ns = now_ns()
    if CONTRIB in loaded and attempt.under_way:
        attempt.silence()


def without_other_spellings(headers: dict[str, str]) -> None:
    """Take out what the program wrote by another spelling of a trace header's name."""
    # To ask propagators for their fields takes longer than all of the rest.
    twice = [name for name in headers if name.lower() != name and name.lower() in headers]
    if twice:
        fields = get_global_textmap().fields
        for name in twice:
            if name.lower() in fields:
                del headers[name]


def version_of(raw: Any) -> str:
    """Return the protocol version of a urllib3 response, empty when it has none."""
    return VERSIONS.get(getattr(raw, "version", 0), "")


@quiet
def await_body(attempt: Attempt, raw: Any) -> None:
    """Leave the end of the span to the body of `raw`; at once where that cannot be seen."""
    response = getattr(sys.modules.get("urllib3.response"), "HTTPResponse", None)
    # An empty body is closed already.
    if response is not None and isinstance(raw, response) and not raw.closed:
        vars(raw)[_BODY] = attempt
    else:
        attempt.end()


def _make_request(original: Callable[..., Any], owners: Sequence[object]) -> Callable[..., Any]:
    told = {"self": 0, "conn": 1, "headers": 5}
    connection = sys.modules["urllib3.connection"]
    _own_connections.update((connection.HTTPConnection, connection.HTTPSConnection))
    watched = around(original, told, _before, _answered, _not_answered, {"headers": 5}, owners)
    if tuple(inspect.signature(original).parameters) != _PARAMETERS:
        return watched

    # The same in one frame for nearly all requests: first attempts, for which no wait is measured,
    # and which go to who is named in the URL. Of 38 µs that requests has added it saves 4.
    def make_request(
        self: Any,
        conn: Any,
        method: Any,
        url: Any,
        body: Any = None,
        headers: Any = None,
        retries: Any = None,
        timeout: Any = None,
        chunked: Any = False,
        response_conn: Any = None,
        preload_content: Any = True,
        decode_content: Any = True,
        enforce_content_length: Any = True,
    ) -> Any:
        exchange = current_exchange()
        attempt: Any = None if exchange is None else exchange.attempt
        if (
            attempt is None
            or not attempt.under_way
            or attempt.noted is not None
            or self.block
            or self.proxy is not None
            or type(conn) not in _own_connections
            or not owners
        ):
            return watched(
                self,
                conn,
                method,
                url,
                body,
                headers,
                retries,
                timeout,
                chunked,
                response_conn,
                preload_content,
                decode_content,
                enforce_content_length,
            )
        if type(headers) is attempt.steps.packed:
            headers = dict(headers._store.values())
        try:
            response = original(
                self,
                conn,
                method,
                url,
                body,
                headers,
                retries,
                timeout,
                chunked,
                response_conn,
                preload_content,
                decode_content,
                enforce_content_length,
            )
        except BaseException as error:
            _not_answered(attempt, error)
            raise
        try:
            peer, status = attempt.destination.peer, response.status
            if peer is not None and status < 400 and attempt.under_way and attempt.steps.is_terse:
                version = VERSIONS.get(response.version, "")
                attempt.noted = SEEN
                attempt.succeed_plainly(response, status, version, peer)
                return response
        except Exception:  # a response of somebody's own, which the next step reports
            pass
        _answered(attempt, response, self, conn, headers)
        return response

    make_request.__defaults__ = original.__defaults__
    return make_request


def _before(pool: Any, conn: Any, headers: Any) -> Attempt | None:
    exchange = current_exchange()
    attempt = None if exchange is None else exchange.attempt
    if attempt is None:
        return None
    if attempt.noted is not None:
        attempt = _retry(attempt, headers) or attempt
    elif not attempt.under_way:
        return None
    elif pool.block and pool.proxy is None:
        # Between the two lies the wait for a connection of a pool that is used up, and
        # nothing else that takes long; others open as many connections as they need.
        attempt.pool_wait_ns = now_ns() - attempt.handed_over_ns
    if type(headers) is attempt.steps.packed and type(conn) in _own_connections:
        headers = dict(headers._store.values())  # type: ignore[attr-defined]
    attempt.headers = headers
    return attempt


def _not_answered(attempt: Attempt, error: BaseException) -> None:
    attempt.noted, attempt.noted_at = error, time.time_ns()


def _answered(attempt: Attempt, response: Any, pool: Any, conn: Any, _headers: Any) -> None:
    try:
        peer: Sequence[Any] | None = attempt.destination.peer
        if peer is None or pool.proxy is not None:
            peer = peer_of(conn)
        status = response.status
        if status < 400 and attempt.under_way and attempt.steps.is_terse:
            attempt.noted = SEEN
            attempt.succeed_plainly(response, status, VERSIONS.get(response.version, ""), peer)
            return
        attempt.peer = peer
    except Exception:  # a pool of somebody's own
        report("the reading of a response")
    attempt.noted, attempt.noted_at = response, time.time_ns()


def peer_of(connection: Any) -> Sequence[Any]:
    """Return address and port at the other end of a connection, empty when there is none."""
    try:
        # Gone when the server closes after each response: then the socket is the response's.
        sock = connection.sock
        peer = () if sock is None else sock.getpeername()
    except Exception:  # a connection of somebody's own, or one that is closed
        return ()
    return peer if isinstance(peer, tuple) else ()


@quiet
def record_noted(attempt: Attempt) -> None:
    """Record the response or exception that urllib3 saw and kept to itself."""
    noted, attempt.noted = attempt.noted, None
    if isinstance(noted, BaseException):
        record_exception(attempt.span, attempt.url, noted)
    elif noted is not None and noted is not SEEN:
        attempt.record(noted, noted.status, version_of(noted))


def fail(attempt: Attempt, error: BaseException) -> None:
    """Record the exception that goes on to the program, and end the attempt."""
    if isinstance(attempt.noted, BaseException):
        attempt.noted = None  # what goes on to the program came of it
    else:
        record_noted(attempt)
    attempt.fail(error)


@quiet
def give_up(attempt: Attempt) -> None:
    """End an attempt that urllib3 has given up, when that had its outcome."""
    attempt.leave()
    record_noted(attempt)
    attempt.end(attempt.noted_at)


@quiet
def _retry(attempt: Attempt, headers: Any) -> Attempt | None:
    """End the attempt that urllib3 gave up and start the next, with trace headers of its own.

    They take the place of those of the attempt before, in the mapping that urlopen hands to every
    retry: a copy, or where an instrumentation wrote headers that this one may write to again.
    """
    give_up(attempt)
    following = attempt.again(headers)
    if following is not None and attempt.is_silenced():
        following.silence()
    return following


def _release_conn(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    def release_conn(response: Any) -> Any:
        attempt = vars(response).pop(_BODY, None)
        if attempt is not None:
            _end_body(attempt)
        return original(response)

    return release_conn


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


def _close(original: Callable[..., Any], _owners: Sequence[object]) -> Callable[..., Any]:
    def close(response: Any) -> Any:
        attempt = vars(response).pop(_BODY, None)
        if attempt is not None:
            attempt.abandon_body()
        return original(response)

    return close
