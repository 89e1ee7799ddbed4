"""Test the oldest and the newest version of each library that is watched, and print a table.

    python tests/compat/matrix.py [LIBRARY ...] [--side oldest|newest]
    python tests/compat/matrix.py LIBRARY==VERSION ...

On request, not in CI, which tests the newest of everything together. The versions of a library,
with what they depend on, are installed into a folder of their own, which stands in front of an
environment that has everything else, unless that has the newest itself. The newest are run on the
Python that runs this, all others on the oldest that they know. Folders are kept: a second run
installs nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / ".venv-matrix"
OLDEST_PYTHON = "3.10"
_TIMEOUT_S = 900


@dataclass(frozen=True)
class Library:
    """A library, by the name of its instrumentation or of its plugin.

    Attributes:
        package: What is installed.
        oldest: Its lowest version that is supported and can be had for its oldest Python.
        beside: What the oldest needs beside it, where the newest of that would not do.
        tests: Files in ``tests/instrumentation``; the one named for it, where none is given.
        python: What the oldest is run on.
    """

    package: str
    oldest: str
    beside: Sequence[str] = ()
    tests: Sequence[str] = field(default=())
    python: str = OLDEST_PYTHON


LIBRARIES: Mapping[str, Library] = {
    "requests": Library("requests", "2.22.0"),
    "urllib3": Library("urllib3", "1.26.0"),
    "httpx": Library("httpx[http2]", "0.23.0"),
    "httpx2": Library("httpx2[http2]", "2.0.0", python="3.11"),
    "aiohttp_client": Library("aiohttp", "3.9.0", ["yarl<1.10"]),
    "aiohttp_server": Library("aiohttp", "3.9.0", ["yarl<1.10"]),
    "django": Library(
        "django", "3.2", ["djangorestframework<3.15"], ["test_django.py", "test_django_db.py"]
    ),
    "flask": Library("flask[async]", "2.2.0", ["werkzeug<2.3"]),
    "starlette": Library("starlette", "0.27.0"),
    "fastapi": Library("fastapi", "0.95.2"),
    "aiosqlite": Library("aiosqlite", "0.17.0"),
    "psycopg": Library("psycopg[binary,pool]", "3.1.10"),
    "psycopg2": Library("psycopg2-binary", "2.8.6"),
    "asyncpg": Library("asyncpg", "0.24.0"),
    "pymysql": Library("pymysql", "0.9.3"),
    "mysqldb": Library("mysqlclient", "1.4.6"),
    "mysql_connector": Library("mysql-connector-python", "8.0.29"),
    "sqlalchemy": Library("sqlalchemy[asyncio]", "1.4.0"),
    "redis": Library("redis", "4.2.0"),
    "valkey": Library("valkey", "6.0.0"),
    "pymongo": Library("pymongo", "4.0"),
    "grpc": Library("grpcio", "1.48.0"),
    "celery": Library("celery[redis]", "5.2.1", [], ["test_celery.py", "test_celery_workers.py"]),
    "botocore": Library("botocore", "1.29.0", ["boto3==1.26.0"]),
    # It wants a botocore of its own, so that CI, which tests the newest of all, cannot have it.
    "aiobotocore": Library("aiobotocore", "2.5.0"),
    # AWS brings one with each runtime, so that no version is refused.
    "aws_lambda": Library("awslambdaric", "1.2.2"),
    "structlog": Library("structlog", "22.2.0"),
    "loguru": Library("loguru", "0.7.0"),
    "pytest": Library("pytest", "8.0.0", tests=["../test_pytest_plugin.py"]),
}


@dataclass(frozen=True)
class Outcome:
    """What the tests of one library said of one version."""

    name: str
    side: str
    version: str
    python: str
    counts: str
    failed: Sequence[str]
    skipped: Mapping[str, int] = field(default_factory=dict)

    def row(self) -> str:
        verdict = "ok" if not self.failed and self.counts[0] != "0" else "FAILS"
        cells = f"{self.name:16} {self.side:7} {self.version:12} {self.python:7}"
        return f"{cells} {self.counts:>12}  {verdict}"

    def remarks(self) -> list[str]:
        """Return what failed, and why tests were skipped."""
        return [*self.failed, *(f"skipped {count}: {why}" for why, count in self.skipped.items())]


def environment(version: str) -> str:
    """Return the interpreter of an environment with everything in it, made where there is none."""
    if version == _version_of(sys.executable):
        return sys.executable
    folder = ROOT / f".venv-{version}"
    python = folder / "bin" / "python"
    if not (folder / ".installed-dev").exists():
        command = ["sh", ".ci/bootstrap", folder.name, "dev", _interpreter(version)]
        subprocess.run(command, cwd=ROOT, check=True)
    return str(python)


def _interpreter(version: str) -> str:
    home = Path(os.environ.get("HOME", "/"))
    found = sorted(home.glob(f".pyenv/versions/{version}.*/bin/python"))
    return str(found[-1]) if found else f"python{version}"


def _version_of(python: str) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.check_output([python, "-c", code], text=True).strip()


def installed(python: str, folder: Path, requirements: Sequence[str]) -> None:
    """Install into a folder, unless that was done before."""
    stamp = folder / ".installed"
    wanted = "\n".join(requirements)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    shutil.rmtree(folder, ignore_errors=True)
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--target", folder, *requirements]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["pip failed"])[-1])
    stamp.write_text(wanted)


def tried(name: str, side: str) -> Outcome:
    """Run the tests of one library with its ``oldest``, its ``newest`` or a version by number."""
    library = LIBRARIES[name]
    python = sys.executable if side == "newest" else environment(library.python)
    shown = _version_of(python)
    requirements = _requirements(library, side)
    environ = dict(os.environ)
    # Called as such a folder is, so that nothing in it passes for the program's own.
    folder = FOLDER / f"{name}-{side}-{shown}" / "site-packages"
    if side != "newest" or not _has_newest(python, library.package):
        try:
            installed(python, folder, requirements)
        except RuntimeError as error:
            return Outcome(name, side, "", shown, "0", [f"not installed: {error}"])
        environ["PYTHONPATH"] = str(folder)
    version = _installed_version(python, library.package, environ)
    # Old libraries use what Python has since deprecated; what is ours is held to it by the newest.
    options = () if side == "newest" else ("-Wignore",)
    environ["PYTHONWARNINGS"] = "error" if side == "newest" else "ignore"
    said = _run(python, library.tests or (f"test_{name}.py",), environ, options)
    return Outcome(name, side, version, shown, *said)


def _requirements(library: Library, side: str) -> list[str]:
    if side == "newest":
        return [library.package]
    if side == "oldest":
        return [f"{library.package}=={library.oldest}", *library.beside]
    return [f"{library.package}=={side}"]


def _has_newest(python: str, package: str) -> bool:
    """Ask pip whether there is anything newer than what the environment has."""
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    command = [*pip, "--dry-run", "--upgrade", "--no-deps", "--report", "-", package]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and not json.loads(done.stdout)["install"]


def _installed_version(python: str, package: str, environ: Mapping[str, str]) -> str:
    code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
    name = package.partition("[")[0]
    return subprocess.check_output([python, "-c", code, name], env=environ, text=True).strip()


def _run(
    python: str, tests: Sequence[str], environ: Mapping[str, str], more: Sequence[str]
) -> tuple[str, list[str], Mapping[str, int]]:
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        files = [f"tests/instrumentation/{test}" for test in tests]
        options = ["-q", "-p", "no:cacheprovider", "-m", "not slow", f"--junitxml={report}"]
        command = [python, "-m", "pytest", *options, *more, *files]
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=environ,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        if not report.exists():
            return "0", [(done.stdout + done.stderr).strip()[-600:]], {}
        return _read(report)


def _read(report: Path) -> tuple[str, list[str], Mapping[str, int]]:
    passed, failed, skipped = 0, list[str](), Counter[str]()
    for case in ElementTree.parse(report).iter("testcase"):
        wrong: Any = case.find("failure")
        wrong = case.find("error") if wrong is None else wrong
        if wrong is not None:
            said = (wrong.get("message") or "").splitlines()
            failed.append(f"{case.get('name')}: {said[0][:160] if said else ''}")
        elif (without := case.find("skipped")) is not None:
            skipped[without.get("message") or ""] += 1
        else:
            passed += 1
    return f"{passed}/{len(failed)}/{sum(skipped.values())}", failed, skipped


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    known = ", ".join(LIBRARIES)
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY[==VERSION]", help=known)
    parser.add_argument("--side", choices=("oldest", "newest"), help="one of the two")
    chosen = parser.parse_args(arguments)
    asked = [name.partition("==") for name in chosen.libraries or LIBRARIES]
    for name in {name for name, _, _ in asked} - set(LIBRARIES):
        parser.error(f"unknown library {name!r}; known are {known}")
    print(f"{'library':16} {'':7} {'version':12} {'Python':7} {'p/f/skipped':>12}")
    bad = 0
    sides = [chosen.side] if chosen.side else ["oldest", "newest"]
    for name, _, version in asked:
        for side in [version] if version else sides:
            began = time.monotonic()
            outcome = tried(name, side)
            print(f"{outcome.row()}  {time.monotonic() - began:.0f} s", flush=True)
            for remark in outcome.remarks():
                print(f"    {remark}", flush=True)
            bad += bool(outcome.failed)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
