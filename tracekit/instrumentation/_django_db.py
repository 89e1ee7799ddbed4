"""Django's ORM: one span for each statement, whatever the backend; drivers below are silent.

The seam is what every cursor of Django's calls after the program's own ``execute_wrapper``s, on
connections of every thread, made before or after.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from opentelemetry.trace import Tracer

from tracekit.instrumentation._db import DatabaseSettings, DatabaseSteps, Target, text_of
from tracekit.instrumentation._db_api import DbApi
from tracekit.instrumentation._db_pool import unwatched
from tracekit.instrumentation._db_status import status_of_any
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import quiet
from tracekit.instrumentation._replacing import Replacing
from tracekit.instrumentation._sqlite import target_of_path

__all__ = ["database_patches"]

Call = Callable[..., Any]
Owners = Sequence[object]

_SYSTEMS = {"microsoft": "microsoft.sql_server", "oracle": "oracle.db"}
_UNWATCHED = (
    # What Django sets on a new connection, and whether an old one lives.
    ("django.db.backends.base.base", "BaseDatabaseWrapper.connect"),
    ("django.db.backends.postgresql.base", "DatabaseWrapper.is_usable"),
    ("django.db.backends.oracle.base", "DatabaseWrapper.is_usable"),
)


def database_patches(tracer: Tracer, settings: DatabaseSettings) -> Sequence[Replacing]:
    """Return what watches Django's databases, to be put on with the rest of Django."""
    statements = _Statements(DatabaseSteps(tracer, settings))
    utils = "django.db.backends.utils"
    return (
        Replacing(utils, "CursorWrapper._execute", statements.execute),
        Replacing(utils, "CursorWrapper._executemany", statements.executemany),
        Replacing(utils, "CursorWrapper.callproc", statements.callproc),
        *(
            Replacing(module, name, unwatched, optional=True)
            for module, name in (() if settings.records_pings else _UNWATCHED)
        ),
    )


class _Statements:
    """What replaces the methods of Django's cursors."""

    def __init__(self, steps: DatabaseSteps) -> None:
        self._steps = steps
        self._api = DbApi(steps, self._target_of, _status_of)
        self.callproc = self._api.callproc

    def execute(self, original: Call, owners: Owners) -> Call:
        def _execute(cursor: Any, sql: Any, params: Any, *more: Any) -> Any:
            operation = self._begin(cursor, sql, params) if owners else None
            return self._run(operation, original, cursor, sql, params, *more)

        return _execute

    def executemany(self, original: Call, owners: Owners) -> Call:
        def _executemany(cursor: Any, sql: Any, param_list: Any, *more: Any) -> Any:
            operation = None
            if owners:
                size = len(param_list) if hasattr(param_list, "__len__") else -1
                operation = self._begin(cursor, sql, True, size)
            return self._run(operation, original, cursor, sql, param_list, *more)

        return _executemany

    def _run(
        self, operation: Operation | None, original: Call, cursor: Any, sql: Any, *rest: Any
    ) -> Any:
        if operation is None:
            return original(cursor, sql, *rest)
        try:
            result = original(cursor, self._steps.commented(operation, sql), *rest)
        except BaseException as error:
            self._api.fail(operation, error)
            raise
        rows = self._steps.settings.captures_rows
        operation.succeed(self._api.rows_of(cursor.cursor, result) if rows else None)
        return result

    @quiet
    def _begin(self, cursor: Any, sql: Any, params: Any, size: int = 1) -> Operation | None:
        return self._steps.begin(self._target_of(cursor), text_of(sql), params, size)

    def _target_of(self, cursor: Any) -> Target:
        database = cursor.db
        given, vendor = database.settings_dict, database.vendor
        name = given.get("NAME")
        if vendor == "sqlite":
            return target_of_path(self._steps, name)
        port = str(given.get("PORT") or "")
        return self._steps.target(
            _SYSTEMS.get(vendor, vendor),
            str(name) if name else None,
            given.get("HOST") or None,
            int(port) if port.isdecimal() else None,
        )


def _status_of(error: BaseException) -> str | None:
    # Django's exceptions stand for the driver's, which it keeps as their cause.
    return status_of_any(error.__cause__ or error)
