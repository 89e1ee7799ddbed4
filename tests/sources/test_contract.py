"""What every file of ``sources/`` promises, new ones included."""

from __future__ import annotations

import time

import pytest

from sources.answering import Answers, Said, answering
from tracekit.errors import SourceError, UnknownNameError
from tracekit.sources import _server
from tracekit.sources._opening import source_names, source_of
from tracekit.sources._source import Recent

every_source = pytest.mark.parametrize("name", source_names())
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"


def asked_of(name: str, answers: Answers, **wanted: str) -> str:
    """Ask for a trace and for recent ones; return what both errors say."""
    with answering(answers) as server:
        said = []
        for ask in ("trace", "recent"):
            source = source_of(f"{name}:{server.url}")
            what = TRACE_ID if ask == "trace" else Recent(5, **wanted)
            with pytest.raises(SourceError) as caught:
                list(getattr(source, ask)(what))
            said.append(str(caught.value))
        assert all(server.url in each for each in said)
        assert {request.method for request in server.asked} == {"GET"}
    return said[0]


@every_source
@pytest.mark.parametrize("status", [401, 403, 302])
def test_a_login_that_is_needed_is_said(name: str, status: int) -> None:
    assert f"needs a login ({status})" in asked_of(name, lambda _: Said(b"no", status, "text/html"))


@every_source
def test_a_server_that_fails_is_told_with_what_it_says(name: str) -> None:
    assert "answers 500: out of memory" in asked_of(
        name, lambda _: Said(b"out of\n memory", 500, "text/plain")
    )


@every_source
def test_a_page_is_no_answer(name: str) -> None:
    page = Said(b"<html>", 200, "text/html")
    assert "answers with text/html, not JSON" in asked_of(name, lambda _: page)


@every_source
def test_a_server_that_is_down_is_said_at_once(name: str) -> None:
    with answering(lambda _: Said()) as server:
        pass
    with pytest.raises(SourceError, match="cannot be asked: Connection refused"):
        list(source_of(f"{name}:{server.url}").trace(TRACE_ID))


@every_source
def test_a_server_that_does_not_go_on_is_left(name: str, monkeypatch) -> None:
    monkeypatch.setattr(_server, "EXCHANGE_S", 0.2)
    with (
        answering(lambda _: time.sleep(0.6) or Said()) as server,
        pytest.raises(SourceError, match=r"cannot be asked: .*timed out"),
    ):
        list(source_of(f"{name}:{server.url}").trace(TRACE_ID))


@every_source
def test_what_is_no_trace_id_is_not_sent(name: str) -> None:
    source = source_of(f"{name}:http://127.0.0.1:1")
    with pytest.raises(SourceError, match="is not a trace id"):
        list(source.trace("../services"))


@every_source
def test_an_answer_of_something_else_holds_no_span(name: str) -> None:
    with answering(lambda _: Said(b'{"a": [1, null, {"b": {}}]}')) as server:
        source = source_of(f"{name}:{server.url}")
        assert list(source.trace(TRACE_ID)) == []
        assert source.remarks


@every_source
def test_answers_are_bounded_together(name: str, monkeypatch) -> None:
    monkeypatch.setattr(_server, "MAX_BYTES", 1000)
    with answering(lambda _: Said(b" " * 100_000)) as server:
        source = source_of(f"{name}:{server.url}")
        assert list(source.trace(TRACE_ID)) == []
        assert "the answers were cut: narrow down what is asked" in source.remarks


@every_source
def test_user_and_password_go_to_the_server_and_into_no_message(name: str) -> None:
    with answering(lambda _: Said(b"", 403)) as server:
        source = source_of(f"{name}:{server.url.replace('//', '//ada:s%40crt@')}")
        with pytest.raises(SourceError) as caught:
            list(source.trace(TRACE_ID))
    assert server.asked[0].authorization == "Basic YWRhOnNAY3J0"
    assert "crt" not in str(caught.value)
    assert "ada" not in str(caught.value)


@pytest.mark.parametrize("url", ["", "localhost:16686", "ftp://host", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SourceError, match="is not an address such as http://localhost:16686"):
        source_of(f"jaeger:{url}")


def test_an_unknown_source_is_refused_with_the_near_one() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'jaeger'"):
        source_of("jager:http://localhost:16686", "--from")
