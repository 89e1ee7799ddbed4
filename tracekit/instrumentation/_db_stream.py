"""Results that are read while the database call goes on: one span for all of it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any

from tracekit.instrumentation._db_api import DbApi

__all__ = ["DbStreams"]

Owners = Sequence[object]


class DbStreams:
    """What replaces generators and blocks of one library's cursors.

    None makes its span current: code of the program's runs in between.
    """

    def __init__(self, api: DbApi) -> None:
        self._api = api

    def rows(self, original: Callable[..., Iterator[Any]], owners: Owners) -> Any:
        """Replace a generator of rows."""

        def stream(cursor: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            operation = self._api.begin_apart((cursor, *args), kwargs) if owners else None
            if operation is None:
                yield from original(cursor, *args, **kwargs)
                return
            try:
                yield from original(cursor, *args, **kwargs)
            except BaseException as error:
                self._api.fail(operation, error)
                raise
            operation.succeed()

        return stream

    def rows_async(self, original: Callable[..., AsyncIterator[Any]], owners: Owners) -> Any:
        """Replace an asynchronous generator of rows."""

        async def stream(cursor: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            operation = self._api.begin_apart((cursor, *args), kwargs) if owners else None
            rows: Any = original(cursor, *args, **kwargs)
            try:
                async for row in rows:
                    yield row
            except BaseException as error:
                await rows.aclose()
                if operation is not None:
                    self._api.fail(operation, error)
                raise
            if operation is not None:
                operation.succeed()

        return stream

    def block(self, original: Callable[..., Any], owners: Owners) -> Any:
        """Replace what returns a context manager, such as ``copy``."""

        @contextmanager
        def block(cursor: Any, *args: Any, **kwargs: Any) -> Iterator[Any]:
            operation = self._api.begin_apart((cursor, *args), kwargs) if owners else None
            try:
                with original(cursor, *args, **kwargs) as inside:
                    yield inside
            except BaseException as error:
                if operation is not None:
                    self._api.fail(operation, error)
                raise
            if operation is not None:
                operation.succeed()

        return block

    def block_async(self, original: Callable[..., Any], owners: Owners) -> Any:
        """Replace what returns an asynchronous context manager."""

        @asynccontextmanager
        async def block(cursor: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
            operation = self._api.begin_apart((cursor, *args), kwargs) if owners else None
            try:
                async with original(cursor, *args, **kwargs) as inside:
                    yield inside
            except BaseException as error:
                if operation is not None:
                    self._api.fail(operation, error)
                raise
            if operation is not None:
                operation.succeed()

        return block
