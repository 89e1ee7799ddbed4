"""From a preset and the environment to the arguments of an OTLP exporter."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tracekit.errors import ConfigurationError, UnknownNameError
from tracekit.exporters._given import Given, checked_headers, checked_url, from_environment
from tracekit.exporters._otlp_settings import GRPC, PATH
from tracekit.exporters._presets import PRESETS, Header, Preset, canonical

__all__ = ["arguments_of", "known_preset"]

_VARIABLE = re.compile(r"\{([\w|]+)(?::-([^}]*))?\}")
_PARTS = ("scheme", "user", "host", "hostname", "folder", "file", "grpc")


def known_preset(name: str) -> tuple[str, Preset]:
    """Return a preset with its listed name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    known = canonical(name)
    if known is None:
        raise UnknownNameError("destination", name, PRESETS)
    return known, PRESETS[known]


def arguments_of(name: str, preset: Preset, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the preset's arguments, under those that were given; headers are merged.

    Raises:
        ConfigurationError: A variable that the destination needs is not set.
    """
    filled = _Template(name, preset)
    arguments = {key: value for key, value in given.items() if value is not None}
    if "endpoint" not in arguments:
        arguments["endpoint"] = _endpoint(name, preset, filled, arguments.get("protocol"))
    if preset.compression and not from_environment(
        "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"
    ):
        arguments.setdefault("compression", preset.compression)
    own = arguments.pop("headers", None)
    headers = dict(checked_headers(Given(own, "headers (argument)"))) if own else {}
    for header, content in preset.headers.items():
        if header not in headers and _applies(content):
            headers[header] = filled.header(content)
    return {**arguments, "headers": headers or None}


def _endpoint(name: str, preset: Preset, filled: _Template, protocol: str | None) -> str:
    own = f"TRACEKIT_{name.upper()}_ENDPOINT"
    variable = from_environment(own, *preset.endpoint_variables)
    if protocol == GRPC:
        if variable:
            return str(variable.value)
        if preset.grpc_endpoint is None:
            raise Given(GRPC, "protocol (argument)").refused(f"http/protobuf, which {name} takes")
        return filled.text(preset.grpc_endpoint)
    if variable is None:
        return filled.text(preset.endpoint)
    parts = checked_url(variable)
    if parts.path.endswith(PATH):
        return parts.geturl()
    return parts._replace(path=parts.path.rstrip("/") + PATH).geturl()


def _applies(header: Header) -> bool:
    if header.when is None:
        return True
    variable, pattern = header.when
    return re.fullmatch(pattern, os.environ.get(variable, "").strip()) is not None


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable, "").strip())


def _parts_of(url: str) -> dict[str, str]:
    """Return what a URL that holds a key is made of; nothing when it is none or holds none."""
    try:
        parts = urlsplit(url)
        port = parse_qs(parts.query).get("grpc", ["4317"])[0]
    except ValueError:
        return {}
    folder, _, file = parts.path.rstrip("/").rpartition("/")
    if parts.scheme not in ("http", "https") or not parts.username or not parts.hostname:
        return {}
    known = {
        "scheme": parts.scheme,
        "user": parts.username,
        "host": parts.netloc.rpartition("@")[2],
        "hostname": parts.hostname,
        "folder": folder,
        "grpc": port,
    }
    return {**known, "file": file} if file else known


class _Template:
    """Fills a preset's texts from the environment."""

    def __init__(self, name: str, preset: Preset) -> None:
        self._name, self._preset = name, preset

    def text(self, template: str) -> str:
        return _VARIABLE.sub(self._value, template)

    def header(self, header: Header) -> str:
        template = header.value
        if header.instead and _is_set(header.instead[0]):
            template = header.instead[1]
        value = self.text(template)
        return f"Basic {b64encode(value.encode()).decode()}" if header.base64 else value

    def _value(self, match: re.Match[str]) -> str:
        names, default = match.groups()
        if self._preset.url_variable and names in _PARTS:
            return self._part(self._preset.url_variable, names)
        known = next(filter(_is_set, names.split("|")), None)
        if known is None and default is None:
            raise self._missing(names.partition("|")[0])
        return (os.environ[known].strip() if known else str(default)).rstrip("/")

    def _part(self, variable: str, part: str) -> str:
        if not _is_set(variable):
            raise self._missing(variable)
        url = os.environ[variable].strip()
        value = _parts_of(url).get(part)
        if value is None:
            expected = f"a URL such as {self._preset.url_example}"
            raise Given(url, variable).refused(expected, "[not such a URL]")
        return value

    def _missing(self, variable: str) -> ConfigurationError:
        return ConfigurationError(
            f"exporter {self._name!r} needs the environment variable {variable}: "
            f"see {self._preset.page}"
        )
