"""Parts are found by name: a file of ours, else an entry point; else the error says what to do."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from tracekit import discovery
from tracekit.errors import ConfigurationError, NotInstalledError, UnknownNameError

PACKAGE = Path(discovery.__file__).parent


@pytest.mark.parametrize("kind", ["exporter", "sampler", "propagator", "instrumentation"])
def test_every_file_of_a_folder_is_a_part_by_its_name(kind):
    package = importlib.import_module(discovery.KINDS[kind].package)
    files = {path.stem for path in Path(str(package.__file__)).parent.glob("*.py")}
    public = {name for name in files if not name.startswith("_")}
    assert set(discovery.own_names(kind)) >= public
    for name in sorted(public):
        assert discovery.find(kind, name) is not None


@pytest.mark.parametrize("kind", ["exporter", "sampler", "propagator", "instrumentation"])
def test_an_unknown_name_lists_the_known_ones(kind):
    with pytest.raises(UnknownNameError) as caught:
        discovery.find(kind, "no_such_thing_at_all", "SOME_VARIABLE")
    message = str(caught.value)
    assert "(from SOME_VARIABLE)" in message
    for name in discovery.names(kind):
        assert name in message


@pytest.mark.parametrize(
    ("kind", "name", "near"),
    [
        ("exporter", "consol", "console"),
        ("exporter", "otlp-file", "otlp_file"),
        ("sampler", "traceidration", "traceidratio"),
        ("propagator", "trace_context", "tracecontext"),
        ("instrumentation", "request", "requests"),
    ],
)
def test_a_near_miss_is_named(kind, name, near):
    with pytest.raises(UnknownNameError, match=f"Did you mean '{near}'"):
        discovery.find(kind, name)


@pytest.mark.parametrize("name", ["CONSOLE", "Console"])
def test_case_does_not_matter(name):
    assert discovery.find("exporter", name) is discovery.find("exporter", "console")


@pytest.mark.parametrize("name", ["", "_tree", "..", "__init__", "console.py", "console\0", "/etc"])
def test_shared_steps_and_paths_are_no_names(name):
    with pytest.raises(UnknownNameError):
        discovery.find("exporter", name)


def test_a_part_whose_package_is_missing_gives_the_pip_command(monkeypatch, tmp_path):
    from tracekit import exporters

    (tmp_path / "needy.py").write_text("import a_package_that_nobody_has.deeply")
    monkeypatch.setattr(exporters, "__path__", [*exporters.__path__, str(tmp_path)])
    with pytest.raises(NotInstalledError) as caught:
        discovery.find("exporter", "needy")
    assert "pip install 'a_package_that_nobody_has'" in str(caught.value)
    assert isinstance(caught.value, (ImportError, ConfigurationError))


def test_an_entry_point_is_found_behind_our_own(monkeypatch):
    class Point:
        value = "theirs:Exporter"
        name = "theirs"

        @staticmethod
        def load():
            return "a class"

    monkeypatch.setattr(discovery, "_entry_points", lambda part: iter([Point]))
    assert discovery.find("exporter", "theirs") == "a class"
    assert "theirs" in discovery.names("exporter")


def test_an_entry_point_that_cannot_be_imported_gives_the_pip_command(monkeypatch):
    class Point:
        value = "theirs:Exporter"
        name = "theirs"

        @staticmethod
        def load():
            raise ModuleNotFoundError("No module named 'x.y'", name="x.y")

    monkeypatch.setattr(discovery, "_entry_points", lambda part: iter([Point]))
    with pytest.raises(NotInstalledError, match="pip install 'x'"):
        discovery.find("exporter", "theirs")


def test_our_own_parts_are_found_without_reading_the_metadata_of_all_packages(monkeypatch):
    def never(part):
        raise AssertionError("slow")

    monkeypatch.setattr(discovery, "_entry_points", never)
    assert discovery.find("exporter", "console") is not None


def test_finding_names_imports_no_part():
    from programs import run

    done = run(
        """
import sys
from tracekit import discovery
discovery.own_names("exporter")
print([name for name in sys.modules if name.startswith("tracekit.exporters.") and "._" not in name])
"""
    )
    assert done.stdout == "[]\n", done.stderr
