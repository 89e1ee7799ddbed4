"""What a database answered, read from the exception of whichever driver it is."""

from __future__ import annotations

from tracekit.instrumentation._mysql import number_of
from tracekit.instrumentation._sqlite import status_of

__all__ = ["status_of_any"]


def status_of_any(error: BaseException) -> str | None:
    """Return a SQLSTATE, the number of MySQL's error, or the name of SQLite's result code."""
    for name in ("sqlstate", "pgcode"):
        code = getattr(error, name, None)
        # mysql.connector tells both, and its number is what other drivers of MySQL tell.
        if isinstance(code, str) and getattr(error, "errno", None) is None:
            return code
    return status_of(error) or number_of(error)
