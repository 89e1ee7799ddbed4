"""Which database it is and what it answers, for the drivers of MySQL and MariaDB."""

from __future__ import annotations

from typing import Any

from tracekit.instrumentation._db import DatabaseSteps, Target, text_of

__all__ = ["mysql_target", "number_of", "system_of"]


def system_of(server_info: Any) -> str:
    """Tell MariaDB from MySQL by what a server says of itself: ``10.11.6-MariaDB``."""
    return "mariadb" if "mariadb" in str(server_info).lower() else "mysql"


def mysql_target(
    steps: DatabaseSteps, system: str, database: Any, host: Any, port: Any, socket: Any
) -> Target:
    """Return where a driver's queries go; a socket comes before host and port, as it does there."""
    if socket:
        host, port = socket, None
    return steps.target(
        system,
        text_of(database) if database else None,
        text_of(host) if host else None,
        port if isinstance(port, int) else None,
    )


def number_of(error: BaseException) -> str | None:
    """Return the number of an error, of the server's or the client's."""
    number = getattr(error, "errno", None)
    if number is None and error.args:
        number = error.args[0]
    return str(number) if type(number) is int and number > 0 else None
