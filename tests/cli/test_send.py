"""`tracekit send`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import FAST, SLOW
from exporters.destinations import Destination as Server
from exporters.made import TRACE_ID, checkout
from formats.written import one_line, written
from store.records import span as record
from store.records import told
from tracekit.exporters._otlp_json import decode
from tracekit.store.writer import StoreWriter


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "out.jsonl"
    monkeypatch.setenv("TRACEKIT_OTLP_FILE", str(path))
    return path


def arrived(path: Path) -> dict[int, dict]:
    return {span.context.span_id: told(span) for span in decode(path.read_bytes())}


SENT = {span.context.span_id: told(span) for span in checkout()}


def test_stored_spans_arrive_as_they_were(tracekit, tmp_path: Path, out: Path) -> None:
    store = tmp_path / "traces.db"
    writer = StoreWriter(store)
    writer.write(checkout())
    writer.close()
    result = tracekit("send", str(store), "--to", "otlp_file")
    assert (result.exit_code, result.output) == (0, f"otlp_file: {len(SENT)} spans sent\n")
    assert arrived(out) == SENT


@pytest.mark.parametrize("source", [[], ["store"]])
def test_without_a_source_the_default_store_is_sent(
    tracekit, store: Path, out: Path, source: list[str]
) -> None:
    result = tracekit("send", *source, "--to", "otlp_file", env={"TRACEKIT_STORE": str(store)})
    assert result.stdout == "otlp_file: 4 spans sent\n"


@pytest.mark.parametrize("name", ["otlp_json", "jaeger_json"])
def test_a_file_is_sent_without_a_store(tracekit, out: Path, name: str) -> None:
    result = tracekit("send", "-", "--to", "otlp_file", input=one_line(written(name)))
    assert result.exit_code == 0
    assert arrived(out) == SENT


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--service", "payment"], 2),
        (["--trace", f"{FAST:032x}"[:6]], 2),
        (["--trace", "last"], 2),
        (["--since", "1h"], 0),
    ],
)
def test_options_choose_what_is_sent(
    tracekit, store: Path, out: Path, options: list[str], expected: int
) -> None:
    result = tracekit("send", str(store), "--to", "otlp_file", *options)
    assert f"otlp_file: {expected} spans sent" in result.stdout
    assert result.exit_code == (0 if expected else 1)


def test_options_choose_of_a_file_too(tracekit, out: Path) -> None:
    content = one_line(written("jaeger_json"))
    words = ["send", "-", "--to", "otlp_file", "--service", "auth"]
    result = tracekit(*words, "--trace", f"{TRACE_ID:032x}"[:8], input=content)
    assert result.exit_code == 0
    found = decode(out.read_bytes())
    assert {span.resource.attributes["service.name"] for span in found} == {"auth"}


def test_more_traces_than_a_page_are_all_sent_once(tracekit, tmp_path: Path, out: Path) -> None:
    """Also when many began in the same nanosecond."""
    store = tmp_path / "traces.db"
    writer = StoreWriter(store)
    writer.write([record(1, trace=n + 1, at_ms=0 if 99 < n < 1700 else n) for n in range(2300)])
    writer.close()
    assert "2300 spans sent" in tracekit("send", str(store), "--to", "otlp_file").stdout
    ids = [span.context.trace_id for span in decode(out.read_bytes())]
    assert sorted(ids) == list(range(1, 2301))


def test_what_has_not_ended_is_left_out_and_said(tracekit, tmp_path: Path, out: Path) -> None:
    store = tmp_path / "traces.db"
    writer = StoreWriter(store)
    writer.write([record(1), record(2, for_ms=None)])
    writer.close()
    result = tracekit("send", str(store), "--to", "otlp_file")
    assert result.stdout == "otlp_file: 1 spans sent\n1 left out: they have not ended\n"


def test_several_exporters_get_everything_and_one_that_fails_stops_no_other(
    tracekit, store: Path, out: Path
) -> None:
    words = ["send", str(store), "--to", "otlp", "--to", "otlp_file", "--json"]
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://localhost:9",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "300",
    }
    result = tracekit(*words, env=environment)
    assert result.exit_code == 1
    otlp, file = json.loads(result.stdout)["destinations"]
    assert (otlp["sent"], otlp["failed"]) == (0, {"unreachable": 4})
    assert otlp["destination"] == "http://localhost:9/v1/traces"
    assert (file["sent"], file["failed"]) == (4, {})


def test_an_endpoint_and_headers_may_be_said(tracekit, store: Path) -> None:
    with Server() as server:
        words = ["--endpoint", server.url, "--header", "x-tenant=shop"]
        result = tracekit("send", str(store), "--to", "otlp", *words)
        assert result.exit_code == 0, result.output
        (request,) = server.received
        assert request.headers["x-tenant"] == "shop"


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--to", "consol"], 1, "Did you mean 'console'?"),
        (["--to", "memory", "--endpoint", "http://x"], 2, "takes no --endpoint"),
        (["--to", "otlp", "--header", "secret"], 2, "expected KEY=VALUE"),
        (["nowhere.json", "--to", "console"], 2, "nowhere.json: No such file"),
        ([], 2, "--to"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_sent(
    tracekit, words: list[str], code: int, said: str
) -> None:
    result = tracekit("send", *words)
    assert result.exit_code == code
    assert said in result.stderr


def test_a_store_is_not_sent_to_itself(tracekit, store: Path) -> None:
    result = tracekit("send", "--to", "store", env={"TRACEKIT_STORE": str(store)})
    assert result.exit_code == 2
    assert "already" in result.stderr


def test_from_one_store_to_another(tracekit, store: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    result = tracekit("send", str(store), "--to", "store", env={"TRACEKIT_STORE": str(other)})
    assert result.stdout == "store: 4 spans sent\n"
    assert tracekit("show", f"{SLOW:032x}", "--store", str(other)).exit_code == 0


def test_a_broken_file_is_sent_as_far_as_it_can_be_read(tracekit, out: Path) -> None:
    content = one_line(written("otlp_json"))[:-200]
    result = tracekit("send", "-", "--to", "otlp_file", input=content)
    assert result.exit_code == 1
    assert "-:1:" in result.stderr
    assert len(arrived(out)) > 10


def test_an_exporter_that_raises_counts_as_not_delivered() -> None:
    from tracekit.cli._replay import Destination

    class Broken:
        def export(self, spans: Any) -> Any:
            raise RuntimeError("no")

    destination = Destination("broken", Broken())
    destination.export(checkout())
    destination.close()
    assert destination.outcome()["failed"] == {"RuntimeError: no": len(SENT)}
