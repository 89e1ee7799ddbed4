"""Row 33: what is sent again, for a retry or a redirect, is a span of its own beside the first.

contrib#2000, contrib#862, azure-sdk#35069.
"""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.util import Retry

import tracekit

RETRY = Retry(5, status_forcelist=[503])


class Moody(BaseHTTPRequestHandler):
    """Is not available at first, then sends the caller elsewhere."""

    answers = (503, 302, 200)

    def do_GET(self) -> None:
        self.server.sent_ids.append(self.headers["traceparent"].split("-")[2])
        self.send_response(self.answers[len(self.server.sent_ids) - 1])
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def server():
    with ThreadingHTTPServer(("127.0.0.1", 0), Moody) as server:
        server.sent_ids = []
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        serving.start()
        yield server
        server.shutdown()
        serving.join()


def call_requests(url: str) -> None:
    with requests.Session() as session:
        session.mount("http://", HTTPAdapter(max_retries=RETRY))
        session.get(url)


def call_urllib3(url: str) -> None:
    with urllib3.PoolManager() as manager:
        manager.request("GET", url, retries=RETRY)


@pytest.mark.parametrize("call", [call_requests, call_urllib3])
def test_each_request_of_a_call_is_a_span_with_its_own_header(ended, watch, server, call):
    watch("requests", "urllib3", "http_client")
    with tracekit.span("call") as parent:
        call(f"http://127.0.0.1:{server.server_port}/")
    attempts = sorted(
        (span for span in ended.all() if span.name == "GET"), key=lambda span: span.start_time
    )
    assert [span.attributes["http.response.status_code"] for span in attempts] == [503, 302, 200]
    assert [span.attributes.get("http.request.resend_count") for span in attempts] == [None, 1, 2]
    assert {span.parent.span_id for span in attempts} == {parent.get_span_context().span_id}
    assert server.sent_ids == [f"{span.context.span_id:016x}" for span in attempts]
