"""Where celery's messages go: to which broker, and to whom there."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from tracekit import semconv

__all__ = ["broker_of", "destination_of"]

# In RabbitMQ a task with a countdown waits behind exchanges of kombu's, for as many seconds as the
# first parts of its key say, one for each bit.
_DELAYING, _DELAY = "celery_delayed_", re.compile(r"^(?:[01]\.){28}")


def destination_of(exchange: Any, routing_key: Any) -> Any:
    """Return where a message goes: with the default exchange, to the queue of the key's name.

    Source: https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/
    """
    if not exchange or not routing_key:
        return routing_key or exchange
    if _DELAYING in str(exchange):
        return _DELAY.sub("", str(routing_key))
    return f"{exchange}:{routing_key}"


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
