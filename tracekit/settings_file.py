"""Settings in a file of their own, ``TRACEKIT_CONFIG``, and reading TOML."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Collection, Mapping
from typing import Any

from tracekit.errors import ConfigurationError, NotInstalledError, UnknownNameError

__all__ = ["VARIABLE", "SettingsFile", "toml_table"]

VARIABLE = "TRACEKIT_CONFIG"
MAX_BYTES = 1024 * 1024

Signature = tuple[int, int, int]


class SettingsFile:
    """A TOML file with the keys of ``[tool.tracekit]`` at its top level.

    It need not be there. Reading it costs about a millisecond, asking for its signature some
    microseconds.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.path.abspath(path)

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> SettingsFile | None:
        """Return the file that the environment names."""
        path = environ.get(VARIABLE, "").strip()
        return cls(os.path.expanduser(path)) if path else None

    def signature(self) -> Signature | None:
        """Return what changes whenever the file does; None where there is none."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def read(self, known: Collection[str]) -> dict[str, tuple[Any, str]]:
        """Return what the file says, each value with its place; nothing where there is no file.

        Args:
            known: The keys that there are.

        Raises:
            ConfigurationError: It is unreadable, malformed, or has another key; with the line.
        """
        try:
            with open(self.path, "rb") as file:
                data = file.read(MAX_BYTES + 1)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigurationError(f"{self.path} cannot be read: {error.strerror}") from None
        text = self._decoded(data)
        table = toml_table(text, self.path)
        places = {key: f"{self.path}, line {_line_of(key, text)}" for key in table}
        for key in table:
            if key not in known:
                raise UnknownNameError("setting", key, known, places[key])
        return {key: (value, places[key]) for key, value in table.items()}

    def _decoded(self, data: bytes) -> str:
        if len(data) > MAX_BYTES:
            raise ConfigurationError(
                f"{self.path} is too large: at most {MAX_BYTES} bytes are read"
            )
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            line = data.count(b"\n", 0, error.start) + 1
            raise ConfigurationError(f"{self.path}, line {line}: not UTF-8: {error}") from None


def toml_table(text: str, path: str) -> dict[str, Any]:
    """Return the table that a TOML text is.

    Raises:
        ConfigurationError: It is not TOML; with the line.
        NotInstalledError: This Python cannot read TOML.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        try:
            import tomli as tomllib
        except ModuleNotFoundError as error:
            raise NotInstalledError(path, "tomli") from error
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"\(at line (\d+)", str(error))
        line = at[1] if at else text.count("\n") + 1
        raise ConfigurationError(f"{path} is not valid TOML: line {line}: {error}") from error


def _line_of(key: str, text: str) -> int:
    """Return the line on which a top-level key is given first."""
    written = rf"^[ \t]*(?:\[\[?[ \t]*)?[\"']?{re.escape(key)}[\"']?[ \t]*[\].=]"
    found = re.search(written, text, re.MULTILINE)
    return text.count("\n", 0, found.start()) + 1 if found else 1
