"""pymongo, sync and async, against a server of its wire protocol.

Both ways of watching are held to the same: where commands are sent, and by the library's listeners.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest
from opentelemetry import context as otel_context
from opentelemetry.instrumentation.pymongo import PymongoInstrumentor as ContribInstrumentor
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from pymongo import WriteConcern, monitoring
from pymongo.server_api import ServerApi

from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import BrokenProvider, parent_id, raise_error, run
from mongo_server import mongo_server
from tracekit.instrumentation.pymongo import PymongoInstrumentor

Work = Callable[[Any], Any]

# From 4.18 on; before, commands are sent in several places.
sends_in_one_place = pytest.mark.skipif(
    pymongo.version_tuple < (4, 18), reason="pymongo before 4.18 sends commands in several places"
)
is_asynchronous = pytest.mark.skipif(
    not hasattr(pymongo, "AsyncMongoClient"), reason="pymongo before 4.9 has no asynchronous client"
)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with mongo_server() as port:
        yield port


def options(port: int, **more: Any) -> dict[str, Any]:
    return {
        "host": "127.0.0.1",
        "port": port,
        "server_api": ServerApi("1"),
        "retryReads": False,
        "retryWrites": False,
        "serverSelectionTimeoutMS": 5000,
        **more,
    }


def all_of(cursor: Any) -> Any:
    """Return what is awaited by a client that is asynchronous; the method is there from 4.9 on."""
    return cursor.to_list() if hasattr(cursor, "to_list") else list(cursor)


class Commands:
    """What both clients are asked; `work` gets a client, and answers what is to be awaited."""

    def do(self, port: int, work: Work, **more: Any) -> Any:
        raise NotImplementedError

    def test_a_command_is_one_span(self, instrument: Instrument, spans: Spans, port: int) -> None:
        instrument(PymongoInstrumentor)
        self.do(port, lambda client: client.shop.orders.insert_one({"secret": "s3cret"}))
        span = spans.one()
        assert (span.name, span.kind) == ("insert orders", SpanKind.CLIENT)
        told = dict(span.attributes or {})
        assert told.pop("code.file.path") == __file__
        assert "test_pymongo" in str(told.pop("code.function.name"))
        assert isinstance(told.pop("code.line.number"), int)
        assert told == {
            "db.system.name": "mongodb",
            "db.operation.name": "insert",
            "db.namespace": "shop",
            "db.collection.name": "orders",
            "server.address": "127.0.0.1",
            "server.port": port,
        }
        assert "s3cret" not in str(told)
        assert span.status.status_code is StatusCode.UNSET

    def test_a_batch_says_its_size(self, instrument: Instrument, spans: Spans, port: int) -> None:
        instrument(PymongoInstrumentor)
        self.do(port, lambda client: client.shop.orders.insert_many([{"n": 1}, {"n": 2}, {"n": 3}]))
        assert (spans.one().attributes or {})["db.operation.batch.size"] == 3

    def test_an_unacknowledged_batch_says_its_size(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(PymongoInstrumentor)
        documents = [{"n": 1}, {"n": 2}]

        def insert(client: Any) -> Any:
            orders = client.shop.get_collection("orders", write_concern=WriteConcern(w=0))
            return orders.insert_many(documents)

        self.do(port, insert)
        assert spans.one().name == "insert orders"
        assert (spans.one().attributes or {})["db.operation.batch.size"] == 2

    def test_what_a_cursor_fetches_later_is_a_span(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(PymongoInstrumentor)
        found = self.do(port, lambda client: all_of(client.shop.orders.find()))
        assert [document["n"] for document in found] == [1, 2, 3]
        assert [span.name for span in spans.watched] == ["find orders", "getMore orders"]

    def test_a_command_to_a_database_is_named_for_it(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(PymongoInstrumentor)
        self.do(port, lambda client: client.shop.command("ping"))
        assert spans.one().name == "ping shop"
        assert "db.collection.name" not in (spans.one().attributes or {})

    def test_who_a_user_is_is_not_told(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(PymongoInstrumentor)
        self.do(port, lambda client: client.shop.command("createUser", "ann", pwd="s3cret"))
        assert spans.one().name == "createUser shop"
        assert "ann" not in str(spans.one().to_json())

    @pytest.mark.parametrize(("collection", "code"), [("refused", "13"), ("twice", "11000")])
    def test_an_error_of_the_server_is_told_by_its_code(
        self, instrument: Instrument, spans: Spans, port: int, collection: str, code: str
    ) -> None:
        instrument(PymongoInstrumentor)
        with pytest.raises(pymongo.errors.OperationFailure):
            self.do(port, lambda client: client.shop[collection].insert_one({"n": 1}))
        span = spans.one()
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["db.response.status_code"] == code
        assert (span.attributes or {})["error.type"] == code

    @pytest.mark.parametrize(
        ("collection", "error", "more"),
        [("dropped", "AutoReconnect", {}), ("slow", "NetworkTimeout", {"socketTimeoutMS": 300})],
    )
    def test_a_lost_connection_and_a_timeout_are_the_librarys_errors(
        self,
        instrument: Instrument,
        spans: Spans,
        port: int,
        collection: str,
        error: str,
        more: Any,
    ) -> None:
        instrument(PymongoInstrumentor)
        with pytest.raises(getattr(pymongo.errors, error)):
            self.do(port, lambda client: client.shop[collection].find_one(), **more)
        assert (spans.one().attributes or {})["error.type"] == f"pymongo.errors.{error}"
        assert "db.response.status_code" not in (spans.one().attributes or {})

    def test_it_is_below_the_span_that_is_current(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(PymongoInstrumentor)
        with spans.tracer.start_as_current_span("caller") as caller:
            self.do(port, lambda client: client.shop.command("ping"))
        assert parent_id(spans.one()) == caller.get_span_context().span_id

    def test_below_an_unsampled_parent_nothing_is_recorded(
        self, instrument: Instrument, port: int
    ) -> None:
        spans = Spans(ALWAYS_OFF)
        instrument(PymongoInstrumentor, tracer_provider=spans.provider)
        with spans.tracer.start_as_current_span("off"):
            self.do(port, lambda client: client.shop.command("ping"))
        assert spans.ended == []

    def test_a_suppressed_command_has_no_span(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(PymongoInstrumentor)
        token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
        try:
            self.do(port, lambda client: client.shop.command("ping"))
        finally:
            otel_context.detach(token)
        assert spans.ended == []

    def test_a_provider_that_raises_does_not_break_the_call(
        self, instrument: Instrument, port: int, capfd: pytest.CaptureFixture[str]
    ) -> None:
        instrument(PymongoInstrumentor, tracer_provider=BrokenProvider())
        assert self.do(port, lambda client: client.shop.command("ping"))["ok"]
        assert "Traceback" not in capfd.readouterr().err

    @pytest.mark.parametrize("broken", ["set_attribute", "end"])
    def test_a_span_that_raises_does_not_break_the_call(
        self,
        instrument: Instrument,
        spans: Spans,
        port: int,
        monkeypatch: pytest.MonkeyPatch,
        broken: str,
    ) -> None:
        instrument(PymongoInstrumentor)
        monkeypatch.setattr(f"opentelemetry.sdk.trace.Span.{broken}", raise_error)
        assert self.do(port, lambda client: client.shop.command("ping"))["ok"]

    def test_a_name_of_a_megabyte_is_bounded(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(PymongoInstrumentor)
        self.do(port, lambda client: client.shop.command("x" * 2**20, b"\xff"))
        assert len(spans.one().name) < 300


class TestSync(Commands):
    def do(self, port: int, work: Work, **more: Any) -> Any:
        with pymongo.MongoClient(**options(port, **more)) as client:
            return work(client)

    def test_an_answer_that_the_library_cannot_decrypt_is_no_error_of_the_command(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        class Encrypter:
            _bypass_auto_encryption = True

            def decrypt(self, _answer: bytes) -> bytes:
                raise pymongo.errors.EncryptionError(ValueError("no such key"))

            def close(self) -> None:
                """Have nothing to close."""

        def work(client: Any) -> None:
            client._encrypter = Encrypter()
            client.shop.command("ping")

        instrument(PymongoInstrumentor)
        with pytest.raises(pymongo.errors.EncryptionError):
            self.do(port, work)
        assert spans.one().status.status_code is StatusCode.UNSET


@is_asynchronous
class TestAsync(Commands):
    def do(self, port: int, work: Work, **more: Any) -> Any:
        async def do() -> Any:
            async with pymongo.AsyncMongoClient(**options(port, **more)) as client:
                return await work(client)

        return asyncio.run(do())

    def test_a_cancelled_command_is_no_error(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(PymongoInstrumentor)

        async def cancel() -> None:
            async with pymongo.AsyncMongoClient(**options(port)) as client:
                await asyncio.wait_for(client.shop.slow.find_one(), 0.1)

        with pytest.raises(asyncio.TimeoutError):
            asyncio.run(cancel())
        assert spans.one().status.status_code is StatusCode.UNSET


@pytest.fixture
def only_listeners(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a library of which nothing but its listeners is as it was expected."""
    monkeypatch.setattr("tracekit.instrumentation.pymongo._runners", lambda: None)


