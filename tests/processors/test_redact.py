"""Secrets are gone from whatever leaves a span, and what only looks like one stays."""

from __future__ import annotations

import contextlib
import gzip
import io
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry import trace
from opentelemetry.trace import Link, SpanContext, StatusCode, TraceFlags

import tracekit
from exporters.grpc_destinations import grpc_destination
from processors.secrets_corpus import LOOKALIKES, SECRETS
from tracekit.errors import ConfigurationError, InvalidValueError
from tracekit.exporters.console import ConsoleSpanExporter
from tracekit.exporters.datadog import DatadogExporter
from tracekit.exporters.memory import InMemorySpanExporter
from tracekit.exporters.otlp import OTLPSpanExporter
from tracekit.exporters.otlp_file import OtlpFileExporter
from tracekit.exporters.store import StoreExporter
from tracekit.exporters.zipkin import ZipkinExporter
from tracekit.interfaces import SpanProcessor
from tracekit.sdk import RedactionProcessor, SpanLimits
from tracekit.semconv import REDACTED
from tracekit.store.spool import Spool

REPLACED = "REDACTED"


@pytest.fixture
def server():
    """Take whatever is sent; ``server.bodies`` holds it, unpacked."""

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            is_packed = self.headers.get("Content-Encoding") == "gzip"
            taking.bodies.append(gzip.decompress(body) if is_packed else body)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_PUT = do_POST

        def log_message(self, *arguments):
            pass

    taking = ThreadingHTTPServer(("127.0.0.1", 0), Taking)
    taking.bodies = []
    thread = threading.Thread(target=taking.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield taking
    taking.shutdown()
    thread.join()
    taking.server_close()


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


def spooled(path):
    """Yield the body of each request that a spool keeps, unpacked."""
    spool = Spool(path)
    for waiting in spool.waiting():
        while (request := spool.take(waiting.destination)[0]) is not None:
            yield request.body
            spool.remove(request)


def recorded(redact=True, **options):
    exporter = InMemorySpanExporter()
    tracekit.configure(exporters=exporter, redact=redact, **options)

    def spans():
        tracekit.flush()
        return exporter.get_finished_spans()

    return spans


def attributes_after(attributes, redact=True):
    spans = recorded(redact)
    with tracekit.span("s") as span:
        span.set_attributes(attributes)
    return dict(spans()[-1].attributes)


def test_the_corpus_is_large_and_without_repetitions():
    assert len(SECRETS) >= 150
    assert len(LOOKALIKES) >= 150
    assert len({secret.needle for secret in SECRETS}) == len(SECRETS)


def test_every_secret_is_gone_from_the_bytes_of_every_exporter(server, tmp_path, stack):
    at = f"http://127.0.0.1:{server.server_port}"
    out = io.StringIO()
    destination = stack.enter_context(grpc_destination())
    tracekit.configure(
        redact=True,
        exporters=[
            OTLPSpanExporter(destination.url, protocol="grpc", spool=False),
            OTLPSpanExporter("http://127.0.0.1:1/v1/traces", spool=tmp_path / "spool.db"),
            ConsoleSpanExporter(out=out),
            ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json()),
            OtlpFileExporter(tmp_path / "traces.jsonl"),
            StoreExporter(tmp_path / "store.db"),
            OTLPSpanExporter(f"{at}/v1/traces", spool=False),
            OTLPSpanExporter(f"{at}/v1/traces", protocol="http/json", spool=False),
            ZipkinExporter(f"{at}/api/v2/spans", spool=False),
            DatadogExporter(at, spool=False),
        ],
    )
    tracer = trace.get_tracer("t")
    for secret in SECRETS:
        with tracekit.span("visible-name") as span:
            span.set_attribute(secret.key, secret.value)
            span.add_event("e", {secret.key: secret.value})
        parent = SpanContext(1, 2, False, TraceFlags(1))
        tracer.start_span("l", links=[Link(parent, {secret.key: secret.value})]).end()
    for text in (secret.value for secret in SECRETS if secret.key in ("message", "note", "text")):
        with tracekit.span(text) as span:
            span.add_event(text)
            span.record_exception(ValueError(text))
            span.set_status(StatusCode.ERROR, text)
    tracekit.flush()
    still_open = [tracer.start_span("open", attributes={s.key: s.value}) for s in SECRETS]
    tracekit.shutdown()
    assert all(span.is_recording() for span in still_open)
    places = {
        "console": out.getvalue().encode(),
        "gRPC": b"".join(request.SerializeToString() for request in destination.received),
        "network": b"".join(server.bodies),
        **{
            # With what of a database is still in its log.
            name: b"".join(path.read_bytes() for path in tmp_path.glob(f"{name}*"))
            for name in ("traces.jsonl", "store.db")
        },
        "spool": b"".join(spooled(tmp_path / "spool.db")),
    }
    assert [name for name, place in places.items() if b"visible-name" not in place] == []
    assert len(server.bodies) >= 4
    for name, place in places.items():
        left = [secret for secret in SECRETS if secret.needle.encode() in place]
        assert (name, left) == (name, [])


