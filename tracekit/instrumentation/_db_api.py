"""The methods of a cursor, watched: one for each way of asking, for every library of PEP 249.

https://peps.python.org/pep-0249/
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from tracekit import semconv
from tracekit.instrumentation._db import DatabaseSteps, Target, text_of
from tracekit.instrumentation._operation import Operation
from tracekit.instrumentation._patch import quiet, report

__all__ = ["Arguments", "DbApi", "Named"]

Call = Callable[..., Any]
CallAsync = Callable[..., Awaitable[Any]]
Owners = Sequence[object]
Arguments = Sequence[Any]
"""What a method was called with, and its cursor first."""
Named = Mapping[str, Any]
_Begin = Callable[[Arguments, Named], "Operation | None"]

_QUERIES = ("query", "operation", "sql", "statement", "procname", "command")
_PARAMETERS = ("params", "vars", "args", "parameters", "params_seq", "vars_list", "seq_params")


class DbApi:
    """What replaces the methods of one library's cursors.

    Every method here takes the library's own function and its owners, and returns the function
    that takes its place.
    """

    def __init__(
        self,
        steps: DatabaseSteps,
        target_of: Callable[[Any], Target],
        status_of: Callable[[BaseException], str | None],
        text_of: Callable[[Any, Any], str] = lambda query, _cursor: text_of(query),
    ) -> None:
        """Say where the library keeps things.

        Args:
            target_of: Where a cursor's queries go.
            status_of: What the database answered, read from the library's exception.
            text_of: A query, which may be an object of the library's, as text.
        """
        self.steps = steps
        self._begin = steps.begin
        self._target_of = target_of
        self._status_of = status_of
        self._text_of = text_of
        self._captures_rows = steps.settings.captures_rows
        self._writes_comments = steps.settings.writes_comments

    def execute(self, original: Call, owners: Owners) -> Call:
        return self._around(
            original, owners, self._begin_query, self._writes_comments, self._captures_rows
        )

    def execute_async(self, original: CallAsync, owners: Owners) -> CallAsync:
        return self._around_async(
            original, owners, self._begin_query, self._writes_comments, self._captures_rows
        )

    def executemany(self, original: Call, owners: Owners) -> Call:
        return self._around(original, owners, self._begin_batch)

    def executemany_async(self, original: CallAsync, owners: Owners) -> CallAsync:
        return self._around_async(original, owners, self._begin_batch)

    def callproc(self, original: Call, owners: Owners) -> Call:
        return self._around(original, owners, self._begin_procedure)

    def callproc_async(self, original: CallAsync, owners: Owners) -> CallAsync:
        return self._around_async(original, owners, self._begin_procedure)

    def _around(
        self,
        original: Call,
        owners: Owners,
        begin: _Begin,
        writes_comments: bool = False,
        captures_rows: bool = False,
    ) -> Call:
        # The cursor is among `args`: these go on as they are, and are not put together anew.
        def call(*args: Any, **kwargs: Any) -> Any:
            operation = begin(args, kwargs) if owners else None
            if operation is None:
                return original(*args, **kwargs)
            if writes_comments:
                args, kwargs = self._commented(operation, args, kwargs)
            try:
                result = original(*args, **kwargs) if kwargs else original(*args)
            except BaseException as error:
                self.fail(operation, error)
                raise
            operation.succeed(self.rows_of(args[0], result) if captures_rows else None)
            return result

        return call

    def _around_async(
        self,
        original: CallAsync,
        owners: Owners,
        begin: _Begin,
        writes_comments: bool = False,
        captures_rows: bool = False,
    ) -> CallAsync:
        async def call(*args: Any, **kwargs: Any) -> Any:
            operation = begin(args, kwargs) if owners else None
            if operation is None:
                return await original(*args, **kwargs)
            if writes_comments:
                args, kwargs = self._commented(operation, args, kwargs)
            try:
                result = await (original(*args, **kwargs) if kwargs else original(*args))
            except BaseException as error:
                self.fail(operation, error)
                raise
            operation.succeed(self.rows_of(args[0], result) if captures_rows else None)
            return result

        return call

    def _begin_query(self, args: Arguments, kwargs: Named) -> Operation | None:
        # try and not `quiet`: one frame less for each query of the program.
        try:
            if len(args) == 3:
                cursor, query, parameters = args
            else:
                cursor, query, parameters = _asked(args, kwargs)
            if type(query) is not str:
                query = self._text_of(query, cursor)
            return self._begin(self._target_of(cursor), query, parameters)
        except Exception:
            report("what is known of a query")
            return None

    def begin_apart(self, args: Arguments, kwargs: Named) -> Operation | None:
        """Start the span of a query that code of the program's runs in the middle of."""
        operation = self._begin_query(args, kwargs)
        if operation is not None:
            operation.leave()
        return operation

    @quiet
    def _begin_batch(self, args: Arguments, kwargs: Named) -> Operation | None:
        cursor, query, rows = _asked(args, kwargs)
        # Nothing is taken from an iterator: what is counted would be lost to the library.
        size = len(rows) if hasattr(rows, "__len__") else -1
        text = self._text_of(query, cursor)
        return self._begin(self._target_of(cursor), text, parameters=True, batch_size=size)

    @quiet
    def _begin_procedure(self, args: Arguments, kwargs: Named) -> Operation | None:
        cursor, name, parameters = _asked(args, kwargs)
        target = self._target_of(cursor)
        return self.steps.begin_procedure(target, text_of(name), parameters)

    def _commented(
        self, operation: Operation, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if len(args) > 1:
            cursor, query, *others = args
            return (cursor, self.steps.commented(operation, query), *others), kwargs
        named = {
            name: self.steps.commented(operation, value) if name in _QUERIES else value
            for name, value in kwargs.items()
        }
        return args, named

    def fail(self, operation: Operation, error: BaseException) -> None:
        """End the span of a call that raised `error`. Never raises."""
        attributes = None
        try:
            code = self._status_of(error)
            if code:
                attributes = {semconv.DB_RESPONSE_STATUS_CODE: code, semconv.ERROR_TYPE: code}
        except Exception:
            report("the reading of a database's error")
        operation.fail(error, attributes)

    @quiet
    def rows_of(self, cursor: Any, _result: Any) -> Mapping[str, Any] | None:
        """Return how many rows a query returned, where the library knows and that was asked."""
        if cursor.description is None or not isinstance(cursor.rowcount, int):
            return None
        count = cursor.rowcount
        return {semconv.DB_RESPONSE_RETURNED_ROWS: count} if count >= 0 else None


def _asked(args: Arguments, kwargs: Named) -> tuple[Any, Any, Any]:
    """Return the cursor, what it is asked, and the values that go with it."""
    query = args[1] if len(args) > 1 else _named(kwargs, _QUERIES)
    return args[0], query, args[2] if len(args) > 2 else _named(kwargs, _PARAMETERS)


def _named(kwargs: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((kwargs[name] for name in names if name in kwargs), "")
