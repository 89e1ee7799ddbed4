"""The summary of a query, which names its span: operations and what they are about, in order.

https://opentelemetry.io/docs/specs/semconv/db/database-spans/#generating-a-summary-of-the-query
"""

from __future__ import annotations

import re

__all__ = ["summary_of"]

_LONGEST_SUMMARY = 255
_LONGEST_READ = 16_384

_PART = r'(?:[\w$#@]+|"[^"]*(?:"|\Z)|`[^`]*(?:`|\Z)|\[[^\]]*(?:\]|\Z))'
_TOKEN = re.compile(rf"{_PART}(?:\s*\.\s*{_PART})*|[(),;]")
_CALLED = re.compile(r"\s*\(")
_QUOTES = re.compile(r'"([^"\s]+)"|`([^`\s]+)`|\[([^\]\s]+)\]')

# Operations that are about nothing that a summary may hold: names of savepoints and of prepared
# statements differ from call to call.
_ABOUT_TABLE = frozenset(("COPY", "LOCK", "VACUUM", "ANALYZE", "ANALYSE", "REINDEX", "OPTIMIZE"))
_ABOUT_NEXT = frozenset(("EXEC", "EXECUTE", "CALL", "USE", "PRAGMA", "DESCRIBE", "DESC"))
_DEFINES = frozenset(("CREATE", "ALTER", "DROP", "TRUNCATE", "RENAME", "COMMENT", "REFRESH"))
_KINDS = frozenset(
    (
        *("TABLE", "INDEX", "VIEW", "PROCEDURE", "FUNCTION", "TRIGGER", "DATABASE", "SCHEMA"),
        *("SEQUENCE", "USER", "ROLE", "TYPE", "DOMAIN", "EXTENSION", "EVENT", "AGGREGATE"),
        *("OPERATOR", "COLLATION", "CAST", "LANGUAGE", "POLICY", "RULE", "SERVER", "TABLESPACE"),
        *("PACKAGE", "SYNONYM", "LOGIN", "PUBLICATION", "SUBSCRIPTION", "COLUMN", "KEYSPACE"),
    )
)
# Their bodies are statements that do not run now.
_HAS_BODY = frozenset(("PROCEDURE", "FUNCTION", "TRIGGER", "EVENT", "PACKAGE", "RULE"))
_BEFORE_NAME = frozenset(("IF", "NOT", "EXISTS", "CONCURRENTLY", "ONLY", "ON"))
_BEFORE_TARGET = frozenset(
    (
        *("ONLY", "LATERAL", "IGNORE", "LOW_PRIORITY", "HIGH_PRIORITY", "DELAYED", "QUICK"),
        *("OR", "ROLLBACK", "ABORT", "FAIL", "INTO", "OVERWRITE", "LOCAL", "VERBOSE", "TABLES"),
        *("REPLACE", "ANALYZE", "FULL", "FREEZE"),
    )
)
_ENDS_TABLES = frozenset(
    (
        *("WHERE", "GROUP", "ORDER", "HAVING", "LIMIT", "OFFSET", "FETCH", "WINDOW", "FOR"),
        *("SET", "VALUES", "RETURNING", "WHEN", "QUALIFY", "OPTION", "DEFAULT"),
    )
)
_COMBINES = frozenset(("UNION", "INTERSECT", "EXCEPT", "MINUS"))
_NO_TABLES = frozenset(("OUTFILE", "DUMPFILE", "UNNEST", "STDIN", "STDOUT", "PROGRAM"))
_PASSES_ON = frozenset(("EXPLAIN", "DECLARE", "PREPARE"))


def summary_of(query: str) -> str:
    """Summarise a query that has no comments and no values in it.

    Args:
        query: Any text; read as far as a summary can come from it.
    """
    reading = _Reading()
    for match in _TOKEN.finditer(query[:_LONGEST_READ]):
        token = match[0]
        if token == "(":
            reading.open()
        elif token == ")":
            reading.close()
        elif token == ",":
            reading.comma()
        elif token == ";":
            reading.begin_statement()
        else:
            reading.word(token, match.end(), query)
        if reading.is_full:
            break
    return " ".join(reading.found)


class _Level:
    """What is known between one pair of parentheses."""

    __slots__ = ("awaits_table", "combines", "in_tables", "operation", "read_tables")

    def __init__(self, awaits_table: bool = False, combines: bool = False) -> None:
        self.operation = ""
        self.awaits_table = self.in_tables = awaits_table
        self.combines = combines
        self.read_tables = False


