"""Texts, summaries and hashes of queries."""

from __future__ import annotations

import time

import pytest

from instrumentation.sql_vectors import VECTORS, Vector
from tracekit._sql import Query, reader


def read(query: str, system: str = "other_sql", *, parameterised: bool = False) -> Query:
    return reader(system, parameterised=parameterised)(query)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.query[:40])
def test_text_and_summary_are_the_published_ones(vector: Vector) -> None:
    found = read(vector.query, vector.system)
    assert (found.text, found.summary) == (vector.text, vector.summary)


@pytest.mark.parametrize(
    ("system", "value"),
    [
        ("postgresql", "E'it\\'s ''so'' \\\\'"),
        ("postgresql", "$$ it's $$"),
        ("postgresql", "$tag$ it's $$ $tag$"),
        ("postgresql", "U&'d\\0061t'"),
        ("postgresql", "X'1F'"),
        ("postgresql", "'back\\'"),
        ("mysql", "'it\\'s'"),
        ("mysql", '"it\'s \\" so"'),
        ("mysql", "_utf8mb4'x'"),
        ("mysql", "N'x'"),
        ("mariadb", "0x1F"),
        ("sqlite", "'it''s'"),
        ("sqlite", "TRUE"),
        ("microsoft.sql_server", "N'it''s'"),
        ("other_sql", "1.5e-3"),
        ("other_sql", "false"),
    ],
)
def test_values_are_replaced_in_the_quoting_of_each_dialect(system: str, value: str) -> None:
    assert read(f"SELECT {value}, a FROM t", system).text == "SELECT ?, a FROM t"


@pytest.mark.parametrize(
    ("system", "name"),
    [
        ("postgresql", '"it\'s 1"'),
        ("mysql", "`it's 1`"),
        ("microsoft.sql_server", "[it's 1]"),
        ("sqlite", "[it's 1]"),
        ("sqlite", '"it\'s 1"'),
    ],
)
def test_quoted_names_are_kept(system: str, name: str) -> None:
    found = read(f"SELECT 'x' FROM {name}", system)
    assert found.text == f"SELECT ? FROM {name}"
    assert found.summary == f"SELECT {name}"


@pytest.mark.parametrize("placeholder", ["?", "?1", "$1", ":1", ":name", "%s", "%(name)s", "@p1"])
def test_placeholders_are_kept(placeholder: str) -> None:
    query = f"SELECT a FROM t WHERE b = {placeholder}"
    assert read(query).text == query


def test_slices_and_casts_keep_their_colons() -> None:
    assert read("SELECT a[1:23], b::int4", "postgresql").text == "SELECT a[?:?], b::int4"


@pytest.mark.parametrize(
    ("system", "comment"),
    [("postgresql", "-- it's\n"), ("mysql", "# it's\n"), ("sqlite", "/* it's */")],
)
def test_comments_are_left_out(system: str, comment: str) -> None:
    assert "it" not in read(f"SELECT a {comment} FROM t", system).text


def test_text_is_kept_as_it_is_when_values_travel_beside_it() -> None:
    query = "SELECT 'a', 1 -- why\nFROM t WHERE id = %s"
    assert read(query, parameterised=True).text == query


