"""Where the store file is, when nobody says otherwise."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["default_path", "private_folder", "state_folder"]


def default_path(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Return the store of this user: ``TRACEKIT_STORE``, else a file in their state folder.

    Source: https://specifications.freedesktop.org/basedir-spec/latest/
    """
    environ = os.environ if environ is None else environ
    if chosen := environ.get("TRACEKIT_STORE", "").strip():
        return Path(chosen).expanduser()
    return state_folder(environ, platform) / "traces.db"


def state_folder(environ: Mapping[str, str] | None = None, platform: str = sys.platform) -> Path:
    """Return the folder in which this user's programs keep what outlives them."""
    environ = os.environ if environ is None else environ
    state = environ.get("XDG_STATE_HOME", "")
    # A relative XDG path is invalid and is to be ignored, says the specification.
    if os.path.isabs(state):
        return Path(state) / "tracekit"
    if environ.get("AWS_LAMBDA_FUNCTION_NAME"):
        # The only folder that may be written there.
        # https://docs.aws.amazon.com/lambda/latest/dg/configuration-ephemeral-storage.html
        return Path("/tmp/tracekit")
    if platform == "win32":
        local = environ.get("LOCALAPPDATA")
        return (Path(local) if local else _home() / "AppData" / "Local") / "tracekit"
    if platform == "darwin":
        return _home() / "Library" / "Application Support" / "tracekit"
    return _home() / ".local" / "state" / "tracekit"


def _home() -> Path:
    try:
        return Path.home()
    except RuntimeError:  # no HOME and no entry in passwd: a container with an arbitrary uid
        import tempfile

        user = os.getuid() if hasattr(os, "getuid") else "user"
        return Path(tempfile.gettempdir()) / f"tracekit-{user}"


def private_folder(folder: Path) -> None:
    """Make the folder, readable by its owner only; one that is there already is left as it is."""
    if folder.is_dir():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
