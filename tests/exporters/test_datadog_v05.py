"""Datadog's v0.5 protocol: the same spans with each text once, for an agent that takes it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.trace import Link, SpanContext, TraceFlags, TraceState

from exporters.destinations import SOON, Destination, Reply
from exporters.made import HOSTILE_SPANS, checkout, made
from exporters.shapes import spans as any_span
from tracekit.errors import ConfigurationError
from tracekit.exporters import _datadog_v05
from tracekit.exporters._datadog_encoder import DatadogEncoder
from tracekit.exporters.datadog import DatadogExporter
from tracekit.interfaces import SpanExportResult
from tracekit.store.spool import Spool

SUCCESS, FAILURE = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
FIELDS = ("service", "name", "resource", "trace_id", "span_id", "parent_id", "start", "duration")
OLD, NEW = "/v0.4/traces", "/v0.5/traces"


def ignore(span: Any, error: Exception) -> None:
    pass


def read(body: bytes) -> list[list[dict[str, Any]]]:
    """Return chunks as v0.4 has them, from the table of texts."""
    texts, chunks = msgpack.unpackb(body, strict_map_key=False)
    assert texts[0] == ""
    assert len(set(texts)) == len(texts), "every text is there once"
    return [[_span(texts, values) for values in chunk] for chunk in chunks]


def _span(texts: list[str], values: list[Any]) -> dict[str, Any]:
    assert len(values) == 12
    named = [texts[place] for place in values[:3]] + values[3:8]
    return {
        **dict(zip(FIELDS, named, strict=True)),
        "error": values[8],
        "meta": {texts[key]: texts[text] for key, text in values[9].items()},
        "metrics": {texts[key]: number for key, number in values[10].items()},
        "type": texts[values[11]],
    }


def in_both(*spans: Any) -> tuple[Any, Any]:
    encode = DatadogEncoder({"env": "test"}).encode
    (old,), (new,) = (
        list(encode(spans, 10**9, ignore, *layout)) for layout in ((), (_datadog_v05.bodies,))
    )
    assert dict(old.headers) == dict(new.headers)
    return msgpack.unpackb(old.body), read(new.body)


def without_links(chunks: Any) -> Any:
    for span in [span for chunk in chunks for span in chunk]:
        span.pop("span_links", None)
        span["meta"].pop("_dd.span_links", None)
    return chunks


# The form -------------------------------------------------------------------------------------


@given(spans=st.lists(any_span, min_size=1, max_size=5))
def test_it_says_the_same_as_v04(spans: list[Any]) -> None:
    old, new = in_both(*spans)
    assert without_links(new) == without_links(old)


@pytest.mark.parametrize("name", HOSTILE_SPANS)
def test_a_hostile_span_arrives_with_what_is_good(name: str) -> None:
    old, new = in_both(HOSTILE_SPANS[name])
    assert without_links(new) == without_links(old)


def test_links_are_json_in_a_tag_with_all_bits_of_their_ids() -> None:
    state = TraceState([("dd", "s:1")])
    linked = SpanContext(2**127 + 5, 2**63 + 6, True, TraceFlags(1), state)
    _, ((span,),) = in_both(
        made(1, links=(Link(linked, {"why": 7}), Link(SpanContext(8, 9, True))))
    )
    assert json.loads(span["meta"]["_dd.span_links"]) == [
        {
            "trace_id": "80000000000000000000000000000005",
            "span_id": "8000000000000006",
            "tracestate": "dd=s:1",
            "attributes": {"why": "7"},
            "flags": 1,
        },
        {"trace_id": f"{8:032x}", "span_id": f"{9:016x}", "flags": 0},
    ]


def test_a_request_is_a_fraction_of_v04s() -> None:
    spans = [made(n, attributes={"http.route": "/cart", "user": "u"}) for n in range(1, 200)]
    (old,) = DatadogEncoder().encode(spans, 10**9, ignore)
    (new,) = DatadogEncoder().encode(spans, 10**9, ignore, _datadog_v05.bodies)
    assert len(new.body) < len(old.body) / 3


def test_payloads_are_split_by_size_and_a_trace_too_if_need_be() -> None:
    spans = [made(n, "work", 1 if n % 10 else None, trace_id=n // 10 + 1) for n in range(10, 60)]
    for limit in (100, 900, 2500):
        payloads = list(DatadogEncoder().encode(spans, limit, ignore, _datadog_v05.bodies))
        found = [read(payload.body) for payload in payloads]
        sent = [s["span_id"] for payload in found for chunk in payload for s in chunk]
        assert sorted(sent) == list(range(10, 60))
        assert sum(len(payload.spans) for payload in payloads) == 50
        if limit > 100:
            assert max(len(payload.body) for payload in payloads) <= limit
        for chunk in [chunk for payload in found for chunk in payload]:
            assert any("_sampling_priority_v1" in s["metrics"] for s in chunk)


# The agent ------------------------------------------------------------------------------------


@pytest.fixture
def agent() -> Iterator[Destination]:
    """An agent that takes both; what it says of itself may be changed."""
    with Destination() as destination:
        destination.documents["/info"] = info(OLD, NEW)
        yield destination


def info(*endpoints: str) -> Reply:
    return Reply(200, json.dumps({"version": "7.60", "endpoints": endpoints}).encode())


def export(url: str, batches: int = 3, **arguments: Any) -> DatadogExporter:
    exporter = DatadogExporter(url, retry_policy=SOON, **arguments)
    for _ in range(batches):
        assert exporter.export(checkout()) is SUCCESS
    exporter.shutdown()
    return exporter


def paths(agent: Destination) -> list[str]:
    return [received.path for received in agent.received]


def test_an_agent_that_takes_it_gets_it_after_the_first_request(agent: Destination) -> None:
    export(agent.url)
    assert paths(agent) == [OLD, NEW, NEW]
    assert agent.asked == ["/info"], "once"
    first, second = agent.received[:2]
    assert without_links(read(second.body)) == without_links(msgpack.unpackb(first.body))
    assert second.headers["x-datadog-trace-count"] == "1"
    assert second.method == "PUT"
    assert ":path" not in second.headers


def test_the_path_of_an_agent_behind_a_proxy_is_kept(agent: Destination) -> None:
    agent.documents["/dd/info"] = info(OLD, NEW)
    export(f"{agent.url}/dd/")
    assert paths(agent) == ["/dd/v0.4/traces", "/dd/v0.5/traces", "/dd/v0.5/traces"]


@pytest.mark.parametrize(
    "told",
    [
        info(OLD),
        Reply(404),
        Reply(200, b"<html>"),
        Reply(200, b"[]"),
        Reply(200, b'{"endpoints": 5}'),
        Reply(200, b'{"endpoints": "/v0.5/traces"}'),
        Reply(200, b"[" * 100_000),
    ],
)
def test_any_other_agent_gets_v04(agent: Destination, told: Reply) -> None:
    agent.documents["/info"] = told
    export(agent.url)
    assert paths(agent) == [OLD, OLD, OLD]
    assert agent.asked == ["/info"]


def test_an_agent_that_cannot_say_now_is_asked_again(agent: Destination) -> None:
    agent.documents["/info"] = Reply(503)
    exporter = DatadogExporter(agent.url)
    exporter.export(checkout())
    exporter.export(checkout())
    agent.documents["/info"] = info(OLD, NEW)
    exporter.export(checkout())
    exporter.shutdown()
    assert paths(agent) == [OLD, OLD, NEW]


def test_an_agent_that_does_not_answer_is_not_asked(agent: Destination) -> None:
    agent.script[:] = [Reply(503)]
    exporter = DatadogExporter(agent.url, timeout=0.05)
    exporter.export(checkout())
    exporter.export(checkout())
    exporter.shutdown()
    assert agent.asked == []


@pytest.mark.parametrize(("version", "path"), [("v0.4", OLD), ("v0.5", NEW)])
def test_who_says_which_gets_it_at_once(
    agent: Destination, version: str, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(agent.url, 1, api_version=version)
    monkeypatch.setenv("DD_TRACE_API_VERSION", version)
    export(agent.url, 1)
    assert paths(agent) == [path, path]
    assert agent.asked == []


@pytest.mark.parametrize("status", [404, 405, 415])
def test_an_agent_that_refuses_it_gets_the_same_spans_by_v04(
    agent: Destination, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    agent.script[:] = [lambda received: Reply(status if received.path == NEW else 200)]
    exporter = export(agent.url, 2, api_version="v0.5")
    assert paths(agent) == [NEW, OLD, OLD]
    assert exporter.stats()["sent"] == 2 * len(checkout())
    (message,) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "does not take protocol v0.5" in message


def test_what_v04_is_refused_is_refused(agent: Destination) -> None:
    agent.script[:] = [Reply(404)]
    exporter = DatadogExporter(agent.url, api_version="v0.5")
    assert exporter.export(checkout()) is FAILURE
    assert paths(agent) == [NEW, OLD]
    assert exporter.stats()["rejected"] == len(checkout())
    exporter.shutdown()


def test_what_was_kept_goes_where_it_would_have_gone(agent: Destination, tmp_path: Path) -> None:
    agent.script[:] = [Reply(503)]
    spool = Spool(tmp_path / "spool.db")
    kept = DatadogExporter(agent.url, api_version="v0.5", spool=spool)
    kept.hurry()
    assert kept.export(checkout()) is SUCCESS
    kept.shutdown()
    agent.received.clear()
    agent.script[:] = [Reply(200)]
    later = DatadogExporter(agent.url, spool=spool)
    assert later.force_flush(10_000)
    later.shutdown()
    (received,) = agent.received
    assert received.path == NEW
    assert sum(map(len, read(received.body))) == later.stats()["recovered"] == len(checkout())


def test_a_batch_that_is_too_large_is_split(agent: Destination) -> None:
    agent.script[:] = [lambda received: Reply(413 if len(received.raw) > 1200 else 200)]
    exporter = export(agent.url, 1, api_version="v0.5", max_request_bytes=2000)
    assert exporter.stats()["sent"] == len(checkout())
    assert set(paths(agent)) == {NEW}


def test_a_version_that_nobody_speaks_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"api_version \(argument\)='v0.7'.*v0.4, v0.5"):
        DatadogExporter(api_version="v0.7")


def test_one_in_the_environment_is_reported_and_ignored(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, agent: Destination
) -> None:
    monkeypatch.setenv("DD_TRACE_API_VERSION", "v0.3")
    export(agent.url, 1)
    assert paths(agent) == [OLD]
    assert any("DD_TRACE_API_VERSION" in record.getMessage() for record in caplog.records)
