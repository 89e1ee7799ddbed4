"""W3C Baggage: the `baggage` header."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote, unquote

from opentelemetry.context import Context, get_current
from opentelemetry.propagators.textmap import (
    Getter,
    Setter,
    TextMapPropagator,
    default_getter,
    default_setter,
)

from tracekit._otel_baggage import BAGGAGE_KEY
from tracekit.propagators._baggage_entries import (
    MAX_BYTES,
    MAX_ENTRIES,
    MAX_ENTRY_BYTES,
    bounded,
    entry_values,
    is_name,
    is_token,
    text_of,
    with_entries,
)
from tracekit.propagators._headers import header_values
from tracekit.propagators._refusal import RefusedError, count_refusal

__all__ = ["BaggagePropagator", "BaggageValue", "plugin"]

# https://www.w3.org/TR/baggage/#definition
_OCTETS = r"[\x21\x23-\x2b\x2d-\x3a\x3c-\x5b\x5d-\x7e]*"
_IS_VALUE = re.compile(_OCTETS).fullmatch
_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_IS_PROPERTY = re.compile(rf"{_TOKEN}(?:[ \t]*=[ \t]*{_OCTETS})?").fullmatch
# The octets that are sent as they are. Besides "%", "+" is encoded too: the text gives it no
# meaning, but opentelemetry-api and everything made for forms read it as a space.
_SAFE = "!#$&'()*-./:<=>?@[]^_`{|}~"
_NEEDS_NO_QUOTING = re.compile(r"[!#$&'()*\-./:<=>?@\[\]^_`{|}~0-9A-Za-z]*").fullmatch


class BaggageValue(str):
    """A baggage value that came with properties; they go on with it to the next service.

    Attributes:
        properties: As in the header, joined by semicolons: `ttl=30;secret`.
    """

    __slots__ = ("properties",)

    properties: str

    def __new__(cls, value: str, properties: str = "") -> BaggageValue:
        made = super().__new__(cls, value)
        made.properties = properties
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return BaggageValue, (str(self), self.properties)


class BaggagePropagator(TextMapPropagator):
    """Carry the baggage of the context in the `baggage` header.

    At most 180 entries, 4096 bytes each and 8192 together. A value is percent-encoded UTF-8; a
    name is a token and is sent as it is, so an entry whose name is none stays at home.

    Attributes:
        refused: How often something could not be used, by reason.

    Source: https://www.w3.org/TR/baggage/
    """

    injects_key = BAGGAGE_KEY
    extracts_headers = ("baggage", "Baggage")
    reads = ("baggage",)

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}

    @property
    def fields(self) -> set[str]:
        return {"baggage"}

    def inject(
        self,
        carrier: Any,
        context: Context | None = None,
        setter: Setter[Any] = default_setter,
    ) -> None:
        """Write the header, if there is an entry that can be written."""
        entries = entry_values(context)
        if not entries:
            return
        members = ",".join([f"{key}={value}" for key, value in bounded(self._encoded(entries))])
        if members:
            setter.set(carrier, "baggage", members)

    def _encoded(self, entries: Iterable[tuple[object, object]]) -> Iterator[tuple[str, str]]:
        for key, value in entries:
            # Nearly all are plain text already.
            if type(key) is str and type(value) is str and _is_plain(key, value):
                yield key, value
                continue
            if not is_name(key):
                count_refusal(self.refused, "baggage_key")
                continue
            try:
                yield str(key), _encoded_value(value)
            except RefusedError as error:
                count_refusal(self.refused, error.reason)

    def extract(
        self,
        carrier: Any,
        context: Context | None = None,
        getter: Getter[Any] = default_getter,
    ) -> Context:
        """Return the context with the caller's entries added to its own.

        Without a context it is the current one, as with opentelemetry-api's propagator. A bad
        member is left out and the others are kept; a header that is too long is not read.
        """
        if context is None:
            context = get_current()
        # Most requests have none.
        if (
            getter is default_getter
            and type(carrier) is dict
            and "baggage" not in carrier
            and "Baggage" not in carrier
        ):
            return context
        values = header_values(carrier, "baggage", getter, "Baggage")
        if not values:
            return context
        try:
            header = _combined(values)
        except RefusedError as error:
            count_refusal(self.refused, error.reason)
            return context
        entries = self._entries(header)
        return with_entries(context, entries) if entries else context

    def _entries(self, header: str) -> dict[str, object]:
        entries: dict[str, object] = {}
        for member in header.split(","):
            text = member.strip(" \t")
            if not text:
                continue
            try:
                key, value = _parsed(text)
            except RefusedError as error:
                count_refusal(self.refused, error.reason)
                continue
            if len(entries) == MAX_ENTRIES and key not in entries:
                count_refusal(self.refused, "baggage_too_many_members")
                break
            entries[key] = value
        return entries


def _is_plain(key: str, value: str) -> bool:
    # The lengths first: nothing long is looked at.
    if len(key) + len(value) >= MAX_ENTRY_BYTES:
        return False
    return is_token(key) is not None and _NEEDS_NO_QUOTING(value) is not None


def _combined(values: list[Any]) -> str:
    # "Multiple baggage headers are allowed. Values can be combined in a single header"
    length = 0
    for value in values:
        if not isinstance(value, str):
            raise RefusedError("baggage_type")
        length += len(value) + 1
    if length - 1 > MAX_BYTES:
        raise RefusedError("baggage_length")
    return ",".join(values)


def _parsed(member: str) -> tuple[str, str]:
    if len(member) > MAX_ENTRY_BYTES:
        raise RefusedError("baggage_member_length")
    pair, *properties = member.split(";")
    # "Parsers MUST NOT assume that the equal sign is only used to separate key and value."
    key, equals, encoded = pair.partition("=")
    key = key.strip(" \t")
    encoded = encoded.strip(" \t")
    if not equals or not is_token(key):
        raise RefusedError("baggage_key")
    if not _IS_VALUE(encoded):
        raise RefusedError("baggage_value")
    # Bytes that are no UTF-8 become U+FFFD, as https://www.w3.org/TR/baggage/#value says.
    value = unquote(encoded) if "%" in encoded else encoded
    if properties:
        return key, BaggageValue(value, _checked_properties(properties))
    return key, value


def _checked_properties(properties: list[str]) -> str:
    trimmed = [text.strip(" \t") for text in properties]
    if not all(map(_IS_PROPERTY, trimmed)):
        raise RefusedError("baggage_property")
    return ";".join(trimmed)


def _encoded_value(value: object) -> str:
    text = text_of(value)
    if text is None:
        raise RefusedError("baggage_value")
    # Before it is encoded: a megabyte is not worth the copy.
    if len(text) > MAX_ENTRY_BYTES:
        raise RefusedError("baggage_member_length")
    encoded = text if _NEEDS_NO_QUOTING(text) else quote(text, _SAFE, errors="replace")
    if isinstance(value, BaggageValue) and value.properties:
        return f"{encoded};{value.properties}"
    return encoded


plugin: type[TextMapPropagator] = BaggagePropagator
