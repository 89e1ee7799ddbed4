"""pymongo, sync and async, against FerretDB, which serves MongoDB's protocol.

Both ways of watching are held to the same: where commands are sent, and by the library's listeners.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import pymongo
import pytest
from opentelemetry.instrumentation.pymongo import PymongoInstrumentor as ContribInstrumentor
from opentelemetry.trace import StatusCode
from pymongo import monitoring

from instrumentation import mongo_contract
from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import parent_id, run
from instrumentation.mongo_contract import Commands, Work, options
from mongo_server import MongoServer
from tracekit.instrumentation.pymongo import PymongoInstrumentor

# From 4.18 on; before, commands are sent in several places.
sends_in_one_place = pytest.mark.skipif(
    pymongo.version_tuple < (4, 18), reason="pymongo before 4.18 sends commands in several places"
)
is_asynchronous = pytest.mark.skipif(
    not hasattr(pymongo, "AsyncMongoClient"), reason="pymongo before 4.9 has no asynchronous client"
)


@pytest.fixture(scope="module")
def program(mongodb: MongoServer) -> Iterator[Any]:
    """A client that nobody watches."""
    with pymongo.MongoClient(**options(mongodb)) as client:
        yield client


@pytest.fixture
def server(mongodb: MongoServer, program: Any) -> MongoServer:
    """The server, with an empty database and no user of it."""
    program.shop.command("dropAllUsersFromDatabase")
    program.drop_database("shop")
    return mongodb


@pytest.fixture
def orders(server: MongoServer, program: Any) -> MongoServer:
    """The server, with three documents in a collection of its database."""
    program.shop.orders.insert_many([{"_id": number, "n": number} for number in (1, 2, 3)])
    return server


class TestSync(Commands):
    calls_from = mongo_contract.__file__

    def do(
        self,
        server: MongoServer,
        work: Work,
        within: AbstractContextManager[None] | None = None,
        **more: Any,
    ) -> Any:
        with pymongo.MongoClient(**options(server, **more)) as client:
            if within is None:
                return work(client)
            work(client)
            with within:
                return work(client)

    def test_a_cursor_that_is_left_half_way_is_told_no_end(
        self, instrument: Instrument, spans: Spans, orders: MongoServer
    ) -> None:
        def first(client: Any) -> Any:
            with client.shop.orders.find(batch_size=1) as cursor:
                return next(cursor)

        instrument(PymongoInstrumentor)
        assert self.do(orders, first)["n"] == 1
        assert spans.one().name == "find orders"

    def test_a_transaction_that_the_server_does_not_know_has_failed(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        def insert(client: Any) -> None:
            with client.start_session() as session, session.start_transaction():
                client.shop.orders.insert_one({"n": 1}, session=session)

        instrument(PymongoInstrumentor)
        with pytest.raises(pymongo.errors.OperationFailure):
            self.do(server, insert)
        assert [span.name for span in spans.watched] == ["insert orders", "abortTransaction admin"]
        assert {span.status.status_code for span in spans.watched} == {StatusCode.ERROR}

    def test_an_answer_that_the_library_cannot_decrypt_is_no_error_of_the_command(
        self, instrument: Instrument, spans: Spans, server: MongoServer
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
            self.do(server, work)
        assert spans.one().status.status_code is StatusCode.UNSET


@is_asynchronous
class TestAsync(Commands):
    calls_from = __file__

    def do(
        self,
        server: MongoServer,
        work: Work,
        within: AbstractContextManager[None] | None = None,
        **more: Any,
    ) -> Any:
        async def do() -> Any:
            async with pymongo.AsyncMongoClient(**options(server, **more)) as client:
                if within is None:
                    return await work(client)
                await work(client)
                with within:
                    return await work(client)

        return asyncio.run(do())

    def test_commands_of_tasks_have_the_right_parents(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        async def call(client: Any, number: int) -> None:
            with spans.tracer.start_as_current_span(str(number)):
                await client.shop[f"orders{number}"].find_one()

        def together(client: Any) -> Any:
            return asyncio.gather(*(call(client, number) for number in range(8)))

        instrument(PymongoInstrumentor)
        self.do(server, together)
        assert_parents(spans, "find orders{}", 8)

    def test_a_cancelled_command_is_no_error(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)

        def find(client: Any) -> Any:
            spans.clear()
            return asyncio.wait_for(client.shop.orders.find_one(), 0.2)

        with pytest.raises(asyncio.TimeoutError):
            self.do(server, find, server.paused())
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


@pytest.mark.usefixtures("only_listeners")
@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"errtype": "NetworkTimeout"}, "pymongo.errors.NetworkTimeout"),
        ({"errtype": "ConnectionResetError"}, "ConnectionResetError"),
        ({"errtype": None}, "_OTHER"),
        ({}, "_OTHER"),
    ],
)
def test_an_error_that_is_not_the_librarys_is_not_named_as_if_it_were(
    instrument: Instrument, spans: Spans, told: dict[str, Any], expected: str
) -> None:
    instrument(PymongoInstrumentor)
    listener: Any = monitoring._LISTENERS.command_listeners[-1]
    listener.started(monitoring.CommandStartedEvent({"ping": 1}, "shop", 1, ("h", 1), 1))
    listener.failed(monitoring.CommandFailedEvent(timedelta(), told, "ping", 1, ("h", 1), 1))
    assert (spans.one().attributes or {})["error.type"] == expected


def test_commands_at_the_same_time_have_the_right_parents(
    instrument: Instrument, spans: Spans, server: MongoServer
) -> None:
    instrument(PymongoInstrumentor)

    def call(client: Any, number: int) -> None:
        with spans.tracer.start_as_current_span(str(number)):
            client.shop[f"orders{number}"].insert_one({})

    with pymongo.MongoClient(**options(server)) as client:
        threads = [threading.Thread(target=call, args=(client, number)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert_parents(spans, "insert orders{}", 8)


def assert_parents(spans: Spans, name: str, count: int) -> None:
    """Check that the span of each command is below the program's of the same number."""
    by_id = {span.context.span_id: span for span in spans.ended}
    for span in spans.watched:
        assert span.name == name.format(by_id[parent_id(span) or 0].name)
    assert len(spans.watched) == count


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
    instrument: Instrument, spans: Spans, server: MongoServer
) -> None:
    with pymongo.MongoClient(**options(server)) as client:
        instrument(PymongoInstrumentor)
        client.shop.command("ping")
    assert spans.one().name == "ping shop"


