"""Questions to a server over HTTP, whose answers are bounded in size and time."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit, urlunsplit

from tracekit.errors import SourceError
from tracekit.exporters import _http_session

if TYPE_CHECKING:
    import requests

__all__ = ["Answer", "Server"]

MAX_BYTES = 256 * 1024 * 1024
EXCHANGE_S = 30.0
ALTOGETHER_S = 120.0
# What has come of the piece that breaks off is lost with it.
_PIECE = 2048
_MOST_SAID = 200


class Answer(NamedTuple):
    """What a server answered with 200; ``cut`` says why the end of it is missing, if it is."""

    body: bytes
    cut: str = ""


class Server:
    """A server that is only read from: every request is a GET.

    All answers together may have 256 MiB and take two minutes. Then what has come is used.
    """

    def __init__(self, url: str) -> None:
        """Take an address, in which user and password may stand.

        Raises:
            SourceError: It is no HTTP address.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SourceError(f"{url!r} is not an address such as http://localhost:16686")
        host = parts.netloc.rpartition("@")[2]
        self.url = urlunsplit((parts.scheme, host, parts.path.rstrip("/"), "", ""))
        self._auth = (
            (unquote(parts.username), unquote(parts.password or "")) if (parts.username) else None
        )
        self._session: requests.Session | None = None
        self._bytes_left = MAX_BYTES
        self._ends_at = time.monotonic() + ALTOGETHER_S

    def get(
        self, path: str, params: Mapping[str, Any] | None = None, *, may_lack: bool = False
    ) -> Answer | None:
        """Ask once.

        Args:
            may_lack: Whether 404 means that there is no such thing, and None is returned.

        Raises:
            SourceError: It cannot be reached, wants a login, or answers anything but 200.
        """
        if self._session is None:
            self._session = _http_session.new_session(None)
        wait_s = self._left_s()
        _http_session.set_deadline(wait_s)
        try:
            with self._session.get(
                f"{self.url}{path}",
                params={key: value for key, value in (params or {}).items() if value is not None},
                headers={"Accept": "application/json"},
                auth=self._auth,
                timeout=wait_s,
                # To a login page, most likely; and our credentials are for this host alone.
                allow_redirects=False,
                stream=True,
            ) as response:
                return self._answer(response, may_lack=may_lack)
        except OSError as error:  # all of requests' own are
            raise SourceError(f"{self.url} cannot be asked: {_reason(error)}") from error

    def close(self) -> None:
        if self._session is not None:
            self._session.close()

    def _left_s(self) -> float:
        left = self._ends_at - time.monotonic()
        if left <= 0:
            raise SourceError(f"{self.url} took more than {ALTOGETHER_S:.0f} s for its answers")
        return min(EXCHANGE_S, left)

    def document(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """Ask for a small JSON document. Raises SourceError also for what is no JSON."""
        answer = self.get(path, params)
        try:
            return json.loads(answer.body if answer else b"")
        except (ValueError, RecursionError):
            raise SourceError(f"{self.url}{path} does not answer with JSON") from None

    def _answer(self, response: requests.Response, *, may_lack: bool) -> Answer | None:
        status = response.status_code
        kind = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        is_json = "json" in kind or kind in ("", "text/plain")
        if status == 404 and may_lack and kind != "text/html":
            return None
        if status in (401, 403) or 300 <= status < 400:
            raise SourceError(
                f"{self.url} needs a login ({status}): write it into the address, "
                "as in https://user:password@host"
            )
        if status != 200:
            said = _printable(self._read(response).body)
            raise SourceError(f"{self.url} answers {status}{f': {said}' if said else ''}")
        if not is_json and "ndjson" not in kind:
            raise SourceError(f"{self.url} answers with {kind}, not JSON: is it the query API?")
        return self._read(response)

    def _read(self, response: requests.Response) -> Answer:
        body = bytearray()
        try:
            for piece in response.iter_content(_PIECE):
                body += piece
                if len(body) > self._bytes_left:
                    del body[self._bytes_left :]
                    self._bytes_left = 0
                    return Answer(bytes(body), "the answers were cut: narrow down what is asked")
        except OSError as error:
            if not body:
                raise
            return Answer(bytes(body), f"an answer broke off: {_reason(error)}")
        self._bytes_left -= len(body)
        return Answer(bytes(body))


def _reason(error: BaseException) -> str:
    """Return the innermost reason: requests and urllib3 wrap it several times."""
    while isinstance(inner := error.__cause__ or error.__context__, Exception):
        error = inner
    return str(getattr(error, "strerror", None) or error) or type(error).__name__


def _printable(body: bytes) -> str:
    line = " ".join(body[: 4 * _MOST_SAID].decode("utf-8", "replace").split())[:_MOST_SAID]
    return "".join(char if char.isprintable() else "?" for char in line)
