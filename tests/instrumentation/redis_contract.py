"""What every client of the Redis protocol is asked, against a real server; sync and async.

An asynchronous client runs its own event loop inside the calls, so the questions are the same.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import Any

import pytest
from opentelemetry import context as otel_context
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    use_span,
)

from instrumentation.conftest import Instrument, Spans
from instrumentation.http_client_contract import BrokenProvider, parent_id, raise_error
from redis_servers import needs_redis, redis_server
from tracekit.instrumentation._patch import LibraryInstrumentor


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with redis_server(tmp_path_factory.mktemp("redis")) as port:
        yield port


@needs_redis
class RedisContract:
    """Questions to one client; a subclass writes how commands are sent."""

    plugin: type[LibraryInstrumentor]
    package: str
    client_class: str = "Redis"
    calls_from: str
    """The file that a call comes from."""

    @property
    def client(self) -> type[Any]:
        return getattr(importlib.import_module(self.package), self.client_class)

    @property
    def errors(self) -> ModuleType:
        return importlib.import_module(f"{self.plugin.name}.exceptions")

    def send(self, port: int, *command: Any, **options: Any) -> Any:
        """Send one command with a client of its own, made with `options`."""
        raise NotImplementedError

    def send_all(self, port: int, commands: Sequence[Sequence[Any]], transaction: bool) -> Any:
        """Send a pipeline; answers that are errors are raised."""
        raise NotImplementedError

    def send_within(self, port: int, spans: Spans, count: int) -> None:
        """Send ``ECHO n`` inside a span of the program named n, `count` of them at once."""
        raise NotImplementedError

    # What a span says

    def test_a_command_below_a_span_that_is_passed_over_says_as_much_as_any(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        passed_over = NonRecordingSpan(SpanContext(0xA, 0xB, False, TraceFlags(1)))
        with use_span(passed_over):
            self.send(port, "SET", "key", "secret")
        told = spans.one().attributes or {}
        assert told["code.file.path"] == self.calls_from
        assert len(str(told["tracekit.db.parameters.hash"])) == 16

    def test_attributes_are_those_of_the_conventions(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        with spans.tracer.start_as_current_span("parent"):
            self.send(port, "SET", "key", "secret", db=3)
        span = spans.one()
        assert (span.name, span.kind) == (f"SET 127.0.0.1:{port}", SpanKind.CLIENT)
        told = dict(span.attributes or {})
        assert told.pop("code.file.path") == self.calls_from
        assert isinstance(told.pop("code.line.number"), int)
        assert str(told.pop("code.function.name")).endswith(("send", "send.<locals>.send"))
        assert len(str(told.pop("tracekit.db.parameters.hash"))) == 16
        assert told == {
            "db.system.name": self.plugin.name,
            "db.operation.name": "SET",
            "db.query.text": "SET ? ?",
            "db.namespace": "3",
            "server.address": "127.0.0.1",
            "server.port": port,
            **self.timeouts(),
        }
        assert span.status.status_code is StatusCode.UNSET

    def test_configured_timeouts_are_recorded(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        self.send(port, "PING", socket_timeout=2.5, socket_connect_timeout=1.5)
        attributes = spans.one().attributes or {}
        assert attributes["tracekit.timeout.read_s"] == 2.5
        assert attributes["tracekit.timeout.connect_s"] == 1.5

    @pytest.mark.parametrize(
        ("command", "name", "text"),
        [
            (("CONFIG GET", "maxmemory"), "CONFIG GET", "CONFIG GET ?"),
            (("SET whole secret",), "SET", "SET ? ?"),
            ((b"ECHO", b"\xff\x00"), "ECHO", "ECHO ?"),
            (("DEL", *range(40)), "DEL", f"DEL{' ?' * 16} … 40 in all"),
            (("ECHO", "x" * 2**20), "ECHO", "ECHO ?"),
        ],
    )
    def test_arguments_are_never_recorded(
        self, instrument: Instrument, spans: Spans, port: int, command: Any, name: str, text: str
    ) -> None:
        instrument(self.plugin)
        self.send(port, *command)
        attributes = spans.one().attributes or {}
        assert (attributes["db.operation.name"], attributes["db.query.text"]) == (name, text)

    def test_a_command_of_a_megabyte_is_bounded(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(self.errors.ResponseError):
            self.send(port, "X" * 2**20)
        assert len(spans.one().name) < 100

    # Failures

    def test_an_error_of_the_server_is_told_by_its_prefix(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        self.send(port, "SET", "text", "1")
        spans.clear()
        with pytest.raises(self.errors.ResponseError):
            self.send(port, "LPUSH", "text", "2")
        span = spans.one()
        assert (span.attributes or {})["db.response.status_code"] == "WRONGTYPE"
        assert (span.attributes or {})["error.type"] == "WRONGTYPE"
        assert span.status.status_code is StatusCode.ERROR
        assert [event.name for event in span.events] == ["exception"]

    @pytest.mark.parametrize(
        ("command", "code"),
        [
            (("EVALSHA", "0" * 40, 0), "NOSCRIPT"),
            (("GET",), "ERR"),
            (("SET", "a"), "ERR"),
        ],
    )
    def test_a_prefix_that_the_client_takes_off_is_known(
        self, instrument: Instrument, spans: Spans, port: int, command: Any, code: str
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(self.errors.ResponseError):
            self.send(port, *command)
        assert (spans.one().attributes or {})["db.response.status_code"] == code

    def test_a_server_that_is_not_there_is_the_clients_error(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(self.errors.ConnectionError):
            self.send(1, "GET", "key", **self.no_retries())
        span = spans.one()
        assert (span.attributes or {})["error.type"] == (
            f"{self.plugin.name}.exceptions.ConnectionError"
        )
        assert "db.response.status_code" not in (span.attributes or {})

    def test_a_timeout_is_the_clients_error(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(self.errors.TimeoutError):
            self.send(port, "BLPOP", "nothing", 5, socket_timeout=0.05, **self.no_retries())
        assert (spans.one().attributes or {})["error.type"] == (
            f"{self.plugin.name}.exceptions.TimeoutError"
        )

    def test_retries_inside_the_client_are_one_span(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(self.errors.ConnectionError):
            self.send(1, "GET", "key", **self.no_retries(2))
        assert len(spans.watched) == 1

    def timeouts(self) -> dict[str, Any]:
        """Return what is recorded of a client's defaults, which change with its version."""
        known = self.client().connection_pool.connection_kwargs
        names = {"connect": "socket_connect_timeout", "read": "socket_timeout"}
        return {f"tracekit.timeout.{k}_s": known[v] for k, v in names.items() if known.get(v)}

    def no_retries(self, times: int = 0) -> dict[str, Any]:
        within = ".asyncio" if "asyncio" in self.package else ""
        retry = importlib.import_module(f"{self.plugin.name}{within}.retry").Retry
        backoff = importlib.import_module(f"{self.plugin.name}.backoff").NoBackoff
        return {"retry": retry(backoff(), times)}

    # Pipelines

    @pytest.mark.parametrize(("transaction", "kind"), [(True, "MULTI"), (False, "PIPELINE")])
    def test_a_pipeline_is_one_span(
        self, instrument: Instrument, spans: Spans, port: int, transaction: bool, kind: str
    ) -> None:
        instrument(self.plugin)
        self.send_all(port, [("SET", "a", 1), ("GET", "a"), ("GET", "b")], transaction)
        span = spans.one()
        attributes = span.attributes or {}
        assert span.name == f"{kind} 127.0.0.1:{port}"
        assert attributes["db.operation.name"] == kind
        assert attributes["db.operation.batch.size"] == 3
        assert attributes["db.query.text"] == "SET ? ?; GET ?; GET ?"

    def test_a_pipeline_of_one_command_is_named_for_it(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        self.send_all(port, [("GET", "a"), ("GET", "b")], False)
        assert (spans.one().attributes or {})["db.operation.name"] == "PIPELINE GET"

    def test_a_pipeline_of_thousands_is_bounded(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        self.send_all(port, [("GET", str(number)) for number in range(2000)], False)
        attributes = spans.one().attributes or {}
        assert attributes["db.operation.batch.size"] == 2000
        assert str(attributes["db.query.text"]).endswith("GET ?; … 1968 more")

    def test_an_empty_pipeline_has_no_span(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        assert self.send_all(port, [], False) == []
        assert spans.ended == []

    def test_a_failed_pipeline_tells_the_prefix(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(self.errors.ResponseError):
            self.send_all(port, [("SET", "t", 1), ("LPUSH", "t", 1)], True)
        assert spans.one().status.status_code is StatusCode.ERROR

    # Parents

    def test_commands_at_the_same_time_have_the_right_parents(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        self.send_within(port, spans, 8)
        by_id = {span.context.span_id: span for span in spans.ended}
        parents = [by_id[parent_id(span) or 0].name for span in spans.watched]
        assert sorted(parents) == sorted(map(str, range(8)))

    def test_below_an_unsampled_parent_nothing_is_recorded(
        self, instrument: Instrument, port: int
    ) -> None:
        spans = Spans(ALWAYS_OFF)
        instrument(self.plugin, tracer_provider=spans.provider)
        with spans.tracer.start_as_current_span("off"):
            self.send(port, "PING")
        assert spans.ended == []

    def test_suppressed_commands_have_no_span(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin)
        token = otel_context.attach(otel_context.set_value("suppress_instrumentation", True))
        try:
            self.send(port, "PING")
        finally:
            otel_context.detach(token)
        assert spans.ended == []

    def test_nothing_is_left_current(self, instrument: Instrument, port: int) -> None:
        instrument(self.plugin)
        before = otel_context.get_current()
        self.send(port, "PING")
        with pytest.raises(self.errors.ResponseError):
            self.send(port, "GET")
        assert otel_context.get_current() is before

    # Never harm

    def test_a_provider_that_raises_does_not_break_the_call(
        self, instrument: Instrument, port: int
    ) -> None:
        instrument(self.plugin, tracer_provider=BrokenProvider())
        assert self.send(port, "ECHO", "x") == b"x"

    @pytest.mark.parametrize("broken", ["set_attributes", "end", "is_recording"])
    def test_a_span_that_raises_does_not_break_the_call(
        self,
        instrument: Instrument,
        spans: Spans,
        port: int,
        monkeypatch: pytest.MonkeyPatch,
        broken: str,
    ) -> None:
        instrument(self.plugin)
        monkeypatch.setattr(f"opentelemetry.sdk.trace.Span.{broken}", raise_error)
        assert self.send(port, "ECHO", "x") == b"x"

    def test_hooks_see_the_span_and_what_is_sent(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        seen: list[Any] = []
        instrument(
            self.plugin,
            request_hook=lambda span, client, args, kwargs: seen.append(args),
            response_hook=lambda span, client, response: seen.append(response),
        )
        self.send(port, "ECHO", "x")
        assert seen == [("ECHO", "x"), b"x"]

    def test_hooks_that_raise_do_not_break_the_call(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin, request_hook=raise_error, response_hook=raise_error)
        assert self.send(port, "ECHO", "x") == b"x"
        assert len(spans.watched) == 1

    # Instrumenting

    def test_uninstrumented_library_is_as_it_was_byte_for_byte(
        self, instrument: Instrument
    ) -> None:
        before = entries(self.plugin)
        instrumentor = instrument(self.plugin)
        assert any(entries(self.plugin)[place] is not before[place] for place in before)
        instrumentor.uninstrument()
        after = entries(self.plugin)
        assert after.keys() == before.keys()
        assert all(after[place] is before[place] for place in before)

    def test_uninstrumented_library_makes_no_spans(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin).uninstrument()
        self.send(port, "PING")
        assert spans.ended == []

    def test_instrumenting_twice_makes_one_span(
        self, instrument: Instrument, spans: Spans, port: int
    ) -> None:
        instrument(self.plugin).instrument(tracer_provider=spans.provider)
        instrument(self.plugin)
        self.send(port, "PING")
        assert len(spans.watched) == 1

    def test_unknown_option_is_an_error(self, instrument: Instrument) -> None:
        with pytest.raises(TypeError, match="request_hok"):
            instrument(self.plugin, request_hok=raise_error)


def entries(plugin: type[LibraryInstrumentor], **options: Any) -> dict[tuple[str, str, str], Any]:
    """Return every entry of every class and module that an instrumentation patches."""
    instrumentor = plugin()
    instrumentor.configure(options)
    found: dict[tuple[str, str, str], Any] = {}
    for patch in instrumentor.patches():
        try:
            holder: Any = importlib.import_module(patch.module)
        except Exception:  # of another version, or without what it stands on
            assert patch.optional
            continue
        path = patch.attribute.rpartition(".")[0]
        holder = getattr(holder, path, None) if path else holder
        if holder is None:
            assert patch.optional
            continue
        found |= {(patch.module, path, name): entry for name, entry in vars(holder).items()}
    return found


class SyncCalls(RedisContract):
    """The calls of a synchronous client."""

    calls_from = __file__

    def send(self, port: int, *command: Any, **options: Any) -> Any:
        with self.client(host="127.0.0.1", port=port, **options) as client:
            return client.execute_command(*command)

    def send_all(self, port: int, commands: Sequence[Sequence[Any]], transaction: bool) -> Any:
        with (
            self.client(host="127.0.0.1", port=port) as client,
            client.pipeline(transaction=transaction) as pipeline,
        ):
            for command in commands:
                pipeline.execute_command(*command)
            return pipeline.execute()

    def send_within(self, port: int, spans: Spans, count: int) -> None:
        together = threading.Barrier(count)

        def send(number: int) -> None:
            with spans.tracer.start_as_current_span(str(number)):
                together.wait(10)
                client.execute_command("ECHO", number)

        with self.client(host="127.0.0.1", port=port) as client:
            threads = [threading.Thread(target=send, args=(number,)) for number in range(count)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
