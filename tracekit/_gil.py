"""Whether this interpreter runs one thread at a time."""

from __future__ import annotations

import sys
from typing import Any

__all__ = ["is_locked"]


def is_locked() -> bool:
    """Return False in a free-threaded build of CPython, while its GIL is off.

    There, one call of C is not one step for all threads.
    Source: https://docs.python.org/3/howto/free-threading-python.html
    """
    known: Any = getattr(sys, "_is_gil_enabled", None)
    return known is None or bool(known())
