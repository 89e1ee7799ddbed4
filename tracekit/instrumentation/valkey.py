"""valkey-py: one CLIENT span for each command or pipeline; sync, async and cluster."""

from __future__ import annotations

from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._redis import RedisProtocolInstrumentor

__all__ = ["ValkeyInstrumentor"]


class ValkeyInstrumentor(RedisProtocolInstrumentor):
    """Watch valkey. Options: ``request_hook`` and ``response_hook``."""

    name = system = "valkey"
    distributions = ("valkey",)
    supported = ">=6.0,<7"
    classes = ("Valkey", "ValkeyCluster")


plugin: type[LibraryInstrumentor] = ValkeyInstrumentor
