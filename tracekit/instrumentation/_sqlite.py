"""Where SQLite is and what it answers, for everything that uses it."""

from __future__ import annotations

import os
from typing import Any

from tracekit.instrumentation._db import DatabaseSteps, Target

__all__ = ["status_of", "target_of_path"]


def target_of_path(steps: DatabaseSteps, path: Any) -> Target:
    """Return the database in a file, by the path or URI that it was opened with."""
    name = os.fsdecode(path) if isinstance(path, (str, bytes, os.PathLike)) else ""
    options = ""
    if name.startswith("file:"):
        name, _, options = name.removeprefix("file:").partition("?")
    in_memory = name in ("", ":memory:") or "mode=memory" in options
    return steps.target("sqlite", name or ":memory:", None, None, in_memory)


def status_of(error: BaseException) -> str | None:
    """Return the name of SQLite's extended result code, which Python tells from 3.11 on."""
    return getattr(error, "sqlite_errorname", None)
