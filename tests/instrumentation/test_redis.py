"""redis-py against a real server: the contract, and what only it has."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import redis
import redis.asyncio
import redis.cluster
from opentelemetry.instrumentation.redis import RedisInstrumentor as ContribInstrumentor
from opentelemetry.trace import StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import run
from instrumentation.redis_contract import RedisContract, SyncCalls, port
from redis_servers import needs_redis, redis_server
from servers import free_port
from tracekit.instrumentation.redis import RedisInstrumentor

__all__ = ["port"]


class TestRedis(SyncCalls):
    plugin = RedisInstrumentor
    package = "redis"


async def close(client: Any) -> None:
    """Close a client; before version 5 it was called otherwise."""
    await (client.aclose() if hasattr(client, "aclose") else client.close())


class AsyncCalls(RedisContract):
    """The calls of an asynchronous client."""

    calls_from = __file__

    def send(self, port: int, *command: Any, **options: Any) -> Any:
        async def send() -> Any:
            client = self.client(host="127.0.0.1", port=port, **options)
            try:
                return await client.execute_command(*command)
            finally:
                await close(client)

        return asyncio.run(send())

    def send_all(self, port: int, commands: Sequence[Sequence[Any]], transaction: bool) -> Any:
        async def send() -> Any:
            client = self.client(host="127.0.0.1", port=port)
            try:
                async with client.pipeline(transaction=transaction) as pipeline:
                    for command in commands:
                        pipeline.execute_command(*command)
                    return await pipeline.execute()
            finally:
                await close(client)

        return asyncio.run(send())

    def send_within(self, port: int, spans: Spans, count: int) -> None:
        async def send(client: Any, number: int) -> None:
            with spans.tracer.start_as_current_span(str(number)):
                await client.execute_command("ECHO", number)

        async def send_all() -> None:
            client = self.client(host="127.0.0.1", port=port)
            await asyncio.gather(*(send(client, number) for number in range(count)))
            await close(client)

        asyncio.run(send_all())


class TestRedisAsyncio(AsyncCalls):
    plugin = RedisInstrumentor
    package = "redis.asyncio"


pytestmark = needs_redis


def test_a_cancelled_command_is_no_error(instrument: Instrument, spans: Spans, port: int) -> None:
    instrument(RedisInstrumentor)

    async def wait() -> None:
        client = redis.asyncio.Redis(port=port, socket_timeout=None)
        try:
            await asyncio.wait_for(client.blpop(["nothing"], 5), 0.05)
        finally:
            await close(client)

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(wait())
    span = spans.one()
    assert (span.status.status_code, list(span.events)) == (StatusCode.UNSET, [])
    assert "error.type" not in (span.attributes or {})


def test_a_lost_race_of_a_transaction_is_no_error(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(RedisInstrumentor)
    client = redis.Redis(port=port)
    with client.pipeline() as pipeline:
        pipeline.watch("watched")
        client.set("watched", "changed")
        pipeline.multi()
        pipeline.get("watched")
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    assert [span.name.split()[0] for span in spans.watched] == ["WATCH", "SET", "MULTI"]
    assert {span.status.status_code for span in spans.watched} == {StatusCode.UNSET}
    client.close()


def test_scripts_that_a_pipeline_loads_are_part_of_it(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(RedisInstrumentor)
    with redis.Redis(port=port) as client, client.pipeline() as pipeline:
        client.register_script("return 7")(client=pipeline)
        assert pipeline.execute() == [7]
    assert (spans.one().attributes or {})["db.operation.name"] == "MULTI EVALSHA"


def test_messages_of_a_subscription_make_no_spans(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(RedisInstrumentor)
    with redis.Redis(port=port) as client, client.pubsub() as subscription:
        subscription.subscribe("news")
        assert subscription.get_message(timeout=5)
        client.publish("news", "one")
        assert subscription.get_message(timeout=5)
    assert (spans.one().attributes or {})["db.operation.name"] == "PUBLISH"


def test_the_wait_for_a_connection_is_recorded(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(RedisInstrumentor)
    asked = threading.Event()

    class Connections(queue.LifoQueue[Any]):
        def get(self, block: bool = True, timeout: float | None = None) -> Any:
            if self.empty():
                asked.set()
            return super().get(block, timeout)

    def give_back() -> None:
        asked.wait(10)
        time.sleep(0.03)
        holder.reset()

    pool = redis.BlockingConnectionPool(
        port=port, max_connections=1, timeout=10, queue_class=Connections
    )
    holder = redis.Redis(connection_pool=pool).pipeline()
    holder.watch("key")
    spans.clear()
    threading.Thread(target=give_back, daemon=True).start()
    redis.Redis(connection_pool=pool).ping()
    assert 0.02 < float((spans.one().attributes or {})["tracekit.pool.wait_s"]) < 5
    spans.clear()
    redis.Redis(connection_pool=pool).ping()
    assert "tracekit.pool.wait_s" not in (spans.one().attributes or {})
    pool.disconnect()


def test_the_wait_for_an_asynchronous_connection_is_recorded(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(RedisInstrumentor)

    async def wait() -> None:
        pool = redis.asyncio.BlockingConnectionPool(port=port, max_connections=1, timeout=10)
        client = redis.asyncio.Redis(connection_pool=pool)
        holder = client.pipeline()
        await holder.watch("key")
        spans.clear()
        waiting = asyncio.create_task(client.execute_command("PING"))
        await asyncio.sleep(0.05)
        await holder.reset()
        await waiting
        await pool.disconnect()

    asyncio.run(wait())
    assert 0.02 < float((spans.one().attributes or {})["tracekit.pool.wait_s"]) < 5


@pytest.fixture(scope="module")
def cluster_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A cluster of one node."""
    folder: Path = tmp_path_factory.mktemp("cluster")
    # The nodes' own port is 10,000 higher unless it is said, which may be more than there are.
    bus = ("--cluster-port", str(free_port()))
    with redis_server(folder, "--cluster-enabled", "yes", *bus) as port:
        with redis.Redis(port=port) as client:
            client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            deadline = threading.Event()
            while client.execute_command("CLUSTER INFO")["cluster_state"] != "ok":
                deadline.wait(0.02)
        yield port


