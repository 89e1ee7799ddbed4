"""The request of an attempt inside of botocore: the headers that it takes, and its answer.

The headers of a request are a mapping of botocore's own, in Python, that tells names apart
regardless of their case. urllib3 copies it and http.client walks it twice, at some ten calls a
header: more than all that tracing adds. Where no name is spelled as nobody does, a dictionary says
the same, and trace headers are added to that.

``getresponse`` of a connection returns when the headers are read, which ends the span. It and the
mapping are the library's private ones: where they are not as expected, they are used as they are,
and the span ends when the session has its response.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any

from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import Setter

from tracekit.instrumentation._around import around
from tracekit.instrumentation._http_client import current_exchange
from tracekit.instrumentation._patch import report
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._urllib3 import VERSIONS, peer_of

__all__ = ["PlainHeaders", "RequestHeaders", "answer_patches"]

_Call = Callable[..., Any]

_MODULE = "botocore.awsrequest"
# What botocore and urllib3 ask for by these names.
_ASKED = {name.lower(): name for name in ("Expect", "Transfer-Encoding")}
_MOST_KEPT = 512


class _HeaderKeys(dict[str, Any]):
    """Names of headers as keys of the library's own dictionary, which makes one at each access."""

    def __missing__(self, name: str) -> Any:
        (key,) = sys.modules[_MODULE].HeadersDict([(name, "")])._dict
        self[name] = key
        return key


_key_of: Callable[[str], Any] = _HeaderKeys().__getitem__


class RequestHeaders(Setter[Any]):
    """Writes a trace header to those of a request, as their own method would, in fewer calls."""

    def set(self, carrier: Any, key: str, value: str) -> None:
        if type(carrier) is dict:
            carrier[key] = value
            return
        try:
            carrier._dict[_key_of(key)] = value
        except (AttributeError, KeyError, TypeError, ValueError):  # headers of somebody's own
            carrier[key] = value


class PlainHeaders:
    """Makes dictionaries of the headers of requests.

    Concurrency: from any thread.
    """

    def __init__(self, send: _Call) -> None:
        """Do so where `send` is the library's own function, and headers are as expected."""
        self._usual: set[str] = set()
        self._name_of: Any = attrgetter("_key")
        self._class = getattr(sys.modules.get(_MODULE), "HeadersDict", None)
        is_own = send.__globals__["__name__"] == "botocore.httpsession"
        if not is_own or self._class is None or self.of(self._class({"A": "b"})) != {"A": "b"}:
            self._class = None

    def of(self, headers: Any) -> Any:
        """Return a dictionary that stands for `headers`, or `headers` where none does."""
        try:
            if type(headers) is self._class:
                raw = headers._dict
                # Keys and values of one dictionary; to say so takes as long as the half of it.
                plain = dict(zip(map(self._name_of, raw), raw.values()))  # noqa: B905
                if plain.keys() <= self._usual or self._are_usual(plain):
                    return plain
        except Exception:
            report("the reading of headers")
        return headers

    def _are_usual(self, names: Iterable[str]) -> bool:
        """Tell whether all names are spelled as they are looked for; keep those that are."""
        asked = {**_ASKED, **{name.lower(): name for name in get_global_textmap().fields}}
        if any(asked.get(name.lower(), name) != name for name in names):
            return False
        if len(self._usual) > _MOST_KEPT:
            self._usual.clear()
        self._usual.update(names)
        return True


def answer_patches() -> Sequence[Replacing]:
    """Return what ends attempts when the headers of their responses are read."""
    return tuple(
        Replacing(_MODULE, f"{connection}.getresponse", _getresponse, optional=True)
        for connection in ("AWSHTTPConnection", "AWSHTTPSConnection")
    )


def _getresponse(original: _Call, _owners: Sequence[object]) -> _Call:
    if len(inspect.signature(original).parameters) != 1:
        return around(original, {}, lambda: None)
    module = sys.modules[_MODULE]
    mixin, connection_class = module.AWSConnection, module.AWSHTTPConnection
    inherited = getattr(super(mixin, connection_class), "getresponse", None)
    # What they have from urllib3, somebody may replace there later.
    is_inherited = original is inherited

    def getresponse(connection: Any) -> Any:
        response = super(mixin, connection).getresponse() if is_inherited else original(connection)
        exchange = current_exchange()
        attempt = None if exchange is None else exchange.attempt
        if attempt is not None and attempt.under_way:
            try:
                peer: Sequence[Any] | None = attempt.destination.peer
                if peer is None or connection.proxy is not None:
                    peer = peer_of(connection)
                status, version = response.status, response.version
                if status < 400 and attempt.steps.is_terse:
                    version = "1.1" if version == 11 else VERSIONS.get(version, "")
                    attempt.succeed_plainly(response, status, version, peer)
                else:
                    attempt.peer = peer
            except Exception:  # a connection of somebody's own
                report("the reading of a response")
        return response

    return getresponse
