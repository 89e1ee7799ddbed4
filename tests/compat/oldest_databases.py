"""Run the tests of databases with the oldest versions of their libraries, in a new environment.

``python3.10 tests/compat/oldest_databases.py FOLDER``: on request, not in CI.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

OLDEST = {
    "aiosqlite": "0.17.0",
    "asyncpg": "0.24.0",  # 0.22 and 0.23 have no wheels for Python 3.10
    "Django": "3.2",
    "mysql-connector-python": "8.0.29",
    "mysqlclient": "1.4.6",
    "psycopg": "3.1.10",
    "psycopg-binary": "3.1.10",
    "psycopg2-binary": "2.8.6",
    "PyMySQL": "0.9.3",
    "SQLAlchemy[asyncio]": "1.4.17",
}
TOOLS = ("pytest", "pytest-randomly", "pytest-timeout", "hypothesis", "opentelemetry-sdk")
TESTED = "sqlite3 aiosqlite psycopg psycopg2 asyncpg pymysql mysqldb mysql_connector sqlalchemy"
ROOT = Path(__file__).parent.parent.parent


def main(folder: Path) -> int:
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    pins = [f"{name}=={version}" for name, version in OLDEST.items()]
    subprocess.run([python, "-m", "pip", "install", "-q", "-e", ROOT, *pins, *TOOLS], check=True)
    files = [f"tests/instrumentation/test_{name}.py" for name in (*TESTED.split(), "django_db")]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *files]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
