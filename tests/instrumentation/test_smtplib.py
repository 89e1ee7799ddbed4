"""smtplib against a real server: mails that are taken, refused, and sent to nobody."""

from __future__ import annotations

import smtplib
import socket
import threading
from collections.abc import Iterator
from email.message import EmailMessage
from typing import Any

import pytest
from aiosmtpd.controller import Controller
from opentelemetry.trace import StatusCode

from instrumentation.call_contract import CallContract
from instrumentation.conftest import Instrument, Spans
from tracekit.instrumentation.smtplib import SmtplibInstrumentor


class Post:
    """Takes mail for everybody but those whose name begins with ``no``."""

    async def handle_RCPT(self, _: Any, __: Any, mail: Any, address: str, ___: Any) -> str:
        if address.startswith("no"):
            return "550 no such person"
        mail.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, *_: Any) -> str:
        return "250 OK"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    controller = Controller(Post(), hostname="127.0.0.1", port=port)
    controller.start()
    yield port
    controller.stop()


class TestSmtplib(CallContract):
    plugin = SmtplibInstrumentor
    program = (
        "with smtplib.SMTP('127.0.0.1', {place}) as client: client.sendmail('a@b', 'c@d', 'x')"
    )

    @pytest.fixture(autouse=True)
    def at(self, port: int) -> None:
        self.port = port

    def place(self) -> int:
        return self.port

    def call(self) -> Any:
        with smtplib.SMTP("127.0.0.1", self.port) as client:
            return client.sendmail("ada@example.com", ["no@example.com", "bob@example.com"], "Hi")

    def fail(self) -> Any:
        with smtplib.SMTP("127.0.0.1", self.port) as client:
            return client.sendmail("ada@example.com", "no@example.com", "Hi")

    def test_a_mail_says_how_large_it_is_and_for_how_many(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin, code_location=False)
        mail = EmailMessage()
        mail["From"], mail["To"] = "ada@example.com", "bob@example.com, no@example.com"
        mail.set_content("Hello")
        with smtplib.SMTP("127.0.0.1", self.port, timeout=5) as client:
            client.send_message(mail)
        connect, sendmail = spans.watched
        place = {
            "server.address": "127.0.0.1",
            "server.port": self.port,
            "tracekit.timeout.connect_s": 5,
            "tracekit.timeout.read_s": 5,
        }
        assert (connect.name, connect.attributes) == ("connect 127.0.0.1", place)
        assert sendmail.name == "sendmail 127.0.0.1"
        assert sendmail.attributes == place | {
            "tracekit.mail.recipients": 2,
            "tracekit.mail.refused": 1,
            "tracekit.mail.body_bytes": (sendmail.attributes or {})["tracekit.mail.body_bytes"],
        }

    def test_a_refusal_is_told_by_the_code_of_the_server(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(smtplib.SMTPRecipientsRefused):
            self.fail()
        assert (spans.watched[-1].attributes or {})["error.type"] == "550"

    @pytest.mark.parametrize("host", ["127.0.0.1:{}", "::1"])
    def test_a_server_that_is_not_there_fails_the_connection(
        self, instrument: Instrument, spans: Spans, host: str
    ) -> None:
        instrument(self.plugin)
        with socket.create_server(("127.0.0.1", 0)) as free:
            closed: int = free.getsockname()[1]
        with pytest.raises(OSError):  # noqa: PT011
            smtplib.SMTP(host.format(closed), 0 if "{}" in host else closed)
        span = spans.one()
        assert (span.name, span.status.status_code) == (
            f"connect {host.removesuffix(':{}')}",
            StatusCode.ERROR,
        )
        assert (span.attributes or {})["server.port"] == closed

    def test_a_server_that_greets_with_a_refusal_fails_the_connection(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with socket.create_server(("127.0.0.1", 0)) as server:
            client = smtplib.SMTP()
            client.timeout = 5
            _greet(server, client)
        span = spans.one()
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "554"

    def test_a_mail_without_a_connection_fails_as_it_did(
        self, instrument: Instrument, spans: Spans
    ) -> None:
        instrument(self.plugin)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            smtplib.SMTP().sendmail("ada@example.com", "bob@example.com", "Hi")
        assert spans.one().name == "sendmail localhost"


def _greet(server: socket.socket, client: smtplib.SMTP) -> None:
    """Let the client connect, and be told that there is no service."""

    def answer() -> None:
        connection, _ = server.accept()
        with connection:
            connection.sendall(b"554 no service here\r\n")

    thread = threading.Thread(target=answer)
    thread.start()
    client.connect(*server.getsockname())
    thread.join()
    client.close()
