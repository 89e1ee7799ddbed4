"""Django's ORM: one span a statement, over drivers that are watched as well.

Each test is a program of its own: Django keeps its databases for the life of a process.
"""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Any

import pytest

from database_servers import DatabaseServer
from instrumentation.http_client_contract import run

django: Any = pytest.importorskip("django")

_SET_UP = """
    import json, sqlite3
    from instrumentation.conftest import Spans
    from tracekit.instrumentation import django, psycopg, sqlite3 as of_sqlite

    spans = Spans()
    for module in (psycopg, of_sqlite, django):
        module.plugin().instrument(tracer_provider=spans.provider)

    import django as library
    from django.conf import settings

    settings.configure(DATABASES={"default": DATABASE}, INSTALLED_APPS=[], USE_TZ=True)
    library.setup()
    from django.db import connection, models, transaction

    class Item(models.Model):
        name = models.TextField()

        class Meta:
            app_label = "shop"

    with connection.schema_editor() as editor:
        editor.create_model(Item)
    spans.clear()
"""
_SHOW = """
    connection.close()
    print(json.dumps([
        {
            "name": span.name,
            "in": span.parent and span.parent.span_id,
            "error": span.status.status_code.name == "ERROR",
            **dict(span.attributes),
        }
        for span in spans.watched
    ]))
"""


def asked(database: dict[str, Any], program: str) -> list[dict[str, Any]]:
    """Run a program with a table of items, and return its spans."""
    parts = (_SET_UP.replace("DATABASE}", f"{database!r}}}"), program, _SHOW)
    found: list[dict[str, Any]] = json.loads(run("\n".join(map(textwrap.dedent, parts))))
    return found


@pytest.fixture
def sqlite(tmp_path: Path) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "shop.db")}


def test_statements_of_the_orm_are_one_span_each(sqlite: dict[str, Any]) -> None:
    spans = asked(
        sqlite,
        """
        with spans.tracer.start_as_current_span("parent"):
            Item.objects.create(name="a")
            list(Item.objects.filter(name="a"))
            Item.objects.filter(pk=1).update(name="b")
            Item.objects.all().delete()
        """,
    )
    # Django begins a transaction of SQLite by a statement.
    assert [span["name"] for span in spans if span["name"] != "BEGIN"] == [
        "INSERT shop_item",
        "SELECT shop_item",
        "UPDATE shop_item",
        "DELETE shop_item",
    ]
    assert len({span["in"] for span in spans}) == 1
    assert {span["db.system.name"] for span in spans} == {"sqlite"}
    assert {span["db.namespace"] for span in spans} == {sqlite["NAME"]}
    assert "'a'" not in json.dumps(spans)


def test_failure_tells_the_databases_code(sqlite: dict[str, Any]) -> None:
    (span,) = asked(
        sqlite,
        """
        try:
            with connection.cursor() as cursor:
                cursor.execute("SELECT * FROM missing")
        except library.db.utils.OperationalError:
            pass
        """,
    )
    assert span["error"]
    assert span["error.type"] in ("SQLITE_ERROR", "django.db.utils.OperationalError")


def test_batch_is_one_span_with_its_size(sqlite: dict[str, Any]) -> None:
    (span,) = asked(
        sqlite,
        """
        with connection.cursor() as cursor:
            cursor.executemany("INSERT INTO shop_item (name) VALUES (%s)", [("a",), ("b",)])
        """,
    )
    assert (span["name"], span["db.operation.batch.size"]) == ("INSERT shop_item", 2)


def test_postgresql_is_named_and_its_set_up_is_not_recorded(postgresql: DatabaseServer) -> None:
    if django.VERSION < (4, 2):
        pytest.skip("Django knows psycopg 3 from version 4.2 on")
    at = postgresql
    database = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": at.database,
        "USER": at.user,
        "HOST": at.host,
        "PORT": at.port,
        "CONN_HEALTH_CHECKS": True,
        "CONN_MAX_AGE": 60,
    }
    spans = asked(
        database,
        """
        connection.close()
        for _ in range(2):
            library.db.close_old_connections()
            with spans.tracer.start_as_current_span("parent"):
                list(Item.objects.filter(name="a"))
        with connection.schema_editor() as editor:
            editor.delete_model(Item)
        """,
    )
    assert [span["name"] for span in spans] == [
        "SELECT shop_item",
        "SELECT shop_item",
        "DROP TABLE shop_item",
    ]
    assert spans[0]["db.system.name"] == "postgresql"
    assert spans[0]["server.port"] == at.port
    assert len(spans[0]["tracekit.db.parameters.hash"]) == 16
