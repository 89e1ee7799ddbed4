"""The resource: what is known of the process that makes the spans."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Mapping

from tracekit import semconv
from tracekit._version import __version__
from tracekit.errors import InvalidValueError
from tracekit.model import Attributes
from tracekit.model import Resource as _Resource

__all__ = ["Resource", "new_instance_id", "parse_resource_attributes"]

_logger = logging.getLogger("tracekit")

UNKNOWN_SERVICE = "unknown_service:python"
MAX_ENVIRONMENT_CHARACTERS = 64 * 1024


class Resource(_Resource):
    """A resource that can also find out about its process."""

    __slots__ = ()

    @classmethod
    def create(
        cls, attributes: Attributes | None = None, schema_url: str | None = None
    ) -> Resource:
        """Return the process's resource, in which ``attributes`` win over the environment's.

        Cost: 0.1 ms; reads the environment, opens nothing.
        """
        detected = {**_sdk(), **_process(), **_host(), **_environment(os.environ)}
        merged = {**detected, **(attributes or {})}
        merged.setdefault(semconv.SERVICE_NAME, UNKNOWN_SERVICE)
        if not merged[semconv.SERVICE_NAME]:
            merged[semconv.SERVICE_NAME] = UNKNOWN_SERVICE
        merged.setdefault(semconv.SERVICE_INSTANCE_ID, new_instance_id())
        return cls(merged, schema_url or semconv.SCHEMA_URL)


def new_instance_id() -> str:
    import uuid

    return str(uuid.uuid4())


def parse_resource_attributes(text: str) -> dict[str, str]:
    """Parse ``key=value,key=value``, values percent-encoded.

    Raises:
        InvalidValueError: One pair is malformed; the specification discards all of them then.
    """
    # It imports ipaddress with it, 3 ms that `import tracekit` can do without.
    from urllib.parse import unquote

    pairs: dict[str, str] = {}
    for item in text[:MAX_ENVIRONMENT_CHARACTERS].split(","):
        if not item.strip():
            continue
        key, separator, value = item.partition("=")
        if not separator or not key.strip():
            raise InvalidValueError("OTEL_RESOURCE_ATTRIBUTES", text, "key=value,key=value")
        pairs[unquote(key.strip())] = unquote(value.strip())
    return pairs


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    pairs: dict[str, str] = {}
    try:
        pairs = parse_resource_attributes(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    except InvalidValueError as error:
        # https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable
        _logger.warning("all of it is ignored: %s", error)
    service = environ.get("OTEL_SERVICE_NAME", "").strip()
    if service:
        pairs[semconv.SERVICE_NAME] = service
    return pairs


def _sdk() -> dict[str, str]:
    return {
        semconv.TELEMETRY_SDK_NAME: "tracekit",
        semconv.TELEMETRY_SDK_LANGUAGE: "python",
        semconv.TELEMETRY_SDK_VERSION: __version__,
    }


def _process() -> dict[str, str | int]:
    version = ".".join(map(str, sys.implementation.version[:3]))
    return {
        semconv.PROCESS_PID: os.getpid(),
        semconv.PROCESS_RUNTIME_NAME: sys.implementation.name,
        semconv.PROCESS_RUNTIME_VERSION: version,
        semconv.PROCESS_RUNTIME_DESCRIPTION: sys.version,
    }


def _host() -> dict[str, str]:
    import platform

    return {semconv.HOST_NAME: platform.node(), semconv.OS_TYPE: sys.platform}
