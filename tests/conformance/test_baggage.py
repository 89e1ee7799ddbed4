"""W3C Baggage, clause by clause: https://www.w3.org/TR/baggage/."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import baggage
from opentelemetry.context import Context

from tracekit.propagators.baggage import BaggagePropagator


def received(header: Any) -> dict[str, object]:
    return dict(baggage.get_all(BaggagePropagator().extract({"baggage": header}, Context())))


def sent(values: dict[str, object]) -> str:
    context = Context()
    for key, value in values.items():
        context = baggage.set_baggage(key, value, context)
    carrier: dict[str, str] = {}
    BaggagePropagator().inject(carrier, context)
    return carrier["baggage"]


def test_header_is_named_baggage() -> None:
    """The header's name is `baggage`, kept in lower case.

    https://www.w3.org/TR/baggage/#header-name
    """
    assert BaggagePropagator().fields == {"baggage"}


def test_several_headers_are_combined() -> None:
    """Several baggage headers are allowed and are combined as one list.

    https://www.w3.org/TR/baggage/#baggage-http-header-format
    """
    assert received(["a=1", "b=2"]) == {"a": "1", "b": "2"}


@pytest.mark.parametrize("header", ["a \t=1", "\ta=1", "a=\t1", "a=1 \t", " a = 1 ; p = 2 "])
def test_white_space_around_keys_and_values_is_trimmed(header: str) -> None:
    """Optional white space around keys and values must be trimmed.

    https://www.w3.org/TR/baggage/#key
    """
    assert received(header) == {"a": "1"}


@pytest.mark.parametrize("key", ["!#$%&'*+-.^_`|~0aZ", "a%20b"])
def test_key_is_a_token_and_stands_for_itself(key: str) -> None:
    """A key is a token of RFC 7230; nothing in it is encoded.

    https://www.w3.org/TR/baggage/#key
    """
    assert received(f"{key}=1") == {key: "1"}
    assert sent({key: "1"}) == f"{key}=1"


@pytest.mark.parametrize("key", ["a b", "a(b", "a/b", 'a"', "\u00e9", ""])
def test_key_that_is_no_token_is_neither_read_nor_sent(key: str) -> None:
    """The same.

    https://www.w3.org/TR/baggage/#key
    """
    assert received(f"{key}=1") == {}
    assert sent({key: "1", "ok": "1"}) == "ok=1"


def test_equal_signs_may_be_in_a_value() -> None:
    """Parsers must not assume that the equals sign only separates key and value.

    https://www.w3.org/TR/baggage/#value
    """
    assert received("a=b=c==") == {"a": "b=c=="}


@pytest.mark.parametrize("octet", [" ", '"', ",", ";", "\\", "%", "\x00", "\x7f", "\u20ac"])
def test_what_is_no_baggage_octet_is_percent_encoded(octet: str) -> None:
    """Characters outside baggage-octet must be percent-encoded, and so must the percent sign.

    https://www.w3.org/TR/baggage/#value
    """
    encoded = "".join(f"%{byte:02X}" for byte in octet.encode())
    assert sent({"a": octet}) == f"a={encoded}"
    assert received(f"a={encoded}") == {"a": octet}


def test_bytes_that_are_no_utf_8_become_the_replacement_character() -> None:
    """Octets that do not match UTF-8 must be replaced by U+FFFD.

    https://www.w3.org/TR/baggage/#value
    """
    assert received("a=x%ffy") == {"a": "x\ufffdy"}


def test_properties_are_not_part_of_the_value_and_are_passed_on() -> None:
    """A value may have properties; their meaning is opaque, and they should be passed on.

    https://www.w3.org/TR/baggage/#property
    """
    values = received("a=1;k1=v1;k2;k3=v3")
    assert values == {"a": "1"}
    assert sent(values) == "a=1;k1=v1;k2;k3=v3"


def test_64_members_are_propagated() -> None:
    """At least 64 list-members must be propagated.

    https://www.w3.org/TR/baggage/#limits
    """
    values: dict[str, object] = {f"k{n}": str(n) for n in range(64)}
    assert received(sent(values)) == values


def test_8192_bytes_are_propagated() -> None:
    """A baggage-string of at least 8192 bytes must be propagated.

    https://www.w3.org/TR/baggage/#limits
    """
    header = ",".join(f"k{n}=" + "x" * 1020 for n in range(8))
    header += "x" * (8192 - len(header))
    assert len(header) == 8192
    assert sent(received(header)) == header


def test_bad_member_does_not_take_the_others_with_it() -> None:
    """A member that is not in the format may be removed before the header is passed on.

    https://www.w3.org/TR/baggage/#mutating-baggage
    """
    assert received("a=1,b,c=3") == {"a": "1", "c": "3"}
