"""Tempo's answers as its documentation has them, on a server of our own.

Source: https://grafana.com/docs/tempo/latest/api_docs/
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.conftest import tracekit  # noqa: F401 - a fixture
from findings.made import NOISES, faulty
from sources.answering import Answers, Asked, Said, answering
from tracekit.exporters._otlp_json import encode

SPANS = faulty("same_row_by_three", 2, NOISES["none"], 4)
TRACE_ID = f"{SPANS[0].context.trace_id:032x}"


def tempo(version: str = "/v2", **more: Any) -> Answers:
    """A server that holds one trace; an old one knows only the first version of the path."""
    document = encode(SPANS)
    kept = {"trace": document, **more} if version else {"batches": document["resourceSpans"]}

    def answer(asked: Asked) -> Said:
        if asked.path == "/api/search":
            found = {"traceID": TRACE_ID.lstrip("0"), "rootServiceName": "orders"}
            return Said(json.dumps({"traces": [found], "metrics": {}}).encode())
        if asked.path == f"/api{version}/traces/{TRACE_ID}":
            return Said(json.dumps(kept).encode())
        return Said(b"trace not found", 404, "text/plain")

    return answer


def kinds(done: Any) -> set[str]:
    assert done.exit_code == 0, done.output
    return {item["kind"] for item in json.loads(done.stdout)}


@pytest.mark.parametrize("version", ["/v2", ""])
def test_a_trace_of_either_version(tracekit, version: str) -> None:  # noqa: F811
    with answering(tempo(version)) as server:
        words = ("findings", TRACE_ID, "--from", f"tempo:{server.url}", "--json")
        assert "redundant_calls" in kinds(tracekit(*words))


def test_recent_traces_are_searched_in_traceql(tracekit) -> None:  # noqa: F811
    with answering(tempo()) as server:
        words = ["findings", "--from", f"tempo:{server.url}", "--json", "--service", 'or"ders']
        words += ["--endpoint", "POST /orders", "--since", "2h", "--limit", "7"]
        assert "redundant_calls" in kinds(tracekit(*words))
    search = server.asked[0]
    condition = r'{ resource.service.name = "or\"ders" && name = "POST /orders" }'
    assert (search.path, search.params["q"]) == ("/api/search", condition)
    assert search.params["limit"] == "7"
    assert 7200 <= int(search.params["end"]) - int(search.params["start"]) <= 7202


def test_a_partial_answer_is_used_and_said_to_be_partial(tracekit) -> None:  # noqa: F811
    with answering(tempo(status="PARTIAL", message="too large")) as server:
        done = tracekit("findings", TRACE_ID, "--from", f"tempo:{server.url}", "--json")
    assert "redundant_calls" in kinds(done)
    assert "partial: Tempo says that a trace is larger than it may send" in done.stderr


def test_an_answer_that_breaks_off_is_used_as_far_as_it_came(tracekit) -> None:  # noqa: F811
    def answer(asked: Asked) -> Said:
        said = tempo("")(asked)
        # What breaks off with the last piece is a part of this.
        whole = said._replace(body=said.body + b" " * 5000, more=1000)
        return whole if said.status == 200 else said

    with answering(answer) as server:
        done = tracekit("findings", TRACE_ID, "--from", f"tempo:{server.url}", "--json")
    assert "redundant_calls" in kinds(done)
    assert "partial: an answer broke off" in done.stderr


def test_when_it_fails_half_way_what_was_read_is_told(tracekit) -> None:  # noqa: F811
    def answer(asked: Asked) -> Said:
        if asked.path == "/api/search":
            found = [{"traceID": TRACE_ID}, {"traceID": "ab"}]
            return Said(json.dumps({"traces": found}).encode())
        return Said(b"", 503) if asked.path.endswith("/ab") else tempo()(asked)

    with answering(answer) as server:
        done = tracekit("findings", "--from", f"tempo:{server.url}", "--since", "1h", "--json")
    assert "redundant_calls" in kinds(done)
    assert "partial: 1 of 2 traces were read" in done.stderr


@pytest.mark.parametrize("words", [["--file", "x"], ["--from", "tempo"]])
def test_a_wrong_command_line_is_said(tracekit, words: list[str]) -> None:  # noqa: F811
    done = tracekit("findings", "--from", "tempo:http://localhost:3200", *words)
    assert done.exit_code
    assert (
        "give one of --from, --file and --store" in done.stderr
        or "is not an address" in done.stderr
    )
