"""One HTTP request to a destination, and what its answer means."""

from __future__ import annotations

import http
import os
import socket
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit, urlunsplit

from tracekit.exporters._answer import PATH, Answer, Payload, Verdict, identity_of, printable
from tracekit.exporters._given import shown_url
from tracekit.exporters._retry import retry_after_s

if TYPE_CHECKING:
    import requests

__all__ = ["HttpSender", "HttpTarget", "Reply"]

MAX_RESPONSE_BYTES = 4 * 1024 * 1024
"""https://github.com/open-telemetry/opentelemetry-proto/pull/781"""

# "All other 4xx or 5xx response status codes MUST NOT be retried."
# https://opentelemetry.io/docs/specs/otlp/#retryable-response-codes
_TRY_AGAIN = frozenset({429, 502, 503, 504})


@dataclass(frozen=True)
class Reply:
    """An HTTP response as far as it was read."""

    status: int
    content_type: str
    body: bytes


Reader = Callable[[Reply], str]


def _text_of(reply: Reply) -> str:
    return reply.body[:4096].decode("utf-8", "replace")


def _plain_success(_: Reply) -> Answer:
    return Answer(Verdict.TAKEN)


@dataclass(frozen=True)
class HttpTarget:
    """Where requests go and how.

    Attributes:
        compressed: Whether bodies are sent gzipped.
        verify: A file of trusted certificates, or True for those of the machine.
        cert: A client certificate's file and that of its key.
        unix_socket: Path of a socket to connect to instead of the URL's host.
        read_success: Say what a 2xx answer means.
        read_error: Find the reason in any other.
    """

    url: str
    headers: tuple[tuple[str, str], ...] = ()
    method: str = "POST"
    compressed: bool = False
    verify: str | bool = True
    cert: tuple[str, str] | str | None = None
    unix_socket: str | None = None
    read_success: Callable[[Reply], Answer] = _plain_success
    read_error: Reader = _text_of


class HttpSender:
    """Send over connections that are kept, one session for each request under way.

    Args:
        session: A requests.Session to use instead; its adapters, proxies and authentication
            are left as they are.
    """

    def __init__(self, target: HttpTarget, session: requests.Session | None = None) -> None:
        self._target = target
        self._url, self._headers = _without_user(target.url, dict(target.headers))
        self._own_session = session
        self._begin()

    def _begin(self) -> None:
        # All, and those that nobody uses now; the last one used is the likeliest to be connected.
        self._sessions: list[requests.Session] = []
        self._free: list[requests.Session] = []

    def after_fork_in_child(self) -> None:
        self._begin()

    @property
    def destination(self) -> str:
        socket_path = self._target.unix_socket
        return f"unix://{socket_path}" if socket_path else shown_url(self._url)

    @property
    def identity(self) -> str:
        headers = self._headers.items()
        content_type = self._headers.get("content-type", "")
        return identity_of(content_type, self.destination, self._url, headers=headers)

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def send(self, payload: Payload, timeout_s: float) -> Answer:
        try:
            return self._exchange(payload, timeout_s)
        except Exception as error:
            return _answer_to(error)

    def fetch(self, path: str, timeout_s: float) -> Reply | None:
        """Get a document from the destination; None when there was no answer."""
        try:
            with self._response("GET", self._at(path), self._headers, None, timeout_s) as response:
                return Reply(response.status_code, _content_type(response), _read(response))
        except Exception:
            return None

    def _exchange(self, payload: Payload, timeout_s: float) -> Answer:
        headers = self._headers | dict(payload.headers)
        url, body = self._at(headers.pop(PATH, "")), self._body(payload.body)
        with self._response(self._target.method, url, headers, body, timeout_s) as response:
            return self._answer(response)

    def _path(self) -> str:
        return urlsplit(self._url).path

    def _at(self, path: str) -> str:
        return urlsplit(self._url)._replace(path=path).geturl() if path else self._url

    @contextmanager
    def _response(
        self, method: str, url: str, headers: dict[str, str], body: bytes | None, timeout_s: float
    ) -> Iterator[requests.Response]:
        # Here and not above: what it imports (ssl) must not come before gevent patches it.
        from tracekit.exporters import _http_session

        _http_session.set_deadline(timeout_s)
        with self._session(_http_session.new_session) as session:
            response = session.request(
                method,
                url,
                data=body,
                headers=headers,
                timeout=timeout_s,
                verify=self._target.verify,
                cert=self._target.cert,
                # A redirected POST would become a GET somewhere else, with our credentials.
                allow_redirects=False,
                stream=True,
            )
            with response:
                yield response

    @contextmanager
    def _session(self, new_session: Callable[..., requests.Session]) -> Iterator[requests.Session]:
        if self._own_session is not None:
            yield self._own_session
            return
        free = self._free
        try:
            session = free.pop()
        except IndexError:
            session = new_session(self._target.unix_socket)
            self._sessions.append(session)
        try:
            yield session
        finally:
            free.append(session)  # in a child that was forked meanwhile, to the parent's list

    def _body(self, body: bytes) -> bytes:
        if not self._target.compressed:
            return body
        import gzip

        return gzip.compress(body, 6, mtime=0)

    def _answer(self, response: requests.Response) -> Answer:
        status = response.status_code
        try:
            body = _read(response)
        except Exception:
            if not 200 <= status < 300:
                raise
            # The status is the answer; only a remark was lost. Trying again would double spans.
            return Answer(Verdict.TAKEN)
        said = f"{status} {_phrase(status, response)}".strip()
        if len(body) > MAX_RESPONSE_BYTES:
            return Answer(Verdict.REFUSED, f"{said}, with more than {MAX_RESPONSE_BYTES} bytes")
        reply = Reply(status, _content_type(response), body)
        if 200 <= status < 300:
            return _success(reply, self._target)
        if 300 <= status < 400:
            where = printable(shown_url(response.headers.get("Location", "")))
            return Answer(Verdict.REFUSED, f"{said}: redirects to {where}, which is not followed")
        reason = printable(self._target.read_error(reply))
        said = f"{said}: {reason}" if reason else said
        return _failure(status, said, response.headers)


