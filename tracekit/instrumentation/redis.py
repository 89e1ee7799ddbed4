"""redis-py: one CLIENT span for each command or pipeline; sync, async and cluster."""

from __future__ import annotations

from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._redis import RedisProtocolInstrumentor

__all__ = ["RedisInstrumentor"]


class RedisInstrumentor(RedisProtocolInstrumentor):
    """Watch redis. Options: ``request_hook`` and ``response_hook``."""

    name = system = "redis"
    distributions = ("redis",)
    supported = ">=4.2,<9"
    contrib = ("redis",)


plugin: type[LibraryInstrumentor] = RedisInstrumentor