class _Reading:
    """The state of one pass: the words found, and where in a statement it is."""

    __slots__ = ("_left", "_level", "_names", "_next", "_outer", "_previous", "found", "is_full")

    def __init__(self) -> None:
        self.found: list[str] = []
        self.is_full = False
        self._left = _LONGEST_SUMMARY + 1
        self.begin_statement()

    def begin_statement(self) -> None:
        self._level = _Level()
        self._outer: list[_Level] = []
        self._names: set[str] | None = None
        """Of the queries of a WITH, which are no tables; None outside of one."""
        self._next = self._operation
        self._previous = ""

    def open(self) -> None:
        self._outer.append(self._level)
        self._level = _Level(self._level.awaits_table, self._level.combines)
        self._outer[-1].awaits_table = False
        self._previous = "("

    def close(self) -> None:
        if self._outer:
            self._level = self._outer.pop()
        if self._names is not None and not self._outer and not self._level.operation:
            self._next = self._with
        self._previous = ")"

    def comma(self) -> None:
        self._level.awaits_table = self._level.in_tables
        self._previous = ","

    def word(self, token: str, end: int, query: str) -> None:
        upper = token.upper() if len(token) <= 32 else token
        self._next(token, upper, end, query)
        self._previous = upper

    # One of these reads the next word.

    def _operation(self, token: str, upper: str, end: int, query: str) -> None:
        """Read the first word of a statement."""
        self._next = self._inside
        if upper == "WITH":
            self._names = set()
            self._next = self._with
            return
        if token[0] in '"`[?' or not token[0].isalpha():
            return
        self._add(token)
        self._level.operation = upper
        if upper in _DEFINES:
            self._next = self._kind
        elif upper in _ABOUT_NEXT:
            self._next = self._subject
        elif upper in ("INSERT", "REPLACE", "UPDATE", "MERGE") or upper in _ABOUT_TABLE:
            self._next = self._table
        elif upper in _PASSES_ON:
            self._next = self._passed_on

    def _with(self, token: str, upper: str, end: int, query: str) -> None:
        """Read between WITH and the statement that it is for."""
        if self._outer:
            self._inside(token, upper, end, query)
        elif upper in ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE"):
            self._operation(token, upper, end, query)
        elif upper not in ("RECURSIVE", "AS", "NOT", "MATERIALIZED") and self._names is not None:
            self._names.add(_unquoted(upper))

    def _passed_on(self, token: str, upper: str, end: int, query: str) -> None:
        if upper in ("SELECT", "INSERT", "UPDATE", "DELETE", "MERGE", "REPLACE", "WITH"):
            self._operation(token, upper, end, query)

    def _kind(self, token: str, upper: str, end: int, query: str) -> None:
        """Read on to what is created, altered or dropped; UNIQUE, TEMPORARY and such go by."""
        if upper in _KINDS:
            self._add(token)
            self._next = self._name_and_body if upper in _HAS_BODY else self._name
        elif self._level.operation == "TRUNCATE":
            self._name(token, upper, end, query)

    def _name(self, token: str, upper: str, end: int, query: str) -> None:
        if upper not in _BEFORE_NAME:
            self._add(_unquoted(token))
            self._next = self._rest

    def _name_and_body(self, token: str, upper: str, end: int, query: str) -> None:
        if upper not in _BEFORE_NAME:
            self._add(_unquoted(token))
            self.is_full = True

    def _subject(self, token: str, upper: str, end: int, query: str) -> None:
        self._next = self._rest
        if token[0] not in "@?$":
            self._add(_unquoted(token))

    def _table(self, token: str, upper: str, end: int, query: str) -> None:
        """Read the table that a statement is about, and go on with what follows."""
        if upper == "SELECT":
            self._next = self._inside
            self._select(token)
        elif upper not in _BEFORE_TARGET and not (upper == "TABLE" and _more(query, end)):
            self._add(_unquoted(token))
            self._next = self._inside
            self._level.in_tables = self._level.operation == "UPDATE"

    def _rest(self, token: str, upper: str, end: int, query: str) -> None:
        """Pass the rest of a statement by."""

    def _inside(self, token: str, upper: str, end: int, query: str) -> None:
        level = self._level
        if level.awaits_table:
            self._read_table(token, upper, end, query)
        elif upper == "SELECT":
            self._select(token)
        elif upper in ("FROM", "JOIN"):
            self._begin_tables(upper)
        elif upper == "INTO" and level.operation in ("SELECT", "MERGE"):
            level.awaits_table = True
        elif upper == "USING" and level.operation in ("DELETE", "MERGE"):
            level.awaits_table = level.in_tables = not _CALLED.match(query, end)
        elif upper in _ENDS_TABLES:
            level.in_tables = False
        elif upper in _COMBINES:
            level.combines, level.in_tables = True, False
        elif upper in ("INSERT", "UPDATE", "DELETE") and self._previous == "(":
            self._operation(token, upper, end, query)

    def _read_table(self, token: str, upper: str, end: int, query: str) -> None:
        level = self._level
        if upper in ("SELECT", "VALUES", "WITH"):
            level.awaits_table = level.in_tables = False
            if upper == "SELECT":
                self._select(token)
            return
        if upper in ("ONLY", "LATERAL") and _more(query, end):
            return
        level.awaits_table = False
        if upper in _NO_TABLES or token[0] in "@?$":
            return
        if _CALLED.match(query, end) and level.operation in ("SELECT", ""):
            return  # a function that returns rows
        if self._names is None or _unquoted(upper) not in self._names:
            self._add(_unquoted(token))

    def _select(self, token: str) -> None:
        level = self._level
        if not level.combines:  # by UNION: one operation on several tables
            self._add(token)
        level.operation = "SELECT"
        level.combines = level.read_tables = level.in_tables = False

    def _begin_tables(self, upper: str) -> None:
        level = self._level
        if upper == "FROM":
            # `extract(year FROM day)` and `a IS DISTINCT FROM b` name no table.
            if level.read_tables or not level.operation or self._previous == "DISTINCT":
                return
            level.read_tables = True
        level.awaits_table = level.in_tables = True

    def _add(self, token: str) -> None:
        self._left -= len(token) + 1
        if self._left < 0:
            self.is_full = True
        else:
            self.found.append(token)


def _more(query: str, end: int) -> bool:
    """Tell whether another word follows: ``FROM only`` is a table, ``FROM ONLY parent`` is not."""
    following = _TOKEN.search(query, end)
    return following is not None and following[0] not in ("(", ")", ",", ";")


def _unquoted(name: str) -> str:
    if '"' not in name and "`" not in name and "[" not in name:
        return name
    return _QUOTES.sub(lambda match: match[match.lastindex or 0], name)
