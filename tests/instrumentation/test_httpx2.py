"""httpx2: the same contract as httpx."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest

from instrumentation import httpx_contract
from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import run
from tracekit.instrumentation.httpx import HttpxInstrumentor
from tracekit.instrumentation.httpx2 import Httpx2Instrumentor

httpx2: Any = pytest.importorskip("httpx2", reason="httpx2 needs Python 3.11")


class _Httpx2(httpx_contract.Package):
    plugin = Httpx2Instrumentor
    contrib_package = "httpx"
    contrib_class = "HTTPX2ClientInstrumentor"
    timeout_error = "httpx2.ReadTimeout"
    connect_error = "httpx2.ConnectError"


class TestClient(_Httpx2, httpx_contract.SyncCalls):
    pass


class TestAsyncClient(_Httpx2, httpx_contract.AsyncCalls):
    pass


class TestTransports(_Httpx2, httpx_contract.Transports):
    pass


class TestSends(_Httpx2, httpx_contract.Sends):
    pass


class TestBodies(_Httpx2, httpx_contract.Bodies):
    pass


class TestLimits(_Httpx2, httpx_contract.Limits):
    pass


@pytest.mark.skipif(not hasattr(httpx2, "alias_httpx"), reason="httpx2 of then has none")
@pytest.mark.parametrize("order", ["before", "after"])
def test_program_that_has_httpx2_in_place_of_httpx_gets_one_span_for_a_call(order: str) -> None:
    alias = "import httpx2; httpx2.alias_httpx(); import httpx"
    watch = """
        from tracekit.instrumentation import httpx as first, httpx2 as second
        for plugin in (first.plugin(), second.plugin()):
            plugin.instrument(tracer_provider=spans.provider)
    """
    call = """
        with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(200))) as client:
            client.get("http://shop/")
        print(plugin.status.reason, len(spans.watched))
    """
    start = "from instrumentation.conftest import Spans; spans = Spans()"
    steps = [watch, alias] if order == "before" else [alias, watch]
    assert run("\n".join(map(textwrap.dedent, [start, *steps, call]))) == "active 1"


def test_httpx_is_watched_where_contrib_watches_httpx2(
    instrument: Instrument, spans: Spans
) -> None:
    contrib = TestClient().contrib()
    contrib.instrument(tracer_provider=spans.provider)
    try:
        reasons = [
            instrument(plugin).status.reason for plugin in (HttpxInstrumentor, Httpx2Instrumentor)
        ]
    finally:
        contrib.uninstrument()
    assert reasons == ["active", "already instrumented by opentelemetry-instrumentation-httpx"]
