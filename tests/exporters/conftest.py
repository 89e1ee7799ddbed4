"""Exporters as they are without a spool; who tests it makes one, or asks for ``spooling``."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def without_spool(isolated: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACEKIT_SPOOL", "0")


@pytest.fixture
def spooling(without_spool: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let exporters keep what they cannot send in the state folder of the test."""
    monkeypatch.delenv("TRACEKIT_SPOOL")
