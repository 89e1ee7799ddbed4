"""smtplib: one CLIENT span for each connection that is made, and each mail that is handed over.

The conventions have no names for mail; those in ``tracekit.mail`` are ours. Of the people that it
is for only the number is recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tracekit import semconv
from tracekit.instrumentation._calls import Call, CallInstrumentor, Told
from tracekit.instrumentation._http_client_attributes import limits_of
from tracekit.instrumentation._patch import LibraryInstrumentor
from tracekit.instrumentation._urllib3 import peer_of

__all__ = ["SmtplibInstrumentor"]


class SmtplibInstrumentor(CallInstrumentor):
    """Watch smtplib, and what sends with it, such as Django. Option: ``code_location``."""

    name = "smtplib"

    def calls(self) -> Sequence[Call]:
        return (
            Call("smtplib", "SMTP.connect", _connection, _greeting),
            Call("smtplib", "SMTP.sendmail", _mail, _refused),
        )

    def code_of(self, error: Any) -> object:
        for code, _ in getattr(error, "recipients", {}).values():
            return code  # of all who were refused, the first
        return getattr(error, "smtp_code", None)


def _connection(client: Any, host: str, port: int) -> tuple[str, Told]:
    name, _, number = host.partition(":")
    if port or ":" in number:  # an address of IPv6
        name, number = host, str(port or "")
    return f"connect {name}", _place(client, name, int(number or client.default_port))


def _greeting(answer: tuple[int, bytes]) -> Told | None:
    return {semconv.ERROR_TYPE: answer[0]} if answer[0] != 220 else None


def _mail(client: Any, to_addrs: Any, msg: Any) -> tuple[str, Told]:
    address, port, *_ = peer_of(client) or ("localhost", client.default_port)
    host = client._host or address
    count = 1 if isinstance(to_addrs, str) else len(to_addrs)
    sent = {semconv.MAIL_RECIPIENTS: count, semconv.MAIL_BODY_BYTES: len(msg)}
    return f"sendmail {host}", _place(client, host, port) | sent


def _refused(answer: dict[str, Any]) -> Told | None:
    return {semconv.MAIL_REFUSED: len(answer)} if answer else None


def _place(client: Any, host: str, port: int) -> Told:
    place = {semconv.SERVER_ADDRESS: host, semconv.SERVER_PORT: port}
    return {**place, **limits_of(client.timeout)}


plugin: type[LibraryInstrumentor] = SmtplibInstrumentor
