"""A store file of its own for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tracekit.store.reader import StoreReader
from tracekit.store.writer import StoreWriter


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "traces.db"


@pytest.fixture
def writer(path: Path) -> Iterator[StoreWriter]:
    made = StoreWriter(path)
    yield made
    made.close()


@pytest.fixture
def reader(path: Path) -> Iterator[StoreReader]:
    with StoreReader(path) as made:
        yield made