@pytest.mark.usefixtures("only_listeners")
class TestSyncByListeners(TestSync):
    pass


@is_asynchronous
@pytest.mark.usefixtures("only_listeners")
class TestAsyncByListeners(TestAsync):
    pass


@pytest.mark.usefixtures("only_listeners")
def test_commands_whose_end_is_not_told_are_ended_when_there_are_too_many(
    instrument: Instrument, spans: Spans, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracekit.instrumentation._mongo_listener._MOST_UNDER_WAY", 2)
    instrument(PymongoInstrumentor)
    listener: Any = monitoring._LISTENERS.command_listeners[-1]
    for number in range(5):
        listener.started(
            monitoring.CommandStartedEvent({"ping": 1}, "shop", number, ("h", 1), number)
        )
    assert len(spans.watched) == 3


def test_commands_at_the_same_time_have_the_right_parents(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(PymongoInstrumentor)

    def call(client: Any, number: int) -> None:
        with spans.tracer.start_as_current_span(str(number)):
            client.shop[f"orders{number}"].insert_one({})

    with pymongo.MongoClient(**options(port)) as client:
        threads = [threading.Thread(target=call, args=(client, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    by_id = {span.context.span_id: span for span in spans.ended}
    for span in spans.watched:
        assert span.name == f"insert orders{by_id[parent_id(span) or 0].name}"
    assert len(spans.watched) == 8


@sends_in_one_place
@pytest.mark.parametrize("half", ["synchronous", "asynchronous"])
def test_uninstrumented_library_is_as_it_was(instrument: Instrument, half: str) -> None:
    runner = importlib.import_module(f"pymongo.{half}.command_runner")
    before, listeners = dict(vars(runner)), dict(vars(monitoring))
    instrumentor = instrument(PymongoInstrumentor)
    assert instrumentor.status.active
    replaced = runner._run_command
    assert replaced is not before["_run_command"]
    assert inspect.signature(replaced) == inspect.signature(before["_run_command"])
    instrumentor.uninstrument()
    assert dict(vars(runner)) == before
    assert dict(vars(monitoring)) == listeners


@sends_in_one_place
def test_a_client_that_was_made_before_is_watched(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    with pymongo.MongoClient(**options(port)) as client:
        instrument(PymongoInstrumentor)
        client.shop.command("ping")
    assert spans.one().name == "ping shop"


@sends_in_one_place
def test_the_library_makes_no_events_for_it(
    instrument: Instrument, port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []
    monkeypatch.setattr(monitoring, "CommandStartedEvent", lambda *told, **_: events.append(told))
    # Of one that OpenTelemetry's instrumentation has registered, there is no end.
    nobody = monitoring._LISTENERS._replace(command_listeners=[])
    monkeypatch.setattr(monitoring, "_LISTENERS", nobody)
    instrument(PymongoInstrumentor)
    with pymongo.MongoClient(**options(port)) as client:
        client.shop.command("ping")
    assert events == []


@sends_in_one_place
def test_a_listener_of_the_programs_is_told_what_it_would_be(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    told: list[tuple[str, str]] = []

    class Listener(monitoring.CommandListener):
        def started(self, event: Any) -> None:
            told.append(("started", event.command_name))

        def succeeded(self, event: Any) -> None:
            told.append(("succeeded", event.command_name))

        def failed(self, event: Any) -> None:
            told.append(("failed", event.command_name))

    instrument(PymongoInstrumentor)
    with pymongo.MongoClient(**options(port), event_listeners=[Listener()]) as client:
        client.shop.command("ping")
    assert told == [("started", "ping"), ("succeeded", "ping")]
    assert spans.one().name == "ping shop"


@sends_in_one_place
@pytest.mark.parametrize(
    "other",
    [lambda conn, cmd, **_: None, lambda conn, cmd, dbname, listeners, orig: None, None],
    ids=["other parameters", "another purpose", "no function"],
)
def test_where_commands_are_sent_in_another_way_the_listeners_are_joined(
    instrument: Instrument, monkeypatch: pytest.MonkeyPatch, other: Any
) -> None:
    runner = importlib.import_module("pymongo.asynchronous.command_runner")
    monkeypatch.setattr(runner, "_run_command", other)
    before = list(monitoring._LISTENERS.command_listeners)
    assert instrument(PymongoInstrumentor).status.active
    assert runner._run_command is other
    assert len(monitoring._LISTENERS.command_listeners) == len(before) + 1


@pytest.mark.usefixtures("only_listeners")
def test_a_listener_that_a_client_keeps_tells_nothing_afterwards(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    before, entries = list(monitoring._LISTENERS.command_listeners), dict(vars(monitoring))
    instrumentor = instrument(PymongoInstrumentor)
    assert instrumentor.status.active
    assert len(monitoring._LISTENERS.command_listeners) == len(before) + 1
    with pymongo.MongoClient(**options(port)) as client:
        instrumentor.uninstrument()
        client.shop.command("ping")
    assert monitoring._LISTENERS.command_listeners == before
    assert dict(vars(monitoring)) == entries
    assert spans.ended == []


def test_instrumenting_twice_makes_one_span(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    instrument(PymongoInstrumentor).instrument(tracer_provider=spans.provider)
    instrument(PymongoInstrumentor)
    TestSync().do(port, lambda client: client.shop.command("ping"))
    assert len(spans.watched) == 1


def test_library_that_contrib_watches_is_left_to_it(
    instrument: Instrument, spans: Spans, port: int
) -> None:
    contrib = ContribInstrumentor()
    contrib.instrument(tracer_provider=spans.provider)
    try:
        instrumentor = instrument(PymongoInstrumentor)
        TestSync().do(port, lambda client: client.shop.orders.insert_one({}))
    finally:
        contrib.uninstrument()
    reason = "already instrumented by opentelemetry-instrumentation-pymongo"
    assert instrumentor.status.reason == reason
    assert len(spans.watched) == 1


@pytest.mark.parametrize("order", ["before", "after"])
def test_order_of_import_and_instrumentation_does_not_matter(port: int, order: str) -> None:
    steps = ["plugin().instrument(tracer_provider=spans.provider)", "import pymongo"]
    program = [
        "from instrumentation.conftest import Spans",
        "from tracekit.instrumentation.pymongo import plugin",
        "spans = Spans()",
        *(steps if order == "before" else reversed(steps)),
        "from pymongo.server_api import ServerApi",
        f"with pymongo.MongoClient('127.0.0.1', {port}, server_api=ServerApi('1')) as client:",
        "    client.shop.command('ping')",
        "print(*(span.name for span in spans.watched))",
    ]
    assert run("\n".join(program)) == "ping shop"
