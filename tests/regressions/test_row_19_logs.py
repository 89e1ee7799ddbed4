"""Row 19: every log record has the ids, in exception handlers too, and no format ever fails.

opentelemetry-python#3775, #1817, #3477, contrib#2346, #1898, #3007.
"""

from __future__ import annotations

import io
import logging
import logging.config

import flask
import pytest

import tracekit
from http_servers import werkzeug_server

FORMAT = "%(otelTraceID)s %(otelSpanID)s %(otelTraceSampled)s %(otelServiceName)s %(message)s"


@pytest.fixture
def lines(watch):
    watch("logging")
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(logging.Formatter(FORMAT))
    logger = logging.getLogger("program")
    logger.addHandler(handler)
    logger.propagate = False
    yield lambda: out.getvalue().splitlines()
    logger.removeHandler(handler)
    logger.propagate = True


def ids(span):
    context = span.get_span_context()
    return f"{context.trace_id:032x} {context.span_id:016x}"


def test_inside_a_span_its_ids_and_outside_zeros(exporter, lines):
    logger = logging.getLogger("program")
    logger.warning("outside")
    with tracekit.span("a") as span:
        logger.warning("inside")
    outside, inside = lines()
    assert outside.startswith("0 0 False ")
    assert inside.startswith(f"{ids(span)} True ")


def test_in_the_handler_of_an_exception_that_left_an_inner_span(exporter, lines):
    with tracekit.span("outer") as outer:
        try:
            with tracekit.span("inner"):
                raise ValueError("no")
        except ValueError:
            logging.getLogger("program").error("caught")
    assert lines()[0].startswith(ids(outer))


def test_in_the_error_handler_of_a_web_framework(ended, watch, lines):
    watch("flask")
    app = flask.Flask("app")

    @app.get("/")
    def index():
        raise ValueError("no")

    @app.errorhandler(ValueError)
    def handle(error):
        logging.getLogger("program").error("handled")
        return "sorry", 500

    with werkzeug_server(app) as client:
        assert client.ask("/").status == 500
        (server,) = ended.server()
    assert lines()[0].startswith(ids(server))


def test_records_that_are_made_by_hand_or_by_the_programs_own_factory_have_the_names(
    exporter, lines
):
    class Mine(logging.LogRecord):
        pass

    before = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Mine)
    try:
        logging.getLogger("program").warning("mine")
    finally:
        logging.setLogRecordFactory(before)
    record = logging.makeLogRecord({"msg": "by hand"})
    assert logging.Formatter(FORMAT).format(record).startswith("0 0 False ")
    assert lines()[0].startswith("0 0 ")


def test_a_program_that_logs_with_extra_of_the_same_names_is_not_disturbed(exporter, lines):
    with tracekit.span("a"):
        logging.getLogger("program").warning("hello", extra={"order": 7})
    assert lines()[0].endswith("hello")
