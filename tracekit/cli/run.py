"""``tracekit run``: any Python program traced, with no code change."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import click

from tracekit.errors import ConfigurationError, UnknownNameError

__all__ = ["command"]

SITE_FOLDER = Path(__file__).with_name("_site")
NOT_EXECUTABLE, NOT_FOUND = 126, 127
"""What a shell exits with when it cannot start a command."""


@click.command(
    context_settings={"allow_interspersed_args": False},
    short_help="Trace a program without changing it.",
)
@click.option("-m", "is_module", is_flag=True, help="Run a module, as `python -m` does.")
@click.option("--service-name", help="What the spans' service is called (OTEL_SERVICE_NAME).")
@click.option(
    "--exporter",
    "exporters",
    multiple=True,
    metavar="NAME",
    help="Where spans go: store, console, otlp, otlp_file, ... or none; may be repeated.",
)
@click.option(
    "--sampler",
    metavar="NAME[:ARG]|SHARE",
    help="Which traces to keep, such as 0.1 for a tenth, or parentbased_always_on.",
)
@click.option("--store", type=click.Path(dir_okay=False), help="Keep spans in this file.")
@click.option("--no-instrument", is_flag=True, help="Leave libraries alone: spans by hand only.")
@click.option("-v", "--verbose", is_flag=True, help="Say in one line what was set up.")
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="CMD [ARGS]...")
def command(
    is_module: bool,
    service_name: str | None,
    exporters: tuple[str, ...],
    sampler: str | None,
    store: str | None,
    no_instrument: bool,
    verbose: bool,
    words: tuple[str, ...],
) -> None:
    """Run CMD so that it, and every Python process that it starts, is traced.

    \b
      tracekit run app.py
      tracekit run python -m app
      tracekit run -m app
      tracekit run gunicorn --preload -w 3 app:app
      tracekit run --store t.db uvicorn --workers 2 app:app

    CMD takes the place of this process: signals reach it directly, and its exit code is the
    program's. Pythons that ignore their environment (-I, -E, -S) are not traced.
    """
    chosen = {
        "OTEL_SERVICE_NAME": service_name,
        "TRACEKIT_EXPORTERS": ",".join(exporters) or ("store" if store else None),
        "TRACEKIT_STORE": store and os.path.abspath(os.path.expanduser(store)),
        "TRACEKIT_RUN_INSTRUMENT": "0" if no_instrument else None,
        "TRACEKIT_RUN_VERBOSE": "1" if verbose else None,
        **_sampler_variables(sampler),
    }
    os.environ.update({name: value for name, value in chosen.items() if value})
    try:
        _refuse_what_cannot_work(exporters, sampler)
    except ConfigurationError as error:
        raise click.UsageError(str(error)) from error
    _become(_program(words, is_module))


def _sampler_variables(sampler: str | None) -> dict[str, str | None]:
    if sampler is None:
        return {}
    name, _, argument = sampler.partition(":")
    try:
        float(name)
    except ValueError:
        return {"OTEL_TRACES_SAMPLER": name, "OTEL_TRACES_SAMPLER_ARG": argument or None}
    return {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": name}


def _refuse_what_cannot_work(exporters: Sequence[str], sampler: str | None) -> None:
    """Find out here what would otherwise be a line on stderr of a program that runs untraced.

    Raises:
        ConfigurationError: With the option's name where the value came from one.
    """
    from tracekit import discovery, settings
    from tracekit.configure import check

    found = settings.load({})
    if setting := found.get("exporters"):
        source = "--exporter" if exporters else setting.source
        for name in str(setting.value).split(",") if isinstance(setting.value, str) else ():
            if name.strip() not in ("", "none"):
                discovery.find("exporter", name.strip(), source)
    try:
        check(found)
    except UnknownNameError as error:
        if error.kind != "sampler" or not sampler:
            raise
        raise UnknownNameError(error.kind, error.name, error.known, "--sampler") from error


def _program(words: Sequence[str], is_module: bool) -> list[str]:
    if is_module:
        return [sys.executable, "-m", *words]
    if words[0].endswith((".py", ".pyw", ".pyz")):
        return [sys.executable, *words]
    return list(words)


def _become(words: Sequence[str]) -> NoReturn:
    """Replace this process by the program, in an environment that sets every Python up."""
    path = _find(words[0])
    if path is None:
        click.echo(f"tracekit run: command not found: {words[0]}", err=True)
        sys.exit(NOT_FOUND)
    before = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    rest = [entry for entry in before if entry != str(SITE_FOLDER)]
    # An empty entry means the current folder: it is kept, and none is made where none was.
    entries = [str(SITE_FOLDER), *(rest if rest != [""] else [])]
    os.environ["PYTHONPATH"] = os.pathsep.join(entries)
    os.environ["TRACEKIT_RUN_PID"] = str(os.getpid())
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execve(path, list(words), os.environ)
    except OSError as error:
        click.echo(f"tracekit run: {words[0]}: {error.strerror}", err=True)
        sys.exit(NOT_EXECUTABLE)


def _find(name: str) -> str | None:
    """Return the file of a command: on PATH, else beside the Python that runs tracekit.

    The second makes `.venv/bin/tracekit run gunicorn` work where the environment is not active.
    """
    found = shutil.which(name) or shutil.which(name, path=os.path.dirname(sys.executable))
    if found is None and os.sep in name and os.path.isfile(name):
        return name  # which() passes over what may not be executed; execve says why
    return found