@sends_in_one_place
def test_the_library_makes_no_events_for_it(
    instrument: Instrument, server: MongoServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[object] = []
    monkeypatch.setattr(monitoring, "CommandStartedEvent", lambda *told, **_: events.append(told))
    # Of one that OpenTelemetry's instrumentation has registered, there is no end.
    nobody = monitoring._LISTENERS._replace(command_listeners=[])
    monkeypatch.setattr(monitoring, "_LISTENERS", nobody)
    instrument(PymongoInstrumentor)
    with pymongo.MongoClient(**options(server)) as client:
        client.shop.command("ping")
    assert events == []


@sends_in_one_place
def test_a_listener_of_the_programs_is_told_what_it_would_be(
    instrument: Instrument, spans: Spans, server: MongoServer
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
    with pymongo.MongoClient(**options(server), event_listeners=[Listener()]) as client:
        client.shop.command("ping")
    # It is also told how the client logs in.
    assert [each for each in told if each[1] == "ping"] == [
        ("started", "ping"),
        ("succeeded", "ping"),
    ]
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
    instrument: Instrument, spans: Spans, server: MongoServer
) -> None:
    before, entries = list(monitoring._LISTENERS.command_listeners), dict(vars(monitoring))
    instrumentor = instrument(PymongoInstrumentor)
    assert instrumentor.status.active
    assert len(monitoring._LISTENERS.command_listeners) == len(before) + 1
    with pymongo.MongoClient(**options(server)) as client:
        instrumentor.uninstrument()
        client.shop.command("ping")
    assert monitoring._LISTENERS.command_listeners == before
    assert dict(vars(monitoring)) == entries
    assert spans.ended == []


def test_instrumenting_twice_makes_one_span(
    instrument: Instrument, spans: Spans, server: MongoServer
) -> None:
    instrument(PymongoInstrumentor).instrument(tracer_provider=spans.provider)
    instrument(PymongoInstrumentor)
    TestSync().do(server, lambda client: client.shop.command("ping"))
    assert len(spans.watched) == 1


def test_library_that_contrib_watches_is_left_to_it(
    instrument: Instrument, spans: Spans, server: MongoServer
) -> None:
    contrib = ContribInstrumentor()
    contrib.instrument(tracer_provider=spans.provider)
    try:
        instrumentor = instrument(PymongoInstrumentor)
        TestSync().do(server, lambda client: client.shop.orders.insert_one({}))
    finally:
        contrib.uninstrument()
    reason = "already instrumented by opentelemetry-instrumentation-pymongo"
    assert instrumentor.status.reason == reason
    # It watches how the client logs in, too.
    assert [span.name for span in spans.watched if span.name.endswith("insert")] == ["shop.insert"]
    assert not any(span.name.startswith("insert") for span in spans.watched)


@pytest.mark.parametrize("order", ["before", "after"])
def test_order_of_import_and_instrumentation_does_not_matter(
    server: MongoServer, order: str
) -> None:
    steps = ["plugin().instrument(tracer_provider=spans.provider)", "import pymongo"]
    program = [
        "from instrumentation.conftest import Spans",
        "from tracekit.instrumentation.pymongo import plugin",
        "spans = Spans()",
        *(steps if order == "before" else reversed(steps)),
        f"with pymongo.MongoClient(**{server.where()}) as client:",
        "    client.shop.command('ping')",
        "print(*(span.name for span in spans.watched))",
    ]
    assert run("\n".join(program)) == "ping shop"
