"""Every server that is there, started; and the reason for each that is not."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from backends.where import NotThereError

__all__ = ["FETCHED", "NAMES", "started"]

FETCHED = ("collector", "datadog", "jaeger", "zipkin")
"""What `make backends` fetches."""

NAMES = (*FETCHED, "datadog_otlp", "honeycomb")


@contextmanager
def started(names: Sequence[str], folder: Path) -> Iterator[dict[str, Any]]:
    """Start servers; yield each by name, or the ``NotThereError`` that says why it is not there."""
    with ExitStack() as stack:
        servers: dict[str, Any] = {}
        for name in names:
            place = folder / name
            place.mkdir()
            module = importlib.import_module(f"backends.{name}")
            try:
                servers[name] = stack.enter_context(module.start(place))
            except NotThereError as error:
                servers[name] = error
        yield servers