def test_of_what_only_looks_like_a_secret_at_most_one_in_a_hundred_is_touched():
    spans = recorded()
    for key, value in LOOKALIKES:
        with tracekit.span("s") as span:
            span.set_attribute(key, value)
    pairs = zip(LOOKALIKES, spans(), strict=True)
    touched = [pair for pair, span in pairs if span.attributes != {pair[0]: pair[1]}]
    assert len(touched) <= len(LOOKALIKES) / 100, touched


def test_the_span_says_which_keys_were_redacted():
    attributes = attributes_after({"password": "hunter2", "note": "password=hunter22", "n": 1})
    assert attributes == {
        "password": REPLACED,
        "note": f"password={REPLACED}",
        "n": 1,
        REDACTED: ("note", "password"),
    }


def test_a_span_without_secrets_is_as_it_was():
    assert attributes_after({"author": "Ann", "n": [1, 2]}) == {"author": "Ann", "n": (1, 2)}


def test_name_status_and_exceptions_are_looked_at():
    spans = recorded()
    with pytest.raises(ValueError), tracekit.span("GET https://h/?token=abcdefgh12"):  # noqa: PT011
        raise ValueError("password=hunter22")
    (span,) = spans()
    assert span.name == f"GET https://h/?token={REPLACED}"
    assert span.status.status_code is StatusCode.ERROR
    assert "hunter22" not in span.to_json()
    assert {"name", "status.description", "exception.message"} <= set(span.attributes[REDACTED])


def test_other_peoples_processors_see_what_is_left_and_what_they_write_is_looked_at():
    class Writing(SpanProcessor):
        def on_ending(self, span):
            span.set_attribute("token", "abcdefgh12")

        def on_end(self, span):
            seen.append(dict(span.attributes))

    seen = []
    spans = recorded(processors=[Writing()])
    with tracekit.span("s"):
        pass
    assert spans()[0].attributes["token"] == REPLACED
    assert seen == [dict(spans()[0].attributes)]


def test_sql_loses_its_literals_only_where_the_text_is_a_query():
    query = "SELECT a FROM t WHERE b = 'Ann' AND c = 17"
    attributes = attributes_after({"db.query.text": query, "note": query})
    assert attributes["db.query.text"] == "SELECT a FROM t WHERE b = ? AND c = ?"
    assert attributes["note"] == query
    kept = attributes_after({"db.query.text": query}, RedactionProcessor(sql=False))
    assert kept["db.query.text"] == query


def test_the_commands_of_other_databases_are_not_read_as_sql():
    command = {"db.system.name": "mongodb", "db.query.text": '{"find": "a", "limit": 17}'}
    assert attributes_after(command) == command


def test_arguments_go_when_they_are_asked_to():
    @tracekit.traced(record_args=True)
    def pay(amount, card):
        return amount

    for arguments, expected in ((False, 5), (True, REPLACED)):
        spans = recorded(RedactionProcessor(arguments=arguments))
        pay(5, "visa")
        assert spans()[0].attributes["tracekit.argument.amount"] == expected


