"""What a SERVER span says of its request, from the start, and of a body that was streamed."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from tracekit import semconv
from tracekit._url_secrets import redact_query
from tracekit.instrumentation._forwarded import NOT_FORWARDED, Forwarded, split_authority
from tracekit.instrumentation._http import truncated

__all__ = [
    "Address",
    "OwnAddress",
    "body_measures",
    "old_names",
    "port_number",
    "server_attributes",
    "whole_url",
]

BODY_BYTES = "tracekit.response.body_bytes"
BODY_CHUNKS = "tracekit.response.body_chunks"
FIRST_BYTE = "tracekit.response.first_byte_s"  # from the start of the span

# One lookup less each on the path of a request.
CLIENT_ADDRESS = semconv.CLIENT_ADDRESS
HTTP_REQUEST_METHOD = semconv.HTTP_REQUEST_METHOD
NETWORK_PEER_ADDRESS = semconv.NETWORK_PEER_ADDRESS
NETWORK_PEER_PORT = semconv.NETWORK_PEER_PORT
NETWORK_PROTOCOL_VERSION = semconv.NETWORK_PROTOCOL_VERSION
SERVER_ADDRESS = semconv.SERVER_ADDRESS
SERVER_PORT = semconv.SERVER_PORT
URL_PATH = semconv.URL_PATH
URL_QUERY = semconv.URL_QUERY
URL_SCHEME = semconv.URL_SCHEME
USER_AGENT_ORIGINAL = semconv.USER_AGENT_ORIGINAL

_DEFAULT_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_LONGEST_VALUE = 4096
_LONGEST_ADDRESS = 300

_OLD_NAMES = {
    semconv.HTTP_REQUEST_METHOD: semconv.OLD_HTTP_METHOD,
    semconv.URL_SCHEME: semconv.OLD_HTTP_SCHEME,
    semconv.SERVER_ADDRESS: semconv.OLD_NET_HOST_NAME,
    semconv.SERVER_PORT: semconv.OLD_NET_HOST_PORT,
    semconv.CLIENT_ADDRESS: semconv.OLD_HTTP_CLIENT_IP,
    semconv.NETWORK_PEER_ADDRESS: semconv.OLD_NET_PEER_IP,
    semconv.NETWORK_PEER_PORT: semconv.OLD_NET_PEER_PORT,
    semconv.NETWORK_PROTOCOL_VERSION: semconv.OLD_HTTP_FLAVOR,
    semconv.USER_AGENT_ORIGINAL: semconv.OLD_HTTP_USER_AGENT,
    semconv.HTTP_RESPONSE_STATUS_CODE: semconv.OLD_HTTP_STATUS_CODE,
}

Address = tuple["str | None", "int | None"]
"""Host and port, as far as they are known."""
OwnAddress = tuple["str | None", "int | str | None"]
"""The same of the server itself, whose port may be text."""


def server_attributes(
    method: str,
    scheme: str,
    path: str,
    query: str,
    version: str | None,
    peer: Address,
    own: OwnAddress,
    host: str | None,
    user_agent: str | None,
    proxied: Forwarded,
) -> dict[str, Any]:
    """Return what is known before the program runs, so that samplers can decide on it."""
    address, port = peer
    if address is not None and len(address) > _LONGEST_ADDRESS:  # a server took it from a header
        address = None
    client = address
    if proxied is not NOT_FORWARDED:
        scheme = proxied.scheme or scheme
        host = proxied.host or host
        client = proxied.client or address
    if host is None or len(host) > _LONGEST_ADDRESS:
        host = ""
    attributes = _shared_attributes(method, scheme, host, own, version).copy()
    attributes[URL_PATH] = path if len(path) <= _LONGEST_VALUE else truncated(path, _LONGEST_VALUE)
    if query:
        attributes[URL_QUERY] = redact_query(query)
    if address:
        attributes[NETWORK_PEER_ADDRESS] = address
        if port is not None:
            attributes[NETWORK_PEER_PORT] = port
    if client:
        attributes[CLIENT_ADDRESS] = client
    if user_agent:
        is_short = len(user_agent) <= _LONGEST_VALUE  # and one call less
        attributes[USER_AGENT_ORIGINAL] = (
            user_agent if is_short else truncated(user_agent, _LONGEST_VALUE)
        )
    return attributes


# A server has few names; what a hostile client makes up pushes itself out again.
@functools.lru_cache(maxsize=128)
def _shared_attributes(
    method: str,
    scheme: str,
    authority: str,
    own: OwnAddress,
    version: str | None,
) -> dict[str, Any]:
    """Return what one request to a server has in common with the next; it is to be copied."""
    attributes: dict[str, Any] = {HTTP_REQUEST_METHOD: method, URL_SCHEME: scheme}
    address, port = split_authority(authority)
    if address is None:
        address, port = own[0], port_number(own[1])
    elif port is None:
        port = _DEFAULT_PORTS.get(scheme)
    if address:
        attributes[SERVER_ADDRESS] = address
        if port is not None:
            attributes[SERVER_PORT] = port
    if version:
        attributes[NETWORK_PROTOCOL_VERSION] = version
    return attributes


def port_number(port: Any) -> int | None:
    """Return the number that a server gives as one, as text, or not at all."""
    try:
        return None if port is None else int(port)
    except (TypeError, ValueError):
        return None


def old_names(attributes: Mapping[str, Any], host: str | None) -> dict[str, Any]:
    old = {_OLD_NAMES[name]: value for name, value in attributes.items() if name in _OLD_NAMES}
    query = attributes.get(URL_QUERY)
    path = attributes[URL_PATH]
    old[semconv.OLD_HTTP_TARGET] = f"{path}?{query}" if query else path
    if host:
        old[semconv.OLD_HTTP_HOST] = truncated(host, _LONGEST_VALUE)
    return old


def whole_url(scheme: str, host: str, path: str, query: str) -> str:
    url = f"{scheme}://{host}{path}"
    return f"{url}?{query}" if query else url


def body_measures(chunks: int, size: int, first_ns: int) -> dict[str, Any] | None:
    """Return the attributes of a body that was sent in several chunks, None for any other."""
    if chunks < 2:
        return None
    return {BODY_BYTES: size, BODY_CHUNKS: chunks, FIRST_BYTE: first_ns / 1e9}
