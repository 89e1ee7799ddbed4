"""Settings: which source wins, and what is said of one that cannot be read."""

from __future__ import annotations

import pytest

from tracekit import settings
from tracekit.errors import ConfigurationError, UnknownNameError


@pytest.fixture
def project(tmp_path):
    def write(text):
        (tmp_path / "pyproject.toml").write_text(text, encoding="utf-8")
        return tmp_path

    return write


TABLE = '[tool.tracekit]\nservice_name = "from file"\nexporters = ["console"]\n'


def value_and_source(found, key):
    return found[key].value, found[key].source


def test_arguments_win_over_the_environment_over_the_file_over_defaults(project):
    folder = project(TABLE)
    environ = {"OTEL_SERVICE_NAME": "from environment"}
    all_three = settings.load({"service_name": "from code"}, environ, folder)
    assert value_and_source(all_three, "service_name") == ("from code", "argument")
    without_argument = settings.load({"service_name": None}, environ, folder)
    assert value_and_source(without_argument, "service_name") == (
        "from environment",
        "OTEL_SERVICE_NAME",
    )
    file_only = settings.load({}, {}, folder)
    assert file_only["service_name"].value == "from file"
    assert "pyproject.toml" in file_only["service_name"].source
    assert value_and_source(file_only, "sampler") == ("parentbased_always_on", "default")


def test_our_own_variable_wins_over_opentelemetrys(project):
    environ = {"TRACEKIT_EXPORTERS": "memory", "OTEL_TRACES_EXPORTER": "console"}
    found = settings.load({}, environ, project(""))
    assert value_and_source(found, "exporters") == ("memory", "TRACEKIT_EXPORTERS")


@pytest.mark.parametrize("text", ["", "   ", "\t"])
def test_an_empty_variable_counts_as_not_set(project, text):
    found = settings.load({}, {"OTEL_SERVICE_NAME": text}, project(TABLE))
    assert found["service_name"].value == "from file"


def test_the_file_is_that_of_the_project_the_folder_belongs_to(project):
    folder = project(TABLE)
    (folder / "src" / "package").mkdir(parents=True)
    found = settings.load({}, {}, folder / "src" / "package")
    assert found["service_name"].value == "from file"


def test_a_file_that_says_nothing_to_us_is_not_judged(project):
    found = settings.load({}, {}, project("this is = = not toml"))
    assert "service_name" not in found


def test_a_malformed_file_is_an_error_that_names_it(project):
    with pytest.raises(ConfigurationError, match=r"pyproject\.toml is not valid TOML"):
        settings.load({}, {}, project("[tool.tracekit]\nservice_name = "))


@pytest.mark.parametrize(
    "text", ["[tool]\ntracekit = 5  # tool.tracekit", "tool = 5 # tool.tracekit"]
)
def test_a_table_that_is_none_is_an_error_or_nothing(project, text):
    folder = project(text)
    if text.startswith("[tool]"):
        with pytest.raises(ConfigurationError, match=r"write \[tool\.tracekit\]"):
            settings.load({}, {}, folder)
    else:
        assert "service_name" not in settings.load({}, {}, folder)


def test_an_unknown_key_is_an_error_that_lists_the_known_ones_and_the_near_miss(project):
    with pytest.raises(UnknownNameError) as caught:
        settings.load({}, {}, project('[tool.tracekit]\nservice_nam = "x"\n'))
    message = str(caught.value)
    assert "pyproject.toml" in message
    assert "Did you mean 'service_name'?" in message
    assert "propagators" in message


def test_a_folder_that_is_gone_has_no_file(monkeypatch, tmp_path):
    def gone():
        raise FileNotFoundError

    monkeypatch.setattr("os.getcwd", gone)
    assert settings.load({}, {})["sampler"].source == "default"


def test_a_file_that_cannot_be_decoded_says_nothing(tmp_path):
    (tmp_path / "pyproject.toml").write_bytes(b"\xff\xfe[tool.tracekit]")
    assert "service_name" not in settings.load({}, {}, tmp_path)
