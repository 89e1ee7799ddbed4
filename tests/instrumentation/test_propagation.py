"""Trace headers go where they may, and baggage to nobody who was not meant."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import baggage
from opentelemetry.context import Context

from tracekit.errors import InvalidValueError
from tracekit.instrumentation._propagation import ANY_HOST, PropagationHosts, hosts_of, is_inside

PLAIN = Context({"a": 1})
LADEN = baggage.set_baggage("user", "amy", PLAIN)


def allows(hosts: PropagationHosts, host: str) -> bool:
    return hosts.context_for(host, LADEN) is LADEN


@pytest.mark.parametrize(
    ("globs", "host", "allowed"),
    [
        (["shop.internal"], "shop.internal", True),
        (["shop.internal"], "SHOP.internal", True),
        (["Shop.internal "], "shop.internal", True),
        (["shop.internal"], "evil-shop.internal", False),
        (["shop.internal"], "shop.internal.evil", False),
        (["*.internal"], "shop.internal", True),
        (["*.internal"], "internal", False),
        (["a", "b"], "b", True),
        (["10.0.0.?"], "10.0.0.7", True),
        (["fd00:*"], "fd00::1", True),
        (["*"], "anything.example", True),
        (["inside"], "10.1.2.3", True),
        (["inside", "api.example.com"], "api.example.com", True),
        (["inside"], "api.example.com", False),
        ([], "anything", False),
    ],
)
def test_hosts_are_matched_whole(globs: list[str], host: str, allowed: bool) -> None:
    hosts = hosts_of(globs, {})
    assert [hosts.context_for(host, PLAIN), hosts.context_for(host, LADEN)] == (
        [PLAIN, LADEN] if allowed else [None, None]
    )


def test_a_host_off_the_list_is_told_nothing_without_baggage_either() -> None:
    assert hosts_of("a,b", {}).context_for("c", Context()) is None


def test_without_a_list_an_outside_host_gets_all_but_the_baggage() -> None:
    told = ANY_HOST.context_for("api.example.com", LADEN)
    assert told is not None
    assert (told["a"], dict(baggage.get_all(told))) == (1, {})
    assert ANY_HOST.context_for("api.example.com", PLAIN) is PLAIN
    assert ANY_HOST.context_for("api.example.com", told) == told


@pytest.mark.parametrize(
    "host",
    """localhost payments redis-0 shop.localhost printer.local db.internal api.shop.svc
    api.shop.svc.cluster.local gw.corp nas.lan router.home.arpa shop.test 127.0.0.1 10.9.8.7
    172.16.0.1 192.168.1.1 169.254.1.1 100.64.0.1 ::1 fd12::1 fe80::1%eth0 ::ffff:10.0.0.1
    db.internal.""".split(),
)
def test_what_can_only_be_inside_is(host: str) -> None:
    assert is_inside(host)


@pytest.mark.parametrize(
    "host",
    """api.example.com internal.example.com svc.example.com 8.8.8.8 1.1.1.1 2606:4700::1111
    ::ffff:8.8.8.8 134744072 0x08080808 8.8.2056 mylocal.com notsvc.svc.com local.evil.io
    . ..""".split(),
)
def test_what_may_be_somebody_elses_is_not(host: str) -> None:
    assert not is_inside(host)


@given(st.ip_addresses())
def test_an_address_of_the_internet_is_never_inside(
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    assert is_inside(str(address)) is not (mapped or address).is_global


@given(st.text())
def test_any_text_can_be_asked_for(host: str) -> None:
    assert isinstance(is_inside(host.lower()), bool)
    assert ANY_HOST.context_for(host, LADEN) is not None


def test_a_bounded_number_of_hosts_is_remembered() -> None:
    hosts = hosts_of("*.internal", {})
    for number in range(5000):
        assert allows(hosts, f"h{number}.internal")
    assert len(hosts._known) <= 1024


@pytest.mark.parametrize(
    "entry", ["https://a.example", "a.example/v1", "a.example:443", "u@a", "a b"]
)
def test_an_entry_that_no_host_can_match_is_refused(entry: str) -> None:
    with pytest.raises(InvalidValueError, match="without scheme, port or path"):
        hosts_of(None, {"TRACEKIT_PROPAGATION_HOSTS": f"ok.internal,{entry}"})