def _success(reply: Reply, target: HttpTarget) -> Answer:
    if reply.content_type == "text/html":
        # A web server that answers everything with its start page keeps no spans.
        return Answer(Verdict.TAKEN, "a web page: is this the right endpoint?")
    return target.read_success(reply)


def _failure(status: int, said: str, headers: Mapping[str, str]) -> Answer:
    if status in _TRY_AGAIN:
        wait = retry_after_s(headers.get("Retry-After"))
        return Answer(Verdict.TRY_AGAIN, said, wait)
    verdict = Verdict.TOO_LARGE if status == 413 else Verdict.REFUSED
    return Answer(verdict, said, status=status)


def _content_type(response: requests.Response) -> str:
    return response.headers.get("Content-Type", "").partition(";")[0].strip().lower()


def _phrase(status: int, response: requests.Response) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return printable(response.reason or "")


def _read(response: requests.Response) -> bytes:
    """Return the body, or one byte more than the limit."""
    body: bytes = response.raw.read(MAX_RESPONSE_BYTES + 1, decode_content=False)
    if response.headers.get("Content-Encoding", "").lower() != "gzip":
        return body
    return zlib.decompressobj(31).decompress(body, MAX_RESPONSE_BYTES + 1)


def _without_user(url: str, headers: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Move user and password from the URL into the header that they mean."""
    parts = urlsplit(url)
    headers = {"accept-encoding": "identity", **headers}
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return url, headers
    encoded = b64encode(unquote(user).encode()).decode()
    headers.setdefault("authorization", f"Basic {encoded}")
    return urlunsplit(parts._replace(netloc=host)), headers


def _answer_to(error: Exception) -> Answer:
    """Say what an exception of an exchange means; nearly all are worth another try."""
    # requests marks URLs and headers that it cannot use as ValueErrors.
    if isinstance(error, (ValueError, TypeError)) and not isinstance(error, UnicodeError):
        return Answer(Verdict.REFUSED, f"{type(error).__name__}: {printable(str(error))}")
    return Answer(Verdict.TRY_AGAIN, _cause(error), was_reached=False)


def _cause(error: BaseException) -> str:
    """Return what went wrong in plain words, from under what libraries wrapped around it."""
    import ssl  # requests has imported it long before anything goes wrong

    chain = _causes(error)
    for cause in chain:
        if isinstance(cause, socket.gaierror):
            return f"its name cannot be resolved ({cause.strerror})"
        if isinstance(cause, ssl.SSLError):
            return f"TLS: {getattr(cause, 'verify_message', '') or cause.reason or cause}"
        if isinstance(cause, TimeoutError):
            return "no answer in time"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
    return next((text for text in map(_timeout_or_text, chain) if text), type(error).__name__)


def _timeout_or_text(error: BaseException) -> str:
    if "timeout" in type(error).__name__.lower():
        return "no answer in time"
    return printable(f"{type(error).__name__}: {error}") if not _inner(error) else ""


def _causes(error: BaseException) -> list[BaseException]:
    """Return the exception and those inside it, the innermost first."""
    found: list[BaseException] = []
    pending: list[Any] = [error]
    while pending and len(found) < 32:
        current = pending.pop()
        if current not in found:
            found.append(current)
            pending += _inner(current)
    return found[::-1]


def _inner(error: BaseException) -> list[BaseException]:
    parts = (*error.args, getattr(error, "reason", None), error.__cause__, error.__context__)
    return [part for part in parts if isinstance(part, BaseException)]
