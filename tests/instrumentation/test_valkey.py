"""valkey-py against a real server: the same contract as redis-py."""

from __future__ import annotations

from instrumentation.redis_contract import SyncCalls, port
from instrumentation.test_redis import AsyncCalls
from tracekit.instrumentation.valkey import ValkeyInstrumentor

__all__ = ["port"]


class TestValkey(SyncCalls):
    plugin = ValkeyInstrumentor
    package = "valkey"
    client_class = "Valkey"


class TestValkeyAsyncio(AsyncCalls):
    plugin = ValkeyInstrumentor
    package = "valkey.asyncio"
    client_class = "Valkey"
