"""The servers that ``make backends`` fetches, which the tests know how to find and start."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from benchmarks.fresh import ROOT

__all__ = ["backends"]


def backends(module: str) -> Any:
    """Return a module of ``tests/backends``."""
    tests = str(ROOT / "tests")
    sys.path.insert(0, tests)
    try:
        return import_module(f"backends.{module}")
    finally:
        sys.path.remove(tests)
