"""What a query says: its text without values, a summary, and a hash that finds its like again.

One pass of a regular expression takes literals and comments out, in the dialect's own quoting; the
summary is then read from what is left, where every quote is a name's. Neither is a parser: a query
that no database would take is read as far as it goes and never an error. Both passes are linear,
so that the cost of a query that a program builds anew each time is bounded by its length, and of
a longer one by :data:`LONGEST_READ`.

https://opentelemetry.io/docs/specs/semconv/db/database-spans/#sanitization-of-dbquerytext
"""

from __future__ import annotations

import re
from collections.abc import Callable
from hashlib import blake2b
from typing import NamedTuple

from tracekit._sql_summary import summary_of

__all__ = ["LONGEST_READ", "LONGEST_TEXT", "Query", "Reader", "reader"]

LONGEST_READ = 1 << 18
"""Characters of a query that are read; what follows changes neither text nor summary nor hash."""
LONGEST_TEXT = 16_384
"""Characters of a query that are recorded."""
_MARK = "…"


class Query(NamedTuple):
    """What is said of one query.

    Attributes:
        text: To be recorded; without values unless the query is parameterised.
        summary: At most 255 characters; empty when it names no operation.
        hash: 16 hexadecimal digits, the same for queries that differ in values, white space,
            comments, or the length of a list of values.
    """

    text: str
    summary: str
    hash: str


Reader = Callable[[str], Query]


class _Dialect(NamedTuple):
    """How a family of databases quotes."""

    values: re.Pattern[str]
    """Groups: ``keep`` is a quoted name, ``comment`` goes, anything else is a value."""


# A digit that begins a number: not inside a name, and not the number of a placeholder
# ($1, :1, ?1, @1). A slice (`a[1:3]`) has a colon too, after a digit.
_BEGINS_NUMBER = r"(?<![\w$@?.])(?<!(?<![\w\]]):)"
_NUMBER = (
    rf"[-+]?{_BEGINS_NUMBER}"
    r"(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?![\w$])"
)
_BOOLEAN = r"\b(?:[Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\b(?!\s*[.(])"
# A doubled quote ends one piece and begins the next; pieces without a gap are one value.
_PLAIN_STRING = r"(?:(?<!\w)(?:[NnXxBb]|[Uu]&))?'[^']*(?:'|\Z)"
_ESCAPED = r"'[^'\\]*(?:\\(?:.|\Z)[^'\\]*)*(?:'|\Z)"
# Its second piece would be read as a plain string.
_E_STRING = r"(?<!\w)[Ee]'[^'\\]*(?:(?:\\(?:.|\Z)|'')[^'\\]*)*(?:'|\Z)"
_DOUBLE_ESCAPED = r'"[^"\\]*(?:\\(?:.|\Z)[^"\\]*)*(?:"|\Z)'
_DOLLAR_QUOTED = r"(?<![\w$])\$(?P<tag>(?:[^\W\d]\w*)?)\$(?:.*?\$(?P=tag)\$|.*)"
_DOUBLE_QUOTED_NAME = r'"[^"]*(?:"|\Z)'
_BACKTICKED_NAME = r"`[^`]*(?:`|\Z)"
_BRACKETED_NAME = r"\[[^\]]*(?:\]|\Z)"
_LINE_COMMENT = r"--[^\n]*"
_BLOCK_COMMENT = r"/\*(?:.*?\*/|.*)"


def _compiled(
    *values: str, keep: tuple[str, ...], comments: tuple[str, ...] = ()
) -> re.Pattern[str]:
    comment = "|".join((_LINE_COMMENT, _BLOCK_COMMENT, *comments))
    names = "|".join(keep)
    literals = "|".join((*values, _NUMBER, _BOOLEAN))
    return re.compile(f"(?P<keep>{names})|(?P<comment>{comment})|(?:{literals})", re.DOTALL)


_STANDARD = _compiled(_PLAIN_STRING, keep=(_DOUBLE_QUOTED_NAME, _BACKTICKED_NAME))
_POSTGRESQL = _compiled(_E_STRING, _PLAIN_STRING, _DOLLAR_QUOTED, keep=(_DOUBLE_QUOTED_NAME,))
# A # is no comment in `->#`; nobody's MySQL writes that.
_MYSQL = _compiled(
    rf"(?:(?<!\w)(?:[NnXxBb]|_\w+\s*))?{_ESCAPED}",
    _DOUBLE_ESCAPED,
    keep=(_BACKTICKED_NAME,),
    comments=(r"#[^\n]*",),
)
_BRACKETING = _compiled(
    _PLAIN_STRING, keep=(_DOUBLE_QUOTED_NAME, _BRACKETED_NAME, _BACKTICKED_NAME)
)
_DIALECTS = {
    "postgresql": _POSTGRESQL,
    "aws.redshift": _POSTGRESQL,
    "cockroachdb": _POSTGRESQL,
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
    "microsoft.sql_server": _BRACKETING,
    "sqlite": _BRACKETING,
}


def reader(system: str, *, parameterised: bool) -> Reader:
    """Return what reads queries of one database, by the value of ``db.system.name``.

    Args:
        parameterised: Values travel beside the query: what is in the text is the program's own
            and stays.

    Cost: 20 µs for a query of 300 characters, each time.
    """
    values = _DIALECTS.get(system, _STANDARD)
    return lambda query: _read(query, values, parameterised)


def _truncated(text: str) -> str:
    """Cut a query to what is recorded of it; the last character then is an ellipsis."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + _MARK


def _read(query: str, values: re.Pattern[str], parameterised: bool) -> Query:
    head = _encodable(query[:LONGEST_READ])
    plain = values.sub(_without_value, head)
    plain = _ADJACENT.sub("?", plain) if _PIECES in plain else plain.replace(_PIECE, "?")
    shown = head if parameterised else _IN_LIST.sub(r"\1?)", plain)
    return Query(_truncated(shown), summary_of(plain), _hash_of(plain))


def _encodable(text: str) -> str:
    """Replace lone surrogates, which no exporter could write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "replace").decode()
    return text


# A string stands as this until its neighbours are known: `'it''s'` is one value, `99+100` two.
_PIECE = "\x00"
_PIECES = _PIECE * 2
_ADJACENT = re.compile(f"{_PIECE}+")


def _without_value(match: re.Match[str]) -> str:
    kind = match.lastgroup
    if kind == "keep":
        return match[0]
    if kind == "comment":
        return ""
    return _PIECE if match[0][-1] in "'\"" else "?"


_PLACEHOLDER = re.compile(r"%s|%\(\w+\)s|\$\d+|\?\d+|(?<![:\w]):\w+")
_IN_LIST = re.compile(r"(\b[Ii][Nn]\s*\(\s*)\?(?:\s*,\s*\?)*\s*\)")
_ROWS = re.compile(r"(\(\s*\?(?:\s*,\s*\?)*\s*\))(?:\s*,\s*\1)+")


def _hash_of(plain: str) -> str:
    """Hash what queries that differ in their values alone have in common."""
    same = _PLACEHOLDER.sub("?", " ".join(plain.split()))
    same = _IN_LIST.sub(r"\1?)", same)
    same = _ROWS.sub(r"\1", same)
    return blake2b(same.encode(), digest_size=8).hexdigest()
