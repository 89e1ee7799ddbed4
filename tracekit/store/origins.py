"""Resources and scopes, kept once: their ids are hashes of their contents."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from tracekit.model import InstrumentationScope, Resource
from tracekit.store.values import clean, clean_attributes, encode, restore_attributes

__all__ = ["Origins", "ResourceRow", "ScopeRow", "read_resource", "read_scope"]

ResourceRow = tuple[int, str, str, str]
"""id, service, schema URL, attributes as JSON."""

ScopeRow = tuple[int, str, "str | None", str, str]
"""id, name, version, schema URL, attributes as JSON."""

_CACHED = 512


class Origins:
    """Find the row of a resource or scope object; most spans share a few.

    The caches go by identity, which is much cheaper than equality, and hold the object so
    that its id is not given to another.
    """

    def __init__(self) -> None:
        self._resources: dict[int, tuple[Any, ResourceRow]] = {}
        self._scopes: dict[int, tuple[Any, ScopeRow]] = {}

    def resource(self, resource: Any) -> ResourceRow:
        found = self._resources.get(id(resource))
        if found is not None:
            return found[1]
        if len(self._resources) >= _CACHED:
            self._resources.clear()
        row = _resource_row(resource)
        self._resources[id(resource)] = (resource, row)
        return row

    def scope(self, scope: Any) -> ScopeRow:
        found = self._scopes.get(id(scope))
        if found is not None:
            return found[1]
        if len(self._scopes) >= _CACHED:
            self._scopes.clear()
        row = _scope_row(scope)
        self._scopes[id(scope)] = (scope, row)
        return row


def _resource_row(resource: Any) -> ResourceRow:
    attributes = clean_attributes(resource.attributes if resource is not None else None)
    url = clean(getattr(resource, "schema_url", "") or "")
    service = storable(attributes.get("service.name") or "unknown_service")
    text = encode(attributes)
    return _content_id(url, text), service, storable(url), text


def _scope_row(scope: Any) -> ScopeRow:
    if scope is None:
        scope = InstrumentationScope("")
    name = storable(clean(scope.name or ""))
    version = None if scope.version is None else storable(clean(scope.version))
    url = storable(clean(scope.schema_url or ""))
    text = encode(clean_attributes(getattr(scope, "attributes", None)))
    return _content_id(name, version, url, text), name, version, url, text


def storable(text: Any) -> str:
    """Return text that SQLite takes: lone surrogates become question marks."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


def _content_id(*parts: str | None) -> int:
    # 48 bits: exact in every JSON reader, and short in each span's row.
    text = json.dumps(parts).encode("ascii")
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big")


def read_resource(attributes: str, schema_url: str) -> Resource:
    return Resource(restore_attributes(json.loads(attributes)), schema_url)


def read_scope(
    name: str, version: str | None, schema_url: str, attributes: str
) -> InstrumentationScope:
    return InstrumentationScope(
        name, version, schema_url, restore_attributes(json.loads(attributes))
    )
