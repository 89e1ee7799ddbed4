"""Where an exporter keeps what it cannot send, as given by an argument or by variables."""

from __future__ import annotations

import os
from typing import Any

from tracekit.exporters._given import Given, from_environment
from tracekit.store.spool import DEFAULT_MAX_AGE_S, DEFAULT_MAX_BYTES, LEAST_BYTES, Spool

__all__ = ["GivenSpool", "chosen_spool"]

GivenSpool = Spool | str | os.PathLike[str] | bool | None
"""A spool, its path, False for none; None and True for what the variables say."""

_NONE = ("0", "false", "no", "none", "off")


def chosen_spool(argument: Any) -> Spool | None:
    """Return the spool to use; nothing is opened or made.

    Raises:
        ConfigurationError: The argument or a variable cannot be used.
    """
    if argument is False:
        return None
    if isinstance(argument, Spool):
        return argument
    limits = (
        _number("TRACEKIT_SPOOL_MAX_BYTES", DEFAULT_MAX_BYTES, LEAST_BYTES),
        _number("TRACEKIT_SPOOL_MAX_AGE", DEFAULT_MAX_AGE_S, 1),
    )
    if isinstance(argument, (str, os.PathLike)) and os.fspath(argument):
        return Spool(argument, int(limits[0]), limits[1])
    if argument is not None and argument is not True:
        raise Given(argument, "spool (argument)").refused("a Spool, the path of one, or False")
    given = from_environment("TRACEKIT_SPOOL")
    if given is not None and given.value.lower() in _NONE:
        return None
    return Spool(given.value if given else None, int(limits[0]), limits[1])


def _number(name: str, default: float, least: int) -> float:
    given = from_environment(name)
    if given is None:
        return default
    text = given.value
    if not (text.isascii() and text.isdecimal() and len(text) <= 15 and int(text) >= least):
        raise given.refused(f"a whole number, at least {least}")
    return float(text)