@pytest.mark.parametrize(
    ("query", "summary"),
    [
        ('SELECT "u"."id" FROM "app"."user" "u"', "SELECT app.user"),
        ("WITH x AS (SELECT a FROM t) SELECT * FROM x JOIN y ON x.a = y.a", "SELECT t SELECT y"),
        (
            "WITH d AS (DELETE FROM t RETURNING *), u AS (UPDATE z SET q = 1 RETURNING *) "
            "INSERT INTO log SELECT * FROM d, u",
            "DELETE t UPDATE z INSERT log SELECT",
        ),
        ("SELECT EXTRACT(YEAR FROM day) FROM t WHERE a IS DISTINCT FROM b", "SELECT t"),
        ("INSERT INTO t (a) VALUES (1) ON CONFLICT (a) DO UPDATE SET a = 2", "INSERT t"),
        ("INSERT OR REPLACE INTO t VALUES (?)", "INSERT t"),
        ("DELETE FROM a USING b WHERE a.x = b.x", "DELETE a b"),
        ("MERGE INTO a USING b ON (a.x = b.x) WHEN MATCHED THEN UPDATE SET z = 1", "MERGE a b"),
        ("SELECT * FROM generate_series(1, 10) g, t", "SELECT t"),
        ("SELECT * FROM (a JOIN b ON a.x = b.x), c", "SELECT a b c"),
        ("(SELECT 1 FROM a) UNION ALL (SELECT 2 FROM b)", "SELECT a b"),
        ("SELECT * FROM t FOR UPDATE", "SELECT t"),
        ("UPDATE a, b SET a.x = b.x", "UPDATE a b"),
        ("EXPLAIN ANALYZE SELECT * FROM t", "EXPLAIN SELECT t"),
        ("SAVEPOINT sa_savepoint_12", "SAVEPOINT"),
        ("PRAGMA table_info(t)", "PRAGMA table_info"),
        ("COPY t FROM STDIN", "COPY t"),
        ("VACUUM ANALYZE t", "VACUUM t"),
        ("LOCK TABLE t", "LOCK t"),
        ("TRUNCATE t", "TRUNCATE t"),
        ("CREATE TABLE a (x); INSERT INTO a VALUES (1)", "CREATE TABLE a INSERT a"),
        ("CALL p(1, 2)", "CALL p"),
        ("BEGIN", "BEGIN"),
        ("COMMIT;", "COMMIT"),
        ("", ""),
        (" ;; ", ""),
        ("?", ""),
    ],
)
def test_summary_names_operations_and_tables_in_order(query: str, summary: str) -> None:
    assert read(query, "postgresql").summary == summary


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("SELECT a FROM t WHERE b = 1", "SELECT a\n  FROM t WHERE b = 'x' -- why"),
        ("SELECT a FROM t WHERE b IN (1, 2)", "SELECT a FROM t WHERE b IN ('x')"),
        ("SELECT a FROM t WHERE b IN (%s, %s)", "SELECT a FROM t WHERE b IN (%s)"),
        ("SELECT a FROM t WHERE b IN ($1, $2)", "SELECT a FROM t WHERE b IN ($1)"),
        ("INSERT INTO t VALUES (1, 2), (3, 4)", "INSERT INTO t VALUES (5, 6)"),
    ],
)
def test_hash_is_the_same_for_queries_that_differ_in_values(one: str, other: str) -> None:
    assert read(one).hash == read(other).hash
    assert read(one).hash == read(one, parameterised=True).hash


def test_hash_differs_beyond_what_is_recorded() -> None:
    padding = " AND ".join(["a_rather_long_name = other"] * 1000)
    one, other = read(f"SELECT 1 WHERE {padding} AND a"), read(f"SELECT 1 WHERE {padding} AND b")
    assert one.text == other.text
    assert one.hash != other.hash


HOSTILE = {
    "numbers": "SELECT " + "1," * 5_000_000,
    "strings": "SELECT " + "'a'," * 2_500_000,
    "quotes": "'" * 10_000_000,
    "backslashes": "E'" + "\\" * 10_000_000,
    "dollars": "$a$ " * 2_500_000,
    "parentheses": "(" * 10_000_000,
    "brackets": "[" * 10_000_000,
    "double quotes": '"' * 9_999_999,
    "comments": "/*" * 5_000_000,
    "lists": "IN (" * 2_500_000,
    "rows": "VALUES " + "(?), " * 2_000_000,
    "spaces": "SELECT IN (" + " " * 10_000_000,
    "subqueries": "SELECT * FROM (" * 700_000,
}


@pytest.mark.parametrize("system", ["postgresql", "mysql", "sqlite"])
@pytest.mark.parametrize("name", HOSTILE)
def test_ten_megabytes_are_read_in_bounded_time(system: str, name: str) -> None:
    began = time.thread_time()
    found = read(HOSTILE[name], system)
    assert time.thread_time() - began < 1
    assert len(found.text) <= 16_384
    assert len(found.summary) <= 255


def test_lone_surrogates_can_be_written() -> None:
    found = read("SELECT '\ud800' FROM \ud801", parameterised=True)
    assert found.text.encode()
    assert found.summary.encode()
