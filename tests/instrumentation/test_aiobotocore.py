"""aiobotocore against moto's server on loopback: the contract of clients of AWS, twice.

It wants a botocore of its own, older than the newest one that the other tests run on, so here it
is skipped: ``python tests/compat/matrix.py aiobotocore`` installs it into a folder and runs these.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from instrumentation.aws_contract import AwsContract, attempts, calls
from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import parent_id, run
from tracekit.instrumentation.aiobotocore import AiobotocoreInstrumentor
from tracekit.instrumentation.aiohttp_client import AiohttpClientInstrumentor
from tracekit.instrumentation.httpx import HttpxInstrumentor

aiobotocore: Any = pytest.importorskip(
    "aiobotocore", reason="aiobotocore wants an older botocore; see tests/compat/matrix.py"
)


def _part(name: str) -> Any:
    return importlib.import_module(f"aiobotocore.{name}")


class _Client:
    """A client whose calls are run to their end."""

    def __init__(self, loop: asyncio.AbstractEventLoop, client: Any) -> None:
        self.loop = loop
        self.client = client

    def __getattr__(self, name: str) -> Any:
        return lambda **params: self.loop.run_until_complete(_asked(self.client, name, params))


async def _asked(client: Any, name: str, params: Any) -> Any:
    return await getattr(client, name)(**params)


class AiobotocoreContract(AwsContract):
    plugin = AiobotocoreInstrumentor
    calls_from = __file__
    calls_in = "_asked"

    def more_config(self) -> dict[str, Any]:
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def loop(self) -> Iterator[None]:
        self._loop = asyncio.new_event_loop()
        self._open = contextlib.AsyncExitStack()
        yield
        self._loop.run_until_complete(self._open.aclose())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()

    def client(self, service: str, endpoint: str, **config: Any) -> Any:
        config = {"retries": {"total_max_attempts": 1}, **self.more_config(), **config}
        opening = (
            _part("session")
            .get_session()
            .create_client(
                service,
                region_name="eu-north-1",
                endpoint_url=endpoint,
                config=_part("config").AioConfig(**config),
            )
        )
        made = self._loop.run_until_complete(self._open.enter_async_context(opening))
        return _Client(self._loop, made)

    def before_each_call(self, client: Any, do: Callable[[], Any]) -> None:
        asked: Any = do.__closure__  # the name of the call and its client

        async def ask(**_event: Any) -> None:
            name, other = (cell.cell_contents for cell in asked)
            with contextlib.suppress(ClientError):
                await _asked(other.client, name, {})

        client.client.meta.events.register("before-call", ask)

    def test_calls_at_the_same_time_have_the_right_parents(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        instrument(self.plugin)
        s3 = self.client("s3", endpoint)

        async def call(number: int) -> None:
            with (
                contextlib.suppress(ClientError),
                spans.tracer.start_as_current_span(str(number)),
            ):
                await s3.client.get_object(Bucket="none", Key=str(number))

        async def call_all() -> None:
            await asyncio.gather(*map(call, range(6)))

        self._loop.run_until_complete(call_all())
        by_id = {span.context.span_id: span for span in spans.ended}
        for span in calls(spans):
            assert by_id[parent_id(span) or 0].name == (span.attributes or {})["aws.s3.key"]
        for span in attempts(spans):
            assert str((span.attributes or {})["url.full"]).endswith(
                str((by_id[parent_id(span) or 0].attributes or {})["aws.s3.key"])
            )
        assert (len(calls(spans)), len(attempts(spans))) == (6, 6)

    def test_a_call_that_is_cancelled_ends_its_spans(
        self, instrument: Instrument, spans: Spans, server: Any
    ) -> None:
        instrument(self.plugin)
        sqs = self.client("sqs", f"{server.url}/slow")

        async def give_up() -> None:
            task = asyncio.ensure_future(_asked(sqs.client, "list_queues", {}))
            while not attempts_begun():
                await asyncio.sleep(0.01)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

        def attempts_begun() -> bool:
            return bool(server.received)

        self._loop.run_until_complete(give_up())
        (call,), (attempt,) = calls(spans), attempts(spans)
        assert call.status.is_unset
        assert attempt.status.is_unset

    def test_what_sends_its_requests_makes_no_spans_of_them(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        instrument(AiohttpClientInstrumentor)
        instrument(HttpxInstrumentor)
        instrument(self.plugin)
        self.client("s3", endpoint).list_buckets()
        assert [span.name for span in spans.watched] == ["S3.ListBuckets", "GET"]

    def test_a_stream_is_read_after_its_attempt(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        s3 = self.client("s3", endpoint)
        place = {"LocationConstraint": "eu-north-1"}
        s3.create_bucket(Bucket="streams", CreateBucketConfiguration=place)
        s3.put_object(Bucket="streams", Key="k", Body=b"x" * 2**22)
        instrument(self.plugin)

        async def read() -> tuple[int, int]:
            response = await s3.client.get_object(Bucket="streams", Key="k")
            ended = len(spans.ended)
            async with response["Body"] as body:
                return ended, len(await body.read())

        assert self._loop.run_until_complete(read()) == (2, 2**22)
        (attempt,) = attempts(spans)
        assert (attempt.attributes or {})["network.protocol.version"] == "1.1"
        assert (attempt.attributes or {})["network.peer.address"] == "127.0.0.1"


class TestOverAiohttp(AiobotocoreContract):
    def more_config(self) -> dict[str, Any]:
        return {}

    def test_library_that_contrib_watches_is_left_to_it(
        self, instrument: Instrument, spans: Spans, endpoint: str
    ) -> None:
        from opentelemetry.instrumentation.botocore import AiobotocoreInstrumentor as Contrib

        contrib = Contrib()
        contrib.instrument(tracer_provider=spans.provider)
        try:
            instrumentor = instrument(self.plugin)
            self.client("s3", endpoint).list_buckets()
        finally:
            _uninstrument(contrib)
        assert instrumentor.status.reason.startswith("already instrumented by ")
        assert len(spans.watched) == 1

    @pytest.mark.parametrize("order", ["before", "after"])
    def test_order_of_import_and_instrumentation_does_not_matter(
        self, endpoint: str, order: str
    ) -> None:
        steps = [
            "plugin().instrument(tracer_provider=spans.provider)",
            "import aiobotocore.session",
        ]
        program = [
            "import asyncio",
            "from instrumentation.conftest import Spans",
            "from tracekit.instrumentation.aiobotocore import plugin",
            "spans = Spans()",
            *(steps if order == "before" else reversed(steps)),
            "keys = dict(aws_access_key_id='x', aws_secret_access_key='x', region_name='x-y-1')",
            "async def main():",
            "    session = aiobotocore.session.get_session()",
            f"    async with session.create_client('s3', endpoint_url={endpoint!r}, **keys) as s3:",
            "        await s3.list_buckets()",
            "asyncio.run(main())",
            "print(*(span.name for span in spans.watched))",
        ]
        assert run("\n".join(program)) == "S3.ListBuckets GET"


def _uninstrument(contrib: Any) -> None:
    """Take OpenTelemetry's off by hand: its own names a module that there is not."""
    from botocore.endpoint import Endpoint
    from opentelemetry.instrumentation.utils import unwrap

    unwrap(_part("client").AioBaseClient, "_make_api_call")
    unwrap(Endpoint, "prepare_request")
    contrib._is_instrumented_by_opentelemetry = False


# It prefers a fork of httpx, which is used alike.
@pytest.mark.filterwarnings("ignore:aiobotocore's httpx backend:DeprecationWarning")
class TestOverHttpx(AiobotocoreContract):
    def more_config(self) -> dict[str, Any]:
        pytest.importorskip("aiobotocore.httpxsession")
        return {"http_session_cls": _part("httpxsession").HttpxSession}
