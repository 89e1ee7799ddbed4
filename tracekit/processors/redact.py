"""The redaction stage: secrets are replaced before any other stage is handed the span."""

from __future__ import annotations

import fnmatch
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracekit import semconv
from tracekit._sql import reader
from tracekit._url_secrets import REDACTED, redact_query, redact_url
from tracekit.errors import InvalidValueError
from tracekit.interfaces import SpanProcessor
from tracekit.processors._secret_names import Verdict, holds_secret, verdict_on
from tracekit.processors._secret_texts import KNOWN, without_secrets

__all__ = ["RedactionProcessor"]

_logger = logging.getLogger("tracekit")

_ARGUMENT = "tracekit.argument."
_QUERIES = frozenset((semconv.DB_QUERY_TEXT, semconv.OLD_DB_STATEMENT))
_URLS = frozenset((semconv.URL_FULL, semconv.OLD_HTTP_URL, semconv.OLD_HTTP_TARGET))
# Their queries are no SQL: https://opentelemetry.io/docs/specs/semconv/registry/attributes/db/
_OTHER_LANGUAGES = frozenset(
    ("mongodb", "redis", "valkey", "memcached", "elasticsearch", "opensearch", "couchdb", "neo4j")
)
_DEEPEST = 8
_NUMBERS = frozenset((int, float, bool, type(None)))
_MOST_KEYS = 2048
_IN_TABLE = frozenset(("keys", "allow", "patterns", "arguments", "sql"))

Callback = Callable[[str, Any], Any]