class TestCluster:
    """One span for each command, whichever nodes are asked."""

    expected: ClassVar[list[str]] = ["SET", "PIPELINE GET"]

    def test_a_command_is_one_span_and_says_its_node(
        self, instrument: Instrument, spans: Spans, cluster_port: int
    ) -> None:
        client = redis.cluster.RedisCluster("127.0.0.1", cluster_port)
        instrument(RedisInstrumentor)
        client.set("key", "1")
        with client.pipeline() as pipeline:
            pipeline.get("a")
            pipeline.get("b")
            pipeline.execute()
        client.close()
        operations = [(span.attributes or {})["db.operation.name"] for span in spans.watched]
        assert operations == self.expected
        assert (spans.watched[0].attributes or {})["server.port"] == cluster_port

    @pytest.mark.skipif(
        not hasattr(redis.asyncio, "RedisCluster"), reason="redis-py before 4.3 has none"
    )
    def test_an_asynchronous_command_is_one_span_and_says_its_node(
        self, instrument: Instrument, spans: Spans, cluster_port: int
    ) -> None:
        instrument(RedisInstrumentor)

        async def send() -> None:
            client = redis.asyncio.RedisCluster("127.0.0.1", cluster_port)
            await client.initialize()
            spans.clear()
            await client.set("key", "1")
            await client.pipeline().get("a").get("b").execute()
            await close(client)

        asyncio.run(send())
        operations = [(span.attributes or {})["db.operation.name"] for span in spans.watched]
        assert operations == self.expected
        assert (spans.watched[0].attributes or {})["server.port"] == cluster_port


def test_library_that_contrib_watches_is_left_to_it(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    contrib = ContribInstrumentor()
    contrib.instrument(tracer_provider=spans.provider)
    try:
        instrumentor = instrument(RedisInstrumentor)
        with redis.Redis(port=port) as client:
            client.ping()
    finally:
        contrib.uninstrument()
    assert (
        instrumentor.status.reason == "already instrumented by opentelemetry-instrumentation-redis"
    )
    assert len(spans.watched) == 1


@pytest.mark.parametrize("order", ["before", "after"])
def test_order_of_import_and_instrumentation_does_not_matter(port: int, order: str) -> None:
    steps = ["plugin().instrument(tracer_provider=spans.provider)", "import redis, redis.asyncio"]
    program = [
        "from instrumentation.conftest import Spans",
        "from tracekit.instrumentation.redis import plugin",
        "spans = Spans()",
        *(steps if order == "before" else reversed(steps)),
        f"redis.Redis(port={port}).ping()",
        "print(len(spans.watched), spans.one().name)",
    ]
    assert run("\n".join(program)) == f"1 PING localhost:{port}"
