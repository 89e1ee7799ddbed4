"""URLs become attributes without their secrets, whatever they look like."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit._url_secrets import LONGEST_URL, redact_query, redact_text, redact_url
from tracekit.instrumentation._url import Origin, UrlParts, origin_of, split_url

CONVENTION_KEYS = [
    "X-Amz-Signature",
    "X-Amz-Credential",
    "X-Amz-Security-Token",
    "AWSAccessKeyId",
    "Signature",
    "sig",
    "X-Goog-Signature",
]
OWN_KEYS = [
    "access_token",
    "access-token",
    "accessToken",
    "token",
    "api_key",
    "apikey",
    "apiKey",
    "API_KEY",
    "password",
    "secret",
    "client_secret",
    "auth",
    "jwt",
    "refresh_token",
]


@pytest.mark.parametrize("key", CONVENTION_KEYS + OWN_KEYS)
def test_value_of_a_secret_key_is_replaced(key: str) -> None:
    url = redact_url(f"https://shop/cart?page=2&{key}=s3cr3t&{key}=again#top")
    assert url == f"https://shop/cart?page=2&{key}=REDACTED&{key}=REDACTED#top"


@pytest.mark.parametrize(
    "query",
    [
        "page_token=abc",
        "tokens=3",
        "author=amy",
        "authors=amy",
        "design=flat",
        "signal=1",
        "passwordless=1",
        "session=spring",
        "secretary=joe",
        "key=user/42",
        "keyword=shoes",
        "monkey=1",
        "q=token",
        "q=password=1",
        "token",
        "token=",
        "",
    ],
)
def test_keys_that_only_look_alike_are_kept(query: str) -> None:
    assert redact_url(f"https://shop/cart?{query}") == f"https://shop/cart?{query}"


@pytest.mark.parametrize(
    "value", ["AIzaSyA-1234567890abcdefghijklmnopqrstu", "0123456789abcdef" * 2]
)
def test_key_is_a_secret_when_its_value_looks_like_one(value: str) -> None:
    assert redact_url(f"https://maps/?key={value}") == "https://maps/?key=REDACTED"


def test_escapes_do_not_hide_a_secret_key() -> None:
    assert redact_url("https://shop/?%74oken=s3cr3t") == "https://shop/?%74oken=REDACTED"


def test_secret_in_a_fragment_is_replaced() -> None:
    url = redact_url("https://shop/#access_token=s3cr3t&state=1")
    assert url == "https://shop/#access_token=REDACTED&state=1"


def test_semicolons_separate_too() -> None:
    assert redact_url("https://shop/?a=1;token=x") == "https://shop/?a=1;token=REDACTED"


@pytest.mark.parametrize(
    ("url", "redacted"),
    [
        ("http://amy:pw@shop/", "http://REDACTED:REDACTED@shop/"),
        ("http://amy@shop/", "http://REDACTED:REDACTED@shop/"),
        ("http://a@b:p@w@shop:80/x@y", "http://REDACTED:REDACTED@shop:80/x@y"),
        ("//amy:pw@shop/", "//REDACTED:REDACTED@shop/"),
        ("http://amy:pa/ss@shop/", "http://REDACTED:REDACTED@shop/"),
        ("http://amy:pa?ss@shop/", "http://REDACTED:REDACTED@shop/"),
        ("http://shop/@amy", "http://shop/@amy"),
        ("http://shop:80/users/@me?mail=a@b", "http://shop:80/users/@me?mail=a@b"),
        ("http://[::1]:80/@me", "http://[::1]:80/@me"),
        ("mailto:amy@shop", "mailto:amy@shop"),
    ],
)
def test_userinfo_is_replaced_and_other_at_signs_are_kept(url: str, redacted: str) -> None:
    assert redact_url(url) == redacted


def test_url_without_secrets_is_the_same_object() -> None:
    url = "https://shop/cart?page=2"
    assert redact_url(url) is url


def test_long_url_is_cut_and_marked() -> None:
    url = redact_url("https://shop/?q=" + "x" * 1_000_000)
    assert len(url) == LONGEST_URL
    assert url.endswith("x…")


def test_cut_does_not_uncover_userinfo() -> None:
    url = redact_url(f"http://amy:{'s3cr3t' * 10_000}@shop/")
    assert url == "http://REDACTED:REDACTED@shop/"


def test_cut_does_not_uncover_a_value() -> None:
    assert "s3cr3t" not in redact_url(f"http://shop/?token={'s3cr3t' * 10_000}")


@pytest.mark.parametrize("part", ["?&=", "@", "#", "%", ";", "http://", "a=b&", "\ud800"])
def test_hostile_megabytes_cost_milliseconds(part: str) -> None:
    url = "http://" + part * (1_000_000 // len(part))
    began = time.perf_counter()
    redact_url(url)
    redact_query(url)
    split_url(url)
    origin_of(url)
    assert time.perf_counter() - began < 0.5


urls = st.one_of(
    st.text(),
    st.lists(
        st.sampled_from([*list("/?#@:[]&=;%.\\ \n\x00é"), "http://", "//", "token", "80"])
    ).map("".join),
)


@given(urls)
def test_no_text_raises(url: str) -> None:
    assert len(redact_url(url)) <= max(LONGEST_URL, len(url) + 64)
    split_url(url)
    origin_of(url)
    redact_text(url)
    redact_query(url)


@given(st.text(st.characters(blacklist_characters="&;#", codec="utf-8"), min_size=1))
def test_whatever_the_value_is_it_is_gone(value: str) -> None:
    assert redact_url(f"http://shop/?token={value}&a=1") == "http://shop/?token=REDACTED&a=1"


def test_secrets_quoted_in_a_sentence_are_replaced() -> None:
    text = "GET http://amy:pw@shop/x?token=abc&page=2 failed (url: /x?page=2&api_key=abc)"
    assert redact_text(text) == (
        "GET http://REDACTED:REDACTED@shop/x?token=REDACTED&page=2 failed "
        "(url: /x?page=2&api_key=REDACTED)"
    )


def test_query_alone_is_redacted_too() -> None:
    assert redact_query("page=2&sig=abc") == "page=2&sig=REDACTED"


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://shop/cart?a=1#top", UrlParts("http", "shop", 80, "/cart", "a=1")),
        ("https://shop", UrlParts("https", "shop", 443, "", "")),
        ("HTTPS://amy:pw@shop:8443/", UrlParts("https", "shop", 8443, "/", "")),
        ("http://[::1]:8080/x", UrlParts("http", "::1", 8080, "/x", "")),
        ("http://[::1]/x", UrlParts("http", "::1", 80, "/x", "")),
        ("ws://shop/live", UrlParts("ws", "shop", 80, "/live", "")),
        ("http://shop:http/", UrlParts("http", "shop", None, "/", "")),
        ("http://shop:99999/", UrlParts("http", "shop", None, "/", "")),
        ("http://shop:/", UrlParts("http", "shop", 80, "/", "")),
        ("//shop/cart", UrlParts("", "shop", None, "/cart", "")),
        ("/cart?a=1", UrlParts("", "", None, "/cart", "a=1")),
        ("http://shop?a=1", UrlParts("http", "shop", 80, "", "a=1")),
        ("app://shop/x", UrlParts("app", "shop", None, "/x", "")),
        ("", UrlParts("", "", None, "/", "")),
    ],
)
def test_any_text_is_split(url: str, parts: UrlParts) -> None:
    assert split_url(url) == parts


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("http://shop/cart", Origin("http", "shop", 80)),
        ("https://amy:pw@shop:8443/cart", Origin("https", "shop", 8443)),
        ("http://shop?a=/b", Origin("http", "shop", 80)),
        ("http://shop", Origin("http", "shop", 80)),
    ],
)
def test_origin_is_whom_the_request_goes_to(url: str, origin: Origin) -> None:
    assert origin_of(url) == origin
