"""Reads the ids of formats that write them in hexadecimal."""

from __future__ import annotations

import re

from tracekit.propagators._refusal import RefusedError

__all__ = ["exact_id", "short_id"]

_HEX = re.compile("[0-9a-fA-F]+").fullmatch


def exact_id(text: str, reason: str, *lengths: int) -> int:
    """Read an id that has one of some lengths and is not zero; capital letters are let pass."""
    # The length first: nothing long is looked at.
    if len(text) not in lengths or not _HEX(text):
        raise RefusedError(reason)
    return _not_zero(int(text, 16), reason)


def short_id(text: str, reason: str, max_length: int) -> int:
    """Read an id whose leading zeros may be left out."""
    if len(text) > max_length or not _HEX(text):
        raise RefusedError(reason)
    return _not_zero(int(text, 16), reason)


def _not_zero(number: int, reason: str) -> int:
    if number == 0:
        raise RefusedError(reason)
    return number
