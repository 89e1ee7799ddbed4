"""Where celery's messages go: to which broker, and to whom there."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tracekit import semconv

__all__ = ["broker_of", "destination_of"]


def destination_of(exchange: Any, routing_key: Any) -> Any:
    """Return where a message goes: with the default exchange, to the queue of the key's name.

    Source: https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/
    """
    return f"{exchange}:{routing_key}" if exchange and routing_key else routing_key or exchange


def broker_of(conf: Any) -> Mapping[str, Any]:
    """Return where the broker of an application is, without the credentials in its URL.

    Cost: an application looks through all of its settings for each.
    """
    return _place_of(_only_of(conf.broker_write_url or conf.broker_url))


def _only_of(brokers: Any) -> str:
    """Return the URL of the broker, and nothing where there are several.

    kombu goes on to the next when one does not answer, so the first may not be who was sent to.
    """
    if not brokers:
        return "amqp://localhost"  # celery's default
    named = [brokers] if isinstance(brokers, str) else brokers
    urls = [url for each in named for url in each.split(";")]
    return urls[0] if len(urls) == 1 else ""


@functools.lru_cache(maxsize=64)
def _place_of(url: str) -> Mapping[str, Any]:
    try:
        parts = urlsplit(url)
        place: dict[str, Any] = {}
        if parts.hostname:
            place[semconv.SERVER_ADDRESS] = parts.hostname
        if parts.port is not None:
            place[semconv.SERVER_PORT] = parts.port
    except ValueError:
        return {}
    return place
