"""Row 18: secrets are not recorded by default, and nothing else is taken for one.

contrib#2992, #1548, vllm#41146; against it logfire#123, #248, #1344 (false positives).
"""

from __future__ import annotations

import flask
import httpx
import pytest
import requests

from http_servers import werkzeug_server

SECRETS = ["s3cret-password", "AKIDEXAMPLE-sig", "tok-signature", "goog-signature"]
QUERY = (
    "AWSAccessKeyId=s3cret-password&Signature=AKIDEXAMPLE-sig&sig=tok-signature"
    "&X-Goog-Signature=goog-signature&page=7&author=auth&session_name=hello"
)


@pytest.fixture
def port(ended, watch):
    watch("requests", "httpx", "flask")
    app = flask.Flask("app")

    @app.get("/")
    def index():
        return "ok"

    with werkzeug_server(app) as client:
        yield client.port


def recorded(ended):
    ended.server()
    return "\n".join(span.to_json() for span in ended.all())


@pytest.mark.parametrize("get", [requests.get, httpx.get])
def test_credentials_and_signatures_in_urls_are_not_recorded(ended, port, get):
    get(f"http://user:s3cret-password@127.0.0.1:{port}/?{QUERY}")
    text = recorded(ended)
    for secret in SECRETS:
        assert secret not in text
    assert "REDACTED" in text


@pytest.mark.parametrize("get", [requests.get, httpx.get])
def test_what_is_no_secret_stays_as_it_is(ended, port, get):
    get(f"http://127.0.0.1:{port}/?{QUERY}")
    text = recorded(ended)
    for harmless in ("page=7", "author=auth", "session_name=hello"):
        assert text.count(harmless) >= 2, "in the client's span and in the server's"


@pytest.mark.parametrize("get", [requests.get, httpx.get])
def test_headers_are_recorded_only_when_asked_for(ended, port, get):
    get(f"http://127.0.0.1:{port}/", headers={"Authorization": "Bearer s3cret-password"})
    text = recorded(ended)
    assert "s3cret-password" not in text
    assert "authorization" not in text.lower()
