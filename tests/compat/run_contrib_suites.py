"""Run the test suites of OpenTelemetry's instrumentations, once on its SDK and once on tracekit.

    python tests/compat/run_contrib_suites.py [SUITE ...]

The suites come from the source archives on the package index. Archives and a virtual environment
are kept in a cache folder outside the repository, so a second run downloads nothing. Prints one
row a suite, then every test that passes with opentelemetry-sdk and does not with tracekit; exits
with 1 when there is one that is not explained below.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import venv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent.parent

VERSION, SDK_VERSION = "0.66b1", "1.45.1"

# What each suite imports, beside opentelemetry-test-utils and pytest.
SUITES: Mapping[str, Sequence[str]] = {
    "requests": ["requests", "mocket"],
    "httpx": ["httpx[http2]", "respx"],
    "flask": ["flask"],
    "fastapi": ["fastapi~=0.118.0", "httpx", "requests"],
    "asgi": ["asgiref"],
    "wsgi": [],
    "sqlalchemy": ["sqlalchemy~=2.0.36", "aiosqlite", "greenlet"],
    "redis": ["redis", "fakeredis"],
    "grpc": ["grpcio", "protobuf"],
    "celery": ["celery"],
    "django": ["django"],
    "logging": [],
}

COMMON = [
    f"opentelemetry-test-utils=={VERSION}",
    f"opentelemetry-sdk=={SDK_VERSION}",
    "pytest",
    "pytest-asyncio",
    "pytest-timeout",
    # what the archives are built with; pip reads their metadata before it keeps them
    "hatchling",
    "setuptools",
    "wheel",
]

# Tests that pass with the SDK only, with the reason.
EXPLAINED: Mapping[str, str] = {
    "test_client_interceptor.TestClientProto::test_client_interceptor_falsy_response": (
        "replaces end() on opentelemetry-sdk's own Span class and counts the calls of that"
    ),
}

SUITE_TIMEOUT_S = 900


def cache_folder() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "tracekit-contrib-suites" / VERSION


@dataclass(frozen=True)
class Environment:
    """A virtual environment of the suites' own, and the folder of their archives."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "venv" / "bin" / "python")

    def prepare(self) -> None:
        if not Path(self.python).exists():
            venv.create(self.folder / "venv", with_pip=True)
            self.install(*COMMON)
        self.install("--no-deps", "-e", str(REPOSITORY))
        self.install("wrapt", "contextvars-extras", "requests", "click")

    def install(self, *packages: str) -> None:
        self._pip("install", "--quiet", *packages)

    def _pip(self, *words: str) -> None:
        command = [self.python, "-m", "pip", "--disable-pip-version-check", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])

    def suite(self, name: str) -> Path:
        """Return the folder of a suite, with what it needs installed."""
        package = f"opentelemetry-instrumentation-{name}=={VERSION}"
        unpacked = self.folder / f"opentelemetry_instrumentation_{name}-{VERSION}"
        if not unpacked.exists():
            self.install(package, *SUITES[name])
            place = ["--dest", str(self.folder), "--no-deps"]
            source = ["--no-binary", ":all:", "--no-build-isolation"]
            self._pip("download", "--quiet", *place, *source, package)
            with tarfile.open(unpacked.with_name(f"{unpacked.name}.tar.gz")) as archive:
                archive.extractall(self.folder, filter="data")
        return unpacked / "tests"


Outcomes = dict[str, str]
"""passed, failed or skipped, by the name of the test."""


def outcomes(python: str, tests: Path, plugins: Sequence[str]) -> Outcomes:
    """Run a suite in a process of its own."""
    report = tests.parent / f"report-{'-'.join(plugins) or 'sdk'}.xml"
    report.unlink(missing_ok=True)
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:randomly", "--timeout=60"]
    command = [python, "-m", "pytest", *options, f"--junitxml={report}", f"--rootdir={tests}"]
    for plugin in plugins:
        command += ["-p", plugin]
    done = subprocess.run(
        [*command, str(tests)],
        cwd=tests,
        env=_environment(tests),
        capture_output=True,
        text=True,
        timeout=SUITE_TIMEOUT_S,
        check=False,
    )
    if not report.exists():
        raise RuntimeError((done.stdout + done.stderr).strip()[-300:])
    (report.with_suffix(".txt")).write_text(done.stdout)
    return dict(_read(report))


def _environment(tests: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return kept | {
        # Some suites import their own modules as `tests.…`.
        "PYTHONPATH": os.pathsep.join([str(HERE), str(tests.parent)]),
        "PYTHONDONTWRITEBYTECODE": "1",
        # What grpc's suite was generated with is older than any protobuf of today reads otherwise.
        "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python",
    }


def _read(report: Path) -> Iterator[tuple[str, str]]:
    seen: Counter[str] = Counter()
    for case in ElementTree.parse(report).iter("testcase"):
        name = f"{case.get('classname')}::{case.get('name')}"
        # Subtests are reported under the name of their test.
        seen[name] += 1
        name = name if seen[name] == 1 else f"{name} ({seen[name]})"
        kinds = {child.tag for child in case}
        failed = kinds & {"failure", "error"}
        yield name, "failed" if failed else "skipped" if "skipped" in kinds else "passed"


@dataclass(frozen=True)
class Comparison:
    """One suite, run twice."""

    name: str
    with_sdk: Outcomes
    with_tracekit: Outcomes

    def row(self) -> str:
        cells = [_counts(self.with_sdk), _counts(self.with_tracekit), str(len(self.differences()))]
        return f"{self.name:12} {cells[0]:>18} {cells[1]:>18} {cells[2]:>12}"

    def differences(self) -> list[str]:
        """Return the tests that pass with opentelemetry-sdk and do not with tracekit."""
        return [
            test
            for test, outcome in self.with_sdk.items()
            if outcome == "passed" and self.with_tracekit.get(test) != "passed"
        ]


def _counts(outcome: Outcomes) -> str:
    counts = Counter(outcome.values())
    return "/".join(str(counts[kind]) for kind in ("passed", "failed", "skipped"))


def compare(environment: Environment, name: str) -> Comparison:
    tests = environment.suite(name)
    with_sdk = outcomes(environment.python, tests, [])
    return Comparison(name, with_sdk, outcomes(environment.python, tests, ["in_place_of_sdk"]))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(SUITES))
    parser.add_argument("--cache", type=Path, default=cache_folder(), help="default: %(default)s")
    chosen = parser.parse_args(arguments)
    for name in set(chosen.suites) - set(SUITES):
        parser.error(f"unknown suite {name!r}; known are {', '.join(SUITES)}")
    chosen.cache.mkdir(parents=True, exist_ok=True)
    environment = Environment(chosen.cache)
    environment.prepare()
    print(f"{'suite':12} {'opentelemetry-sdk':>18} {'tracekit':>18} {'differences':>12}")
    compared = list(_compared(environment, chosen.suites or list(SUITES)))
    return _say_differences(compared)


def _compared(environment: Environment, names: Sequence[str]) -> Iterator[Comparison]:
    for name in names:
        try:
            comparison = compare(environment, name)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            print(f"{name:12} not run: {error}")
            continue
        print(comparison.row(), flush=True)
        yield comparison


def _say_differences(compared: Sequence[Comparison]) -> int:
    unexplained = 0
    for comparison in compared:
        for test in comparison.differences():
            reason = EXPLAINED.get(test)
            unexplained += reason is None
            print(f"\n{comparison.name}: {test}\n    {reason or 'NOT EXPLAINED'}")
    print("\n(passed/failed/skipped)")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
