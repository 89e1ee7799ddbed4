"""Where ``make backends`` keeps the servers, and which of them are there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

__all__ = ["FOLDER", "NotThereError", "java", "program"]

FOLDER = Path(os.environ.get("BACKENDS") or Path(__file__).resolve().parents[2] / ".backends")


class NotThereError(Exception):
    """A server that cannot be started here, and why."""


def program(name: str, file: str) -> Path:
    """Return the file of a server that was fetched.

    Raises:
        NotThereError: It was not, or could not be.
    """
    folder = FOLDER / name
    if (folder / "version").exists():
        return folder / file
    try:
        why = (folder / "why-not").read_text().strip().replace("\n", " ")
    except OSError:
        why = "`make backends` fetches it"
    raise NotThereError(f"{name} is not in {FOLDER}: {why}")


def java() -> str:
    found = shutil.which("java")
    if found is None:
        raise NotThereError("there is no java on PATH")
    return found
