"""What clients of MongoDB are asked, against a real server; synchronous and asynchronous."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pymongo
import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from pymongo import DeleteOne, IndexModel, InsertOne, UpdateOne, WriteConcern

from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import BrokenProvider, parent_id, raise_error
from mongo_server import MongoServer
from tracekit.instrumentation.pymongo import PymongoInstrumentor

__all__ = ["Commands", "Work", "all_of", "options"]

Work = Callable[[Any], Any]
"""Gets a client; answers what is to be awaited, where that is asynchronous."""


def options(server: MongoServer, **more: Any) -> dict[str, Any]:
    return {**server.where(), "retryReads": False, "serverSelectionTimeoutMS": 5000, **more}


def all_of(cursor: Any) -> Any:
    """Return what is awaited by a client that is asynchronous; the method is there from 4.9 on."""
    return cursor.to_list() if hasattr(cursor, "to_list") else list(cursor)


OPERATIONS: dict[str, tuple[Work, str]] = {
    "find_one": (lambda orders: orders.find_one({"n": 1}), "find orders"),
    "update_many": (lambda orders: orders.update_many({}, {"$inc": {"n": 1}}), "update orders"),
    "replace_one": (lambda orders: orders.replace_one({"n": 1}, {"n": 9}), "update orders"),
    "delete_one": (lambda orders: orders.delete_one({"n": 1}), "delete orders"),
    "find_one_and_update": (
        lambda orders: orders.find_one_and_update({"n": 1}, {"$set": {"n": 9}}),
        "findAndModify orders",
    ),
    "count_documents": (lambda orders: orders.count_documents({}), "aggregate orders"),
    "distinct": (lambda orders: orders.distinct("n"), "distinct orders"),
    "create_indexes": (
        lambda orders: orders.create_indexes([IndexModel("n")]),
        "createIndexes orders",
    ),
    "drop": (lambda orders: orders.drop(), "drop orders"),
    "list_collection_names": (
        lambda orders: orders.database.list_collection_names(),
        "listCollections shop",
    ),
}
"""What a collection is asked, and the name of the one span that it is."""

REFUSED: dict[str, tuple[Work, str]] = {
    "a key that is there": (lambda orders: orders.insert_one({"_id": 1}), "11000"),
    "an operator that is none": (lambda orders: orders.update_one({}, {"$no": {"n": 1}}), "9"),
    "a collection that is not there": (lambda orders: orders.database.none.rename("new"), "26"),
    "a command that is none": (lambda orders: orders.database.command("none"), "59"),
}
"""What the server refuses, and its number for that."""


class Commands:
    """What both clients are asked."""

    calls_from: str
    """The file that a call comes from."""

    def do(
        self,
        server: MongoServer,
        work: Work,
        within: AbstractContextManager[None] | None = None,
        **more: Any,
    ) -> Any:
        """Work with a client of its own, whose options are `more`; return what came of it.

        Args:
            within: What the work is done in a second time.
        """
        raise NotImplementedError

    # What a span says

    def test_a_command_is_one_span(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        self.do(server, lambda client: client.shop.orders.insert_one({"secret": "s3cret"}))
        span = spans.one()
        assert (span.name, span.kind) == ("insert orders", SpanKind.CLIENT)
        told = dict(span.attributes or {})
        assert told.pop("code.file.path") == self.calls_from
        assert isinstance(told.pop("code.function.name"), str)
        assert isinstance(told.pop("code.line.number"), int)
        assert told == {
            "db.system.name": "mongodb",
            "db.operation.name": "insert",
            "db.namespace": "shop",
            "db.collection.name": "orders",
            "server.address": "127.0.0.1",
            "server.port": server.port,
        }
        assert "s3cret" not in str(told)
        assert span.status.status_code is StatusCode.UNSET

    @pytest.mark.parametrize("name", OPERATIONS)
    def test_an_operation_is_one_span(
        self, instrument: Instrument, spans: Spans, orders: MongoServer, name: str
    ) -> None:
        work, expected = OPERATIONS[name]
        instrument(PymongoInstrumentor)
        self.do(orders, lambda client: work(client.shop.orders))
        assert spans.one().name == expected
        assert spans.one().status.status_code is StatusCode.UNSET

    def test_who_logs_in_is_no_span(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        self.do(server, lambda client: client.shop.command("connectionStatus"))
        assert spans.one().name == "connectionStatus shop"
        assert server.where()["password"] not in str(spans.one().to_json())

    def test_a_command_to_a_database_is_named_for_it(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        self.do(server, lambda client: client.shop.command("ping"))
        assert spans.one().name == "ping shop"
        assert "db.collection.name" not in (spans.one().attributes or {})

    def test_who_a_user_is_is_not_told(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)

        def create(client: Any) -> Any:
            return client.shop.command("createUser", "ann", pwd="s3cret", roles=[])

        self.do(server, create)
        assert spans.one().name == "createUser shop"
        assert "ann" not in str(spans.one().to_json())

    def test_a_name_of_a_megabyte_is_bounded(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        with pytest.raises(pymongo.errors.OperationFailure):
            self.do(server, lambda client: client.shop.command("x" * 2**20, b"\xff"))
        assert len(spans.one().name) < 300
        assert len(spans.one().to_json()) < 10_000

    # Several at once, and in parts

    def test_a_batch_says_its_size(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        self.do(
            server, lambda client: client.shop.orders.insert_many([{"n": 1}, {"n": 2}, {"n": 3}])
        )
        assert (spans.one().attributes or {})["db.operation.batch.size"] == 3

    def test_a_bulk_of_writes_is_a_span_for_each_kind(
        self, instrument: Instrument, spans: Spans, orders: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        writes = [
            *(InsertOne({"n": number}) for number in (4, 5)),
            *(UpdateOne({"n": number}, {"$set": {"sent": True}}) for number in (1, 2, 3)),
            DeleteOne({"n": 4}),
        ]
        done = self.do(orders, lambda client: client.shop.orders.bulk_write(writes))
        assert (done.inserted_count, done.modified_count, done.deleted_count) == (2, 3, 1)
        sizes = [
            (span.name, (span.attributes or {}).get("db.operation.batch.size"))
            for span in spans.watched
        ]
        assert sizes == [("insert orders", 2), ("update orders", 3), ("delete orders", None)]

    def test_an_unacknowledged_batch_says_its_size(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        documents = [{"n": 1}, {"n": 2}]

        def insert(client: Any) -> Any:
            # No other test looks into it: nobody knows when they are there.
            events = client.shop.get_collection("events", write_concern=WriteConcern(w=0))
            return events.insert_many(documents)

        self.do(server, insert)
        assert spans.one().name == "insert events"
        assert (spans.one().attributes or {})["db.operation.batch.size"] == 2

    def test_what_a_cursor_fetches_later_is_a_span(
        self, instrument: Instrument, spans: Spans, orders: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        found = self.do(orders, lambda client: all_of(client.shop.orders.find(batch_size=2)))
        assert [document["n"] for document in found] == [1, 2, 3]
        assert [span.name for span in spans.watched] == ["find orders", "getMore orders"]

    # What goes wrong

    @pytest.mark.parametrize("name", REFUSED)
    def test_an_error_of_the_server_is_told_by_its_code(
        self, instrument: Instrument, spans: Spans, orders: MongoServer, name: str
    ) -> None:
        work, code = REFUSED[name]
        instrument(PymongoInstrumentor)
        with pytest.raises(pymongo.errors.OperationFailure):
            self.do(orders, lambda client: work(client.shop.orders))
        assert_failed(spans, code)

    def test_a_client_that_did_not_log_in_is_refused(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        with pytest.raises(pymongo.errors.OperationFailure):
            self.do(
                server,
                lambda client: client.shop.orders.find_one(),
                username=None,
                password=None,
            )
        assert_failed(spans, "13")

    def test_a_batch_of_which_a_part_is_refused_has_failed(
        self, instrument: Instrument, spans: Spans, orders: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        documents = [{"_id": 4}, {"_id": 1}, {"_id": 5}]
        with pytest.raises(pymongo.errors.BulkWriteError):
            self.do(orders, lambda client: client.shop.orders.insert_many(documents, ordered=False))
        assert_failed(spans, "11000")
        assert (spans.one().attributes or {})["db.operation.batch.size"] == 3

    def test_a_lost_connection_is_the_librarys_error(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        with pytest.raises(pymongo.errors.AutoReconnect):
            # The server's own way to have what serves a connection break down.
            self.do(server, lambda client: client.shop.command("debugError", "panic"))
        told = {"pymongo.errors.AutoReconnect"}
        if pymongo.version_tuple < (4, 18):  # listeners are told what the library makes it of
            told.add("OSError")
        assert failure_on_the_way(spans) in told

    def test_a_timeout_is_the_librarys_error(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        def find(client: Any) -> Any:
            spans.clear()
            return client.shop.orders.find_one()

        instrument(PymongoInstrumentor)
        with pytest.raises(pymongo.errors.NetworkTimeout):
            self.do(server, find, server.paused(), socketTimeoutMS=300)
        assert failure_on_the_way(spans) == "pymongo.errors.NetworkTimeout"

    # Whom it belongs to

    def test_it_is_below_the_span_that_is_current(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        with spans.tracer.start_as_current_span("caller") as caller:
            self.do(server, lambda client: client.shop.command("ping"))
        assert parent_id(spans.one()) == caller.get_span_context().span_id

    def test_below_an_unsampled_parent_nothing_is_recorded(
        self, instrument: Instrument, server: MongoServer
    ) -> None:
        spans = Spans(ALWAYS_OFF)
        instrument(PymongoInstrumentor, tracer_provider=spans.provider)
        with spans.tracer.start_as_current_span("off"):
            self.do(server, lambda client: client.shop.command("ping"))
        assert spans.ended == []

    def test_a_suppressed_command_has_no_span(
        self, instrument: Instrument, spans: Spans, server: MongoServer
    ) -> None:
        instrument(PymongoInstrumentor)
        token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
        try:
            self.do(server, lambda client: client.shop.command("ping"))
        finally:
            otel_context.detach(token)
        assert spans.ended == []

    # What must not reach the program

    def test_a_provider_that_raises_does_not_break_the_call(
        self, instrument: Instrument, server: MongoServer, capfd: pytest.CaptureFixture[str]
    ) -> None:
        instrument(PymongoInstrumentor, tracer_provider=BrokenProvider())
        assert self.do(server, lambda client: client.shop.command("ping"))["ok"]
        assert "Traceback" not in capfd.readouterr().err

    @pytest.mark.parametrize("broken", ["set_attribute", "end"])
    def test_a_span_that_raises_does_not_break_the_call(
        self,
        instrument: Instrument,
        server: MongoServer,
        monkeypatch: pytest.MonkeyPatch,
        broken: str,
    ) -> None:
        instrument(PymongoInstrumentor)
        monkeypatch.setattr(f"opentelemetry.sdk.trace.Span.{broken}", raise_error)
        assert self.do(server, lambda client: client.shop.command("ping"))["ok"]


def assert_failed(spans: Spans, code: str) -> None:
    span = spans.one()
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["db.response.status_code"] == code
    assert (span.attributes or {})["error.type"] == code


def failure_on_the_way(spans: Spans) -> object:
    """Return the type of the error of a command that the server did not answer."""
    span = spans.one()
    assert span.status.status_code is StatusCode.ERROR
    assert "db.response.status_code" not in (span.attributes or {})
    return (span.attributes or {})["error.type"]