def test_more_keys_and_patterns_can_be_named_and_others_allowed():
    redact = RedactionProcessor(
        keys=["customer.*"], allow=["*.token", "customer.country"], patterns=[r"ZZ-\d+"]
    )
    attributes = attributes_after(
        {"customer.name": "Ann", "customer.country": "NL", "csrf.token": "abc12345", "x": "a ZZ-1"},
        redact,
    )
    assert attributes.pop(REDACTED) == ("customer.name", "x")
    assert attributes == {
        "customer.name": REPLACED,
        "customer.country": "NL",
        "csrf.token": "abc12345",
        "x": f"a {REPLACED}",
    }


def test_a_callback_has_the_last_word():
    redact = RedactionProcessor(callback=lambda key, value: len(value) if key == "x" else value)
    attributes = attributes_after({"x": "four", "y": "four"}, redact)
    assert attributes == {"x": 4, "y": "four", REDACTED: ("x",)}


def test_where_a_callback_raises_the_value_is_a_secret(caplog):
    def callback(key, value):
        raise RuntimeError("no")

    redact = RedactionProcessor(callback=callback)
    assert attributes_after({"x": "a", "y": 2}, redact) == {
        "x": REPLACED,
        "y": REPLACED,
        REDACTED: ("x", "y"),
    }
    assert len([line for line in caplog.records if "callback" in line.message]) == 1


def test_where_redaction_itself_fails_everything_is_a_secret(monkeypatch, caplog):
    redact = RedactionProcessor()
    monkeypatch.setattr(redact, "_attributes", lambda *_: 1 / 0)
    assert attributes_after({"x": "a"}, redact) == {"x": REPLACED, REDACTED: ("*",)}
    assert "redacting a span failed" in caplog.text


def test_objects_are_read_before_they_are_judged():
    class Client:
        def __str__(self):
            return "Client(password=hunter22)"

    assert attributes_after({"client": Client()})["client"] == f"Client(password={REPLACED})"


def test_a_secret_is_found_before_a_limit_of_length_cuts_it():
    spans = recorded(span_limits=SpanLimits(max_attribute_length=12))
    with tracekit.span("s", note="AK" + "IAABCDEFGHIJ234567"):
        pass
    assert spans()[0].attributes["note"] == REPLACED


def test_without_being_asked_nothing_is_changed():
    assert attributes_after({"password": "hunter2"}, None) == {"password": "hunter2"}


@pytest.mark.parametrize(("text", "is_on"), [("true", True), ("1", True), ("false", False)])
def test_the_environment_switches_it(monkeypatch, text, is_on):
    monkeypatch.setenv("TRACEKIT_REDACT", text)
    assert (attributes_after({"password": "a"}, None)["password"] == REPLACED) is is_on


def test_the_project_file_says_what_is_redacted(monkeypatch, tmp_path):
    table = '[tool.tracekit.redact]\nkeys = ["customer.*"]\nallow = ["password"]\n'
    (tmp_path / "pyproject.toml").write_text(table, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    attributes = attributes_after({"customer.name": "Ann", "password": "a"}, None)
    assert (attributes["customer.name"], attributes["password"]) == (REPLACED, "a")


@pytest.mark.parametrize("given", ["perhaps", 3, {"kyes": ["a"]}, ["password"]])
def test_what_cannot_be_understood_is_refused(given):
    with pytest.raises(ConfigurationError, match=r"redact=.* expected true, false"):
        tracekit.configure(exporters="none", redact=given)


@pytest.mark.parametrize("options", [{"keys": "password"}, {"allow": [1]}, {"patterns": ["("]}])
def test_lists_and_patterns_that_are_none_are_refused(options):
    with pytest.raises(InvalidValueError, match="redact: "):
        RedactionProcessor(**options)


@pytest.mark.parametrize(
    "text",
    [
        "a" * 200_000,
        "key=" * 50_000,
        "password" * 25_000,
        "password='\\" * 25_000,
        "://" * 60_000,
        "Cookie: " * 20_000,
        "eyJaaaaaa." * 20_000,
        "-----BEGIN PRIVATE KEY-----" * 10_000,
    ],
    ids=["letters", "keys", "names", "quotes", "urls", "cookies", "tokens", "blocks"],
)
def test_a_long_text_does_not_hold_the_program_up(text):
    from time import process_time

    begun = process_time()
    attributes_after({"x": text})
    assert process_time() - begun < 2