class RedactionProcessor(SpanProcessor):
    """Replace secrets in what a span recorded, and say on it under which keys.

    Looked at are the attributes of the span, its events and links, its name and the description
    of its status. A value goes when its key names a secret; inside of texts go tokens of known
    shapes, credentials in URLs and headers, and ``password=...``; of SQL the literals.

    It works in ``on_ending``, so that every ``on_end``, other people's too, sees what is left.
    It fails closed: where a callback, or anything else, raises, the value counts as a secret.

    Args:
        keys: More keys whose values go, as globs: ``"customer.*"``.
        allow: Keys whose values stay, as globs; they win over everything else.
        patterns: More regular expressions; what they match inside a text goes.
        arguments: Replace the value of every captured function argument.
        sql: Replace the literals of SQL.
        callback: Called with the key and the value of each attribute that is not allowed,
            after the rules above; returns what is recorded.

    Raises:
        InvalidValueError: A pattern is no regular expression, or a list is a single text.

    Concurrency: from any thread that ends spans, at the same time.
    Cost: on the caller's path, see docs/how-to/keep-secrets-out.md.
    """

    def __init__(
        self,
        keys: Sequence[str] = (),
        allow: Sequence[str] = (),
        patterns: Sequence[str] = (),
        *,
        arguments: bool = False,
        sql: bool = True,
        callback: Callback | None = None,
    ) -> None:
        self._is_named = _globs("keys", keys)
        self._is_allowed = _globs("allow", allow)
        self._patterns = tuple(map(_compiled, _several("patterns", patterns)))
        self._arguments, self._sql, self._callback = arguments, sql, callback
        self._has_warned = False
        # Keys that no rule speaks of: with a number, or a text that is known, nothing is to do.
        self._free_keys: set[str] = set()

    @classmethod
    def from_setting(cls, given: Any, source: str) -> RedactionProcessor | None:
        """Make what ``configure(redact=...)``, a variable or a table says; None for no redaction.

        Raises:
            InvalidValueError: It is neither true nor false, nor a table of the arguments above.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, Mapping) and set(given) <= _IN_TABLE:
            return cls(**given)
        word = str(given).strip().lower()
        if word in ("true", "1"):
            return cls()
        if word in ("false", "0"):
            return None
        expected = f"true, false, a RedactionProcessor or a table of {', '.join(sorted(_IN_TABLE))}"
        raise InvalidValueError("redact" if source == "argument" else source, given, expected)

    redacts_unfinished = True
    """A provider that shuts down hands spans that are still open to `on_ending` too."""

    def on_ending(self, span: Any) -> None:
        redacted: set[str] = set()
        try:
            self._rewrite(span, redacted)
        except Exception:
            self._warn("redacting a span failed: all that it recorded was replaced")
            span.rewrite(_nothing, lambda _place, _text: REDACTED)
            redacted.add("*")
        if redacted:
            span.set_attribute(semconv.REDACTED, sorted(redacted))

    def _rewrite(self, span: Any, redacted: set[str]) -> None:
        def attributes(recorded: Mapping[str, Any]) -> Mapping[str, Any]:
            return self._attributes(recorded, redacted)

        def sentence(place: str, text: str) -> str:
            changed = without_secrets(text, self._patterns)
            if changed is not text:
                redacted.add(place)
            return changed

        span.rewrite(attributes, sentence)

    def _attributes(self, recorded: Mapping[str, Any], redacted: set[str]) -> Mapping[str, Any]:
        changes: dict[str, Any] = {}
        for key, value in recorded.items():
            if key in self._free_keys and (type(value) in _NUMBERS or _is_known(value)):
                continue
            if self._is_allowed is not None and self._is_allowed(key):
                continue
            changed = self._value(key, value, recorded)
            if changed is not value and changed != value:
                changes[key] = changed
            elif self._is_free(key):
                self._free_keys.add(key)
        if not changes:
            return recorded
        redacted.update(changes)
        return {**recorded, **changes}

    def _is_free(self, key: str) -> bool:
        if self._callback is not None or self._patterns or len(self._free_keys) >= _MOST_KEYS:
            return False
        if verdict_on(key) is not Verdict.HARMLESS or key in _URLS or key in _QUERIES:
            return False
        return key != semconv.URL_QUERY and not self._is_secret(key, "")

    def _value(self, key: str, value: Any, recorded: Mapping[str, Any]) -> Any:
        if self._is_secret(key, value):
            changed: Any = REDACTED
        elif key in _QUERIES and self._sql and isinstance(value, str):
            changed = self._query(value, recorded)
        elif key in _URLS and isinstance(value, str):
            changed = without_secrets(redact_url(value), self._patterns)
        elif key == semconv.URL_QUERY and isinstance(value, str):
            changed = without_secrets(redact_query(value), self._patterns)
        else:
            changed = self._inside(key, value, 0)
        return changed if self._callback is None else self._called(key, changed)

    def _is_secret(self, key: str, value: Any) -> bool:
        if self._arguments and key.startswith(_ARGUMENT):
            return True
        return (self._is_named is not None and self._is_named(key)) or holds_secret(key, value)

    def _query(self, text: str, recorded: Mapping[str, Any]) -> str:
        named = recorded.get(semconv.DB_SYSTEM_NAME) or recorded.get(semconv.OLD_DB_SYSTEM)
        system = str(named or "")
        if system not in _OTHER_LANGUAGES:
            text = reader(system, parameterised=False)(text).text
        return without_secrets(text, self._patterns)

    def _inside(self, key: str, value: Any, depth: int) -> Any:
        """Look into a value that is no secret by its name: texts, and what containers hold."""
        if isinstance(value, str):
            return without_secrets(value, self._patterns)
        if isinstance(value, bytes):
            return self._bytes(value)
        if depth >= _DEEPEST:
            return REDACTED if isinstance(value, (Mapping, list, tuple)) else value
        if isinstance(value, Mapping):
            return {name: self._member(name, item, depth) for name, item in value.items()}
        if isinstance(value, (list, tuple)):
            return self._pair(value) or tuple(self._inside(key, item, depth + 1) for item in value)
        return value

    def _member(self, name: str, value: Any, depth: int) -> Any:
        if self._is_secret(name, value):
            return REDACTED
        return self._inside(name, value, depth + 1)

    def _pair(self, value: Sequence[Any]) -> tuple[Any, Any] | None:
        """Take two texts of which the first names a secret for a header: ``(name, value)``."""
        if len(value) == 2 and isinstance(value[0], str) and self._is_secret(value[0], value[1]):
            return (value[0], REDACTED)
        return None

    def _bytes(self, value: bytes) -> Any:
        text = value.decode("utf-8", "replace")
        changed = without_secrets(text, self._patterns)
        return value if changed is text else changed.encode()

    def _called(self, key: str, value: Any) -> Any:
        try:
            return self._callback(key, value) if self._callback is not None else value
        except Exception:
            self._warn("the callback of redaction raised: the value was replaced")
            return REDACTED

    def _warn(self, what: str) -> None:
        if not self._has_warned:
            self._has_warned = True
            _logger.warning("%s; told once", what, exc_info=True)


def _is_known(value: Any) -> bool:
    return type(value) is str and value in KNOWN


def _nothing(recorded: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict.fromkeys(recorded, REDACTED)


def _several(setting: str, given: Sequence[str]) -> Sequence[str]:
    if isinstance(given, str) or not all(isinstance(part, str) for part in given):
        raise InvalidValueError(f"redact: {setting}", given, "a list of texts")
    return given


def _globs(setting: str, globs: Sequence[str]) -> Callable[[str], Any] | None:
    listed = _several(setting, globs)
    return re.compile("|".join(map(fnmatch.translate, listed))).match if listed else None


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern)
    except re.error as error:
        raise InvalidValueError(
            "redact: pattern", pattern, f"a regular expression ({error})"
        ) from None


plugin: type[SpanProcessor] = RedactionProcessor
