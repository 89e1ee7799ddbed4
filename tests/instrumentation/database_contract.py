"""What every instrumented database library is asked.

A test class of a library inherits the questions and supplies the calls; an asynchronous library
runs its own event loop inside them, so the questions are the same.
"""

from __future__ import annotations

import importlib
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol

import pytest
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import (
    BrokenProvider,
    attempt,
    chain,
    innermost,
    parent_id,
    raise_error,
    run,
)
from tracekit.instrumentation._patch import LibraryInstrumentor

SUPPRESSIONS = ["suppress_instrumentation", otel_context._SUPPRESS_INSTRUMENTATION_KEY]
HEX = re.compile("[0-9a-f]{16}")


class Session(Protocol):
    """A connection of a library, and a cursor for each call."""

    def execute(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Ask, without an argument for parameters when there are none; return all rows."""
        ...

    def executemany(self, query: str, rows: Sequence[Sequence[Any]]) -> None: ...
    def commit(self) -> None: ...
    def rollback(self) -> None: ...


class DatabaseContract:
    """Questions to one library; a subclass sets the attributes and writes the calls."""

    plugin: ClassVar[type[LibraryInstrumentor]]
    contrib_class: ClassVar[str] = ""
    library: ClassVar[str]
    """Its import name."""
    placeholder: ClassVar[str] = "%s"
    kind: ClassVar[SpanKind] = SpanKind.CLIENT
    missing_table: ClassVar[str]
    """What the database answers, when asked for a table that is not there."""
    duplicate_key: ClassVar[str]
    bytes_type: ClassVar[str] = "BLOB"
    own_text: ClassVar[str] = ""
    """A query that returns its own text, as it came to the database."""
    counts_rows: ClassVar[bool] = True
    watches_old_connections: ClassVar[bool] = True
    executes_many: ClassVar[bool] = True
    raises_in_python: ClassVar[bool] = True
    """Whether the innermost line of a traceback is the library's."""
    program: ClassVar[str]
    """Imports the library and asks `SELECT 7`; `instrument()` is called before or after."""

    @pytest.fixture(autouse=True)
    def database(self) -> None:
        """Make a database that is there, with an empty table ``items (id, name, data)``."""
        raise NotImplementedError

    def place(self) -> dict[str, Any]:
        """Return the attributes that say which database it is."""
        raise NotImplementedError

    def connect(self) -> AbstractContextManager[Session]:
        raise NotImplementedError

    def ask_together(self, count: int, under: Callable[[int], AbstractContextManager[Any]]) -> None:
        """Ask ``SELECT {number}`` at the same time, each inside ``under(its number)``."""
        raise NotImplementedError

    def ask(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self.connect() as session:
            return session.execute(query, parameters)

    @property
    def select(self) -> str:
        return f"SELECT name FROM items WHERE id = {self.placeholder}"

    @property
    def insert(self) -> str:
        p = self.placeholder
        return f"INSERT INTO items (id, name) VALUES ({p}, {self.second})"

    @property
    def second(self) -> str:
        return self.placeholder

    # What a span says

    def test_span_is_named_for_the_summary_of_the_query(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        self.ask(self.select, (1,))
        assert (spans.one().name, spans.one().kind) == ("SELECT items", self.kind)

    def test_attributes_are_those_of_the_conventions(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin, code_location=False)
        with spans.tracer.start_as_current_span("parent"):
            self.ask(self.select, (1,))
        attributes = dict(spans.one().attributes or {})
        assert HEX.fullmatch(str(attributes.pop("tracekit.db.query.hash")))
        assert HEX.fullmatch(str(attributes.pop("tracekit.db.parameters.hash")))
        assert attributes == {
            **self.place(),
            "db.query.text": self.select,
            "db.query.summary": "SELECT items",
        }

    def test_success_leaves_the_status_unset(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        self.ask("SELECT 1")
        assert spans.one().status.status_code is StatusCode.UNSET
        assert not spans.one().events

    def test_literals_are_replaced_unless_the_query_is_parameterised(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with self.connect() as session:
            session.execute("SELECT name FROM items WHERE id = 17 AND name = 'o''bob'")
            session.execute(f"{self.select} AND name = 'fixed'", (1,))
        assert self.texts(spans) == [
            "SELECT name FROM items WHERE id = ? AND name = ?",
            f"{self.select} AND name = 'fixed'",
        ]

    @pytest.mark.parametrize(
        ("text", "expected"), [("sanitized", "SELECT items.name, ? FROM items"), ("none", None)]
    )
    def test_text_is_sanitized_always_or_left_out_on_request(
        self,
        instrument: Instrument,
        spans: Spans,
        monkeypatch: pytest.MonkeyPatch,
        text: str,
        expected: str | None,
    ) -> None:
        monkeypatch.setenv("TRACEKIT_DB_QUERY_TEXT", text)
        instrument(self.plugin)
        self.ask("SELECT items.name, 'x' FROM items")
        assert self.texts(spans) == [expected]
        assert spans.one().name == "SELECT items"

    def test_values_are_recorded_on_request_only(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin).uninstrument()
        instrument(self.plugin, capture_parameters=True)
        self.ask(self.select, (4711,))
        instrument(self.plugin)
        assert (spans.one().attributes or {})["db.query.parameter.0"] == "4711"

    def test_values_are_nowhere_unless_asked_for(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        self.ask(self.select, (471147,))
        assert "471147" not in str(dict(spans.one().attributes or {}))

    def test_hash_tells_the_same_values_again(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        with self.connect() as session:
            with spans.tracer.start_as_current_span("a trace"):
                for value in (1, 1, 2):
                    session.execute(self.select, (value,))
            with spans.tracer.start_as_current_span("another trace"):
                session.execute(self.select, (1,))
            session.execute(self.select, (1,))
        first, again, other, elsewhere, root = self.each(spans, "tracekit.db.parameters.hash")
        assert first == again != other
        assert elsewhere not in (first, None)
        assert root is None
        assert len(set(self.each(spans, "tracekit.db.query.hash"))) == 1

    def test_a_secret_changes_the_hash_of_values(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        hashes = []
        with spans.tracer.start_as_current_span("parent"):
            for secret in ("", "ours", "ours"):
                instrumentor = instrument(self.plugin, hash_secret=secret)
                self.ask(self.select, (1,))
                instrumentor.uninstrument()
                hashes.append(self.each(spans, "tracekit.db.parameters.hash")[-1])
        plain, with_secret, again = hashes
        assert plain != with_secret == again

    def test_hash_of_the_query_ignores_values_and_the_length_of_lists(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with self.connect() as session:
            session.execute("SELECT name FROM items WHERE id IN (1, 2, 3)")
            session.execute("SELECT name  FROM items WHERE id IN (7) -- again")
            session.execute("SELECT id FROM items WHERE id IN (7)")
        first, again, other = self.each(spans, "tracekit.db.query.hash")
        assert first == again != other

    def test_batch_is_one_span_with_its_size(self, instrument: Instrument, spans: Spans) -> None:
        if not self.executes_many:
            pytest.skip("the library has no executemany")
        instrument(self.plugin)
        with self.connect() as session:
            session.executemany(self.insert, [(1, "a"), (2, "b"), (3, "c")])
            session.executemany(self.insert, [(4, "d")])
        assert self.each(spans, "db.operation.batch.size") == [3, None]
        assert {span.name for span in spans.watched} == {"INSERT items"}

    def test_returned_rows_are_counted_on_request(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        if not self.counts_rows:
            pytest.skip("the library does not know how many rows there are")
        instrument(self.plugin, capture_rows=True)
        self.ask("SELECT 5 UNION SELECT 6")
        assert self.each(spans, "db.response.returned_rows") == [2]

    def test_line_of_the_program_that_asked_is_named(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        self.ask("SELECT 1")
        attributes = spans.one().attributes or {}
        path = Path(str(attributes["code.file.path"]))
        assert path.parent == Path(__file__).parent  # not the library's, and not tracekit's
        assert path != Path(__file__)  # the nearest: of the session, and not who asked that
        assert isinstance(attributes["code.line.number"], int)

    def test_both_names_are_written_while_dashboards_migrate(
        self, instrument: Instrument, spans: Spans, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http,database/dup")
        instrument(self.plugin)
        self.ask(self.select, (1,))
        attributes = spans.one().attributes or {}
        assert attributes["db.system"] == attributes["db.system.name"]
        assert attributes["db.name"] == attributes["db.namespace"]
        assert attributes["db.statement"] == attributes["db.query.text"]
        assert attributes.get("net.peer.name") == attributes.get("server.address")

    def test_question_whether_the_database_is_there_is_marked(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with self.connect() as session:
            session.execute("SELECT 1")
            session.execute("SELECT 2")
        assert self.each(spans, "tracekit.db.ping") == [True, None]

    def test_comment_tells_the_database_the_span_on_request(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        if not self.own_text:
            pytest.skip("the database does not tell what it was asked")
        instrument(self.plugin, sql_comments=True)
        ((text,),) = self.ask(self.own_text)
        context = spans.one().get_span_context()
        assert str(text).endswith(
            f" /*traceparent='00-{context.trace_id:032x}-{context.span_id:016x}-"
            f"{context.trace_flags:02x}'*/"
        )
        assert "traceparent" not in str(self.texts(spans)[0])

    # Where a span belongs

    def test_span_is_a_child_of_the_current_one(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin)
        with self.connect() as session, spans.tracer.start_as_current_span("parent") as parent:
            session.execute("SELECT 2")
            if self.executes_many:
                session.executemany(self.insert, [(1, "a"), (2, "b")])
            session.rollback()
            session.execute("SELECT 3")
            session.commit()
        parents = {parent_id(span) for span in spans.watched if span.name != "BEGIN"}
        assert parents == {parent.get_span_context().span_id}

    def test_span_is_a_root_when_there_is_no_current_one(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        self.ask("SELECT 1")
        assert spans.one().parent is None

    @pytest.mark.parametrize("query", ["SELECT 1", "SELECT * FROM missing"])
    def test_current_span_is_the_callers_again_after_the_call(
        self, instrument: Instrument, spans: Spans, query: str
    ) -> None:
        instrument(self.plugin)
        before = otel_context.get_current()
        outcome(lambda: self.ask(query))
        assert otel_context.get_current() is before

    def test_calls_at_the_same_time_have_their_own_parents(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin, query_text="safe")
        parents = [spans.tracer.start_span(f"parent {number}") for number in range(8)]
        self.ask_together(8, lambda n: trace.use_span(parents[n]))
        found = sorted(parent_id(span) or 0 for span in spans.watched if "SELECT" in span.name)
        assert found == sorted(parent.get_span_context().span_id for parent in parents)

    def test_unsampled_parent_means_no_span(self, instrument: Instrument) -> None:
        spans = Spans(sampler=ALWAYS_OFF)
        instrument(self.plugin, tracer_provider=spans.provider)
        with spans.tracer.start_as_current_span("parent"):
            assert [tuple(row) for row in self.ask("SELECT 7")] == [(7,)]
        assert spans.ended == []

    @pytest.mark.parametrize("key", SUPPRESSIONS, ids=lambda key: key.partition("-")[0])
    def test_suppressed_call_has_no_span(
        self, instrument: Instrument, spans: Spans, key: str
    ) -> None:
        instrument(self.plugin)
        token = otel_context.attach(otel_context.set_value(key, True))
        try:
            self.ask("SELECT 1")
        finally:
            otel_context.detach(token)
        assert spans.ended == []

    # Failures

    def test_missing_table_is_an_error_with_the_databases_code(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        error = attempt(lambda: self.ask("SELECT * FROM missing"))
        self.assert_failed(spans, error, self.missing_table)

    def test_duplicate_key_is_an_error_with_the_databases_code(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        with self.connect() as session:
            session.execute(self.insert, (1, "a"))
            session.commit()
            instrument(self.plugin)
            with self.connect() as watched:
                error = attempt(lambda: watched.execute(self.insert, (1, "b")))
        self.assert_failed(spans, error, self.duplicate_key)

    def test_exceptions_are_those_of_the_library_alone(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        alone = attempt(lambda: self.ask("SELECT * FROM missing"))
        instrument(self.plugin)
        watched = attempt(lambda: self.ask("SELECT * FROM missing"))
        assert chain(watched) == chain(alone)
        if self.raises_in_python:
            assert innermost(watched) == innermost(alone)

    def test_a_provider_that_raises_does_not_break_the_call(self, instrument: Instrument) -> None:
        instrument(self.plugin, tracer_provider=BrokenProvider())
        assert [tuple(row) for row in self.ask("SELECT 7")] == [(7,)]

    @pytest.mark.parametrize("broken", ["set_attributes", "end", "is_recording"])
    def test_a_span_that_raises_does_not_break_the_call(
        self,
        instrument: Instrument,
        spans: Spans,
        monkeypatch: pytest.MonkeyPatch,
        broken: str,
    ) -> None:
        instrument(self.plugin)
        monkeypatch.setattr(f"opentelemetry.sdk.trace.Span.{broken}", raise_error)
        before = otel_context.get_current()
        assert [tuple(row) for row in self.ask("SELECT 7")] == [(7,)]
        assert otel_context.get_current() is before

    # Hostile values

    def test_query_of_ten_megabytes_is_recorded_in_part(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        rows = self.ask(f"SELECT {'1 + ' * 3} LENGTH('{'x' * 10_000_000}') /* {'y' * 50_000} */")
        assert int(rows[0][0]) == 10_000_003
        assert len(str(self.texts(spans)[0])) < 20_000
        assert "xx" not in str(self.texts(spans)[0])

    def test_binary_values_go_through(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin, capture_parameters=True)
        data = bytes(range(256)) * 4000
        query = f"INSERT INTO items (id, data) VALUES ({self.placeholder}, {self.second})"
        with self.connect() as session, spans.tracer.start_as_current_span("parent"):
            session.execute(query, (1, data))
            ((back,),) = session.execute("SELECT data FROM items")
        assert bytes(back) == data
        recorded = str((spans.watched[0].attributes or {})["db.query.parameter.1"])
        assert len(recorded) <= 1024
        assert HEX.fullmatch(str(self.each(spans, "tracekit.db.parameters.hash")[0]))

    def test_lone_surrogates_do_what_they_did(self, instrument: Instrument, spans: Spans) -> None:
        query = "SELECT '\ud800 x' AS \ud801"
        alone = outcome(lambda: self.ask(query))
        instrument(self.plugin, capture_parameters=True)
        assert outcome(lambda: self.ask(query)) == alone
        for span in spans.watched:
            str(span.attributes).encode()
            span.name.encode()

    # Instrumenting

    def test_connection_made_before_is_watched(self, instrument: Instrument, spans: Spans) -> None:
        if not self.watches_old_connections:
            pytest.skip("connections are objects of C, and cannot be patched")
        with self.connect() as session:
            instrument(self.plugin)
            session.execute("SELECT 2")
        assert spans.one().name == "SELECT"

    def test_connection_outlives_its_instrumentation(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrumentor = instrument(self.plugin)
        with self.connect() as session:
            instrumentor.uninstrument()
            assert [tuple(row) for row in session.execute("SELECT 7")] == [(7,)]
        assert spans.ended == []

    def test_instrumenting_twice_makes_one_span(self, instrument: Instrument, spans: Spans) -> None:
        instrument(self.plugin).instrument(tracer_provider=spans.provider)
        instrument(self.plugin)
        self.ask("SELECT 1")
        assert len(spans.watched) == 1

    def test_uninstrumented_library_is_as_it_was_byte_for_byte(
        self, instrument: Instrument
    ) -> None:
        before = self.entries()
        instrumentor = instrument(self.plugin)
        during = self.entries()
        assert any(during[place] is not before[place] for place in before)
        instrumentor.uninstrument()
        after = self.entries()
        assert after.keys() == before.keys()
        assert all(after[place] is before[place] for place in before)

    def test_uninstrumented_library_can_be_instrumented_again(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrumentor = instrument(self.plugin)
        instrumentor.uninstrument()
        self.ask("SELECT 1")
        assert spans.ended == []
        instrumentor.instrument(tracer_provider=spans.provider)
        self.ask("SELECT 1")
        assert spans.one().name == "SELECT"

    def test_library_that_contrib_watches_is_left_to_it(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        contrib = self.contrib()
        contrib.instrument(tracer_provider=spans.provider, skip_dep_check=True)
        try:
            instrumentor = instrument(self.plugin)
            self.ask("SELECT 1")
        finally:
            contrib.uninstrument()
        name = f"opentelemetry-instrumentation-{self.plugin.contrib[0]}"
        assert instrumentor.status.reason == f"already instrumented by {name}"
        assert {_scope(span).partition(".")[0] for span in spans.watched} == {"opentelemetry"}

    def test_contrib_put_on_afterwards_makes_no_second_span(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        contrib = self.contrib()
        instrument(self.plugin)
        contrib.instrument(tracer_provider=spans.provider, skip_dep_check=True)
        try:
            self.ask("SELECT 2")
        finally:
            contrib.uninstrument()
        asked = [dict(s.attributes or {}) for s in spans.watched if s.name != "connect"]
        # It asks MySQL for the name of the database, which is a query too.
        assert len([one for one in asked if "DATABASE()" not in str(one)]) == 1

    def test_unknown_option_and_value_are_errors(self, instrument: Instrument) -> None:
        with pytest.raises(TypeError, match="capture_rosw"):
            instrument(self.plugin, capture_rosw=True)
        with pytest.raises(ValueError, match="safe, sanitized or none"):
            instrument(self.plugin, query_text="all")

    @pytest.mark.slow
    @pytest.mark.parametrize("order", ["before", "after"])
    def test_order_of_import_and_instrumentation_does_not_matter(self, order: str) -> None:
        program = [
            "from instrumentation.conftest import Spans",
            f"from {self.plugin.__module__} import plugin",
            "spans = Spans()",
        ]
        steps = [
            "plugin().instrument(tracer_provider=spans.provider)",
            f"import {self.library}",
        ]
        program += steps if order == "before" else reversed(steps)
        program += [self.program_text(), "print(len(spans.watched), spans.one().name)"]
        assert run("\n".join(textwrap.dedent(line) for line in program)) == "1 SELECT"

    def program_text(self) -> str:
        return self.program

    def contrib(self) -> Any:
        if not self.contrib_class:
            pytest.skip("OpenTelemetry has no instrumentation of this library")
        module = pytest.importorskip(f"opentelemetry.instrumentation.{self.plugin.contrib[0]}")
        return getattr(module, self.contrib_class)()

    def entries(self) -> dict[tuple[str, str, str], Any]:
        """Return every entry of every class and module that is patched."""
        instrumentor = self.plugin()
        instrumentor.configure({})
        found: dict[tuple[str, str, str], Any] = {}
        for patch in instrumentor.patches():
            try:
                holder: Any = importlib.import_module(patch.module)
            except ImportError:
                assert patch.optional
                continue
            path = patch.attribute.rpartition(".")[0]
            for part in path.split(".") if path else ():
                holder = getattr(holder, part, None)
            if holder is None:
                assert patch.optional
                continue
            found |= {(patch.module, path, name): entry for name, entry in vars(holder).items()}
        return found

    def each(self, spans: Spans, attribute: str) -> list[Any]:
        """Return one attribute of every span, BEGINs that a library sends by itself left out."""
        return [
            (span.attributes or {}).get(attribute) for span in spans.watched if span.name != "BEGIN"
        ]

    def texts(self, spans: Spans) -> list[Any]:
        return self.each(spans, "db.query.text")

    def assert_failed(self, spans: Spans, error: BaseException, code: str) -> None:
        span = spans.watched[-1]
        attributes = span.attributes or {}
        assert span.status.status_code is StatusCode.ERROR
        if code.startswith("SQLITE_") and sys.version_info < (3, 11):
            # Python 3.10 does not tell SQLite's code.
            assert "db.response.status_code" not in attributes
            assert attributes["error.type"] in (
                "sqlite3.OperationalError",
                "sqlite3.IntegrityError",
            )
            return
        assert attributes["error.type"] == attributes["db.response.status_code"] == code
        assert [event.name for event in span.events] == ["exception"]
        message = str(getattr(error, "orig", error))  # SQLAlchemy's own tells what it wraps
        assert (span.events[0].attributes or {})["exception.message"] == message


def outcome(call: Callable[[], Any]) -> str:
    try:
        return repr(call())
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _scope(span: Any) -> str:
    return span.instrumentation_scope.name
