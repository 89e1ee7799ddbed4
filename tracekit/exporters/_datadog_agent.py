"""Speaking to a Datadog agent by the newest of our protocols that it takes."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from tracekit.exporters import _datadog_v04, _datadog_v05
from tracekit.exporters._answer import PATH, Answer, Payload, Verdict
from tracekit.exporters._http_sender import HttpSender, HttpTarget

if TYPE_CHECKING:
    import requests

__all__ = ["API_VERSIONS", "V04", "AgentSender"]

_logger = logging.getLogger("tracekit")

V04, V05 = "v0.4", "v0.5"
API_VERSIONS = (V04, V05)

INFO = "/info"
"""Where an agent lists what it takes.
https://github.com/DataDog/datadog-agent/blob/main/pkg/trace/api/info.go"""

ASK_S = 0.5

_NOT_TAKEN = frozenset({404, 405, 415})


class AgentSender(HttpSender):
    """Send to an agent, and find out which protocol it takes.

    The first request goes by v0.4, which every agent takes. When one was taken, the agent is asked
    for its list: before, nobody may be there, and asking would take from the time of a batch what
    only finds that out. An agent that refuses v0.5 after all, such as an older one that was started
    in its place, gets the same spans by v0.4.

    Args:
        target: With the URL of v0.4.
        api_version: ``"v0.4"``, ``"v0.5"``, or None to find out.
    """

    def __init__(
        self, target: HttpTarget, session: requests.Session | None, api_version: str | None
    ) -> None:
        super().__init__(target, session)
        self._prefix = self._path().removesuffix(_datadog_v04.PATH)
        self._api_version = api_version
        self._has_answered = False

    def api_version(self) -> str:
        """Return the protocol for the next request; may ask the agent, for half a second."""
        if self._api_version is None and self._has_answered:
            self._has_answered = False  # without a list, it is asked again after the next request
            self._api_version = self._found_version()
        return self._api_version or V04

    def _found_version(self) -> str | None:
        reply = self.fetch(f"{self._prefix}{INFO}", ASK_S)
        if reply is None or reply.status >= 500:
            return None
        return V05 if _datadog_v05.PATH in _endpoints(reply.body) else V04

    def in_v05(self, payload: Payload) -> Payload:
        """Return a payload that says where it goes."""
        path = (PATH, f"{self._prefix}{_datadog_v05.PATH}")
        return Payload(payload.body, payload.spans, (*payload.headers, path))

    def send(self, payload: Payload, timeout_s: float) -> Answer:
        answer = super().send(payload, timeout_s)
        if answer.verdict is Verdict.TAKEN:
            self._has_answered = True
        elif answer.status in _NOT_TAKEN and PATH in dict(payload.headers):
            return self._without_v05(answer)
        return answer

    def _without_v05(self, answer: Answer) -> Answer:
        if self._api_version != V04:
            self._api_version = V04
            _logger.warning(
                "%s does not take protocol %s (%s): %s is used",
                *(self.destination, V05, answer.said, V04),
            )
        return Answer(Verdict.OTHER_FORM, answer.said, status=answer.status)


def _endpoints(info: bytes) -> list[object]:
    try:
        found = json.loads(info)["endpoints"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    return found if isinstance(found, list) else []
