"""The tracestate of a caller, as sent until somebody reads it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, overload

from opentelemetry.trace import TraceState

from tracekit.propagators._refusal import RefusedError, count_refusal

__all__ = ["MAX_RECEIVED", "MAX_SENT", "RemoteTraceState", "truncated"]

# "Vendors SHOULD propagate at least 512 characters of a combined header."
# https://www.w3.org/TR/trace-context-2/#tracestate-limits
MAX_SENT = 512
# What common servers accept as one header line, and the limit of opentelemetry-api.
MAX_RECEIVED = 8192
# "There can be a maximum of 32 list-members in a list."
# https://www.w3.org/TR/trace-context-2/#tracestate-header-field-values
_MAX_MEMBERS = 32
# "Entries larger than 128 characters long SHOULD be removed first."
_LARGE_MEMBER = 128

# Level 2 has one rule for keys, wider than the two of Level 1: "@" anywhere but in front, and a
# digit may come first. opentelemetry-api still checks Level 1.
# https://www.w3.org/TR/trace-context-2/#key
_KEY = r"[a-z0-9][a-z0-9_\-*/@]{0,255}"
# https://www.w3.org/TR/trace-context-2/#value
_VALUE = r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}(?<! )"
_MEMBER = re.compile(f"({_KEY})=({_VALUE})").fullmatch
# A whole header without white space and empty members, as nearly all are. No two parts of it can
# match the same text, so it takes one pass whatever is sent.
_PLAIN = re.compile(f"{_KEY}={_VALUE}(?:,{_KEY}={_VALUE})*").fullmatch
_KEY_MATCH = re.compile(_KEY).fullmatch
_VALUE_MATCH = re.compile(_VALUE).fullmatch


def parse(header: str) -> dict[str, str]:
    """Read a combined tracestate header.

    Raises:
        RefusedError: One member is bad, repeated or too many; then none of them is used.
    """
    if _PLAIN(header):
        pairs = [member.split("=") for member in header.split(",")]
        members = dict(pairs)
        if len(members) == len(pairs) <= _MAX_MEMBERS:
            return members
    return _parse_by_member(header)


def _parse_by_member(header: str) -> dict[str, str]:
    members: dict[str, str] = {}
    for raw in header.split(","):
        # Spaces and tabs around a member are not part of it, those inside a value are:
        # https://www.w3.org/TR/trace-context-2/#value
        member = raw.strip(" \t")
        # "Empty and whitespace-only list members are allowed."
        if not member:
            continue
        match = _MEMBER(member)
        if match is None:
            raise RefusedError("tracestate_member")
        key, value = match.groups()
        # "Only one entry per key is allowed":
        # https://www.w3.org/TR/trace-context-2/#combined-header-value
        if key in members:
            raise RefusedError("tracestate_duplicate_key")
        members[key] = value
    if len(members) > _MAX_MEMBERS:
        raise RefusedError("tracestate_too_many_members")
    return members


def truncated(header: str) -> str:
    """Shorten a tracestate header to what is sent, by whole members.

    Large members go first, the last of them before the others, then members from the end.
    Source: https://www.w3.org/TR/trace-context-2/#tracestate-limits
    """
    members = header.split(",")
    excess = len(header) - MAX_SENT
    for index in reversed(range(len(members))):
        if excess > 0 and len(members[index]) > _LARGE_MEMBER:
            excess -= len(members.pop(index)) + 1
    while excess > 0 and members:
        excess -= len(members.pop()) + 1
    return ",".join(members)


class _ParsedOnFirstRead:
    """Stands for `_dict` until it is read; then the instance's own attribute hides it.

    Most tracestate headers are received by services that never look into them.
    """

    @overload
    def __get__(self, state: None, owner: type) -> _ParsedOnFirstRead: ...
    @overload
    def __get__(self, state: RemoteTraceState, owner: type) -> dict[str, str]: ...
    def __get__(
        self, state: RemoteTraceState | None, owner: type
    ) -> dict[str, str] | _ParsedOnFirstRead:
        if state is None:
            return self
        try:
            members = parse(state._header)
        except RefusedError as error:
            count_refusal(state._refused, error.reason)
            members = {}
        state.__dict__["_dict"] = members
        return members


class RemoteTraceState(TraceState):
    """A tracestate by the grammar of Trace Context Level 2, parsed when it is first read.

    Adding, updating and deleting give a new one of the same kind, so that the keys which only
    Level 2 allows stay in. A pair that is not valid leaves the state as it is.
    """

    _header: str
    _text: str | None = None
    _refused: dict[str, int]
    _dict = _ParsedOnFirstRead()  # pyright: ignore[reportAssignmentType]

    def __init__(self, entries: Sequence[tuple[str, str]] | None = None) -> None:
        members = {key: value for key, value in entries or () if _is_pair(key, value)}
        self.__dict__["_dict"] = members if len(members) <= _MAX_MEMBERS else {}

    @classmethod
    def received(cls, header: str, refused: dict[str, int]) -> RemoteTraceState:
        """Keep a header for later.

        Args:
            header: At most MAX_RECEIVED characters; several fields joined by commas.
            refused: Where a refusal is counted, when the time comes.
        """
        state: RemoteTraceState = object.__new__(cls)
        state._header = header
        state._refused = refused
        return state

    @classmethod
    def from_header(cls, header_list: list[str]) -> RemoteTraceState:
        """Read one or more tracestate headers; empty if any of them is bad."""
        return cls.received(",".join(header_list), {})

    def to_header(self) -> str:
        """Write the members as one header, without white space."""
        text = self._text
        if text is None:
            text = self._text = super().to_header()
        return text

    def add(self, key: str, value: str) -> TraceState:
        """Return a state with a new pair in front."""
        if key in self or len(self) >= _MAX_MEMBERS:
            return self
        return self.update(key, value)

    def update(self, key: str, value: str) -> TraceState:
        """Return a state with the pair in front, replacing an older one of that key."""
        if not _is_pair(key, value) or (key not in self and len(self) >= _MAX_MEMBERS):
            return self
        # "Modified keys MUST be moved to the beginning (left) of the list":
        # https://www.w3.org/TR/trace-context-2/#mutating-the-tracestate-field
        rest = [(other, kept) for other, kept in self.items() if other != key]
        return type(self)([(key, value), *rest])

    def delete(self, key: str) -> TraceState:
        """Return a state without a key."""
        if key not in self:
            return self
        return type(self)([(other, kept) for other, kept in self.items() if other != key])

    def __reduce__(self) -> tuple[Any, ...]:
        # The counter stays at home: a copy in another process has nobody to report to.
        return type(self), (list(self.items()),)


def _is_pair(key: object, value: object) -> bool:
    return (
        isinstance(key, str)
        and isinstance(value, str)
        and _KEY_MATCH(key) is not None
        and _VALUE_MATCH(value) is not None
    )
