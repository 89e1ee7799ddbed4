"""httpx: the contract of HTTP clients, sync and async."""

from __future__ import annotations

from instrumentation import httpx_contract
from tracekit.instrumentation.httpx import HttpxInstrumentor


class _Httpx(httpx_contract.Package):
    plugin = HttpxInstrumentor
    contrib_class = "HTTPXClientInstrumentor"
    timeout_error = "httpx.ReadTimeout"
    connect_error = "httpx.ConnectError"


class TestClient(_Httpx, httpx_contract.SyncCalls):
    pass


class TestAsyncClient(_Httpx, httpx_contract.AsyncCalls):
    pass


class TestTransports(_Httpx, httpx_contract.Transports):
    pass


class TestSends(_Httpx, httpx_contract.Sends):
    pass


class TestBodies(_Httpx, httpx_contract.Bodies):
    pass


class TestLimits(_Httpx, httpx_contract.Limits):
    pass
