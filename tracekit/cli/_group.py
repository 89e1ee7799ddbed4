"""The group of commands: every file of this folder without a leading underscore is one."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import click

import tracekit.cli
from tracekit._version import __version__
from tracekit.errors import TracekitError

__all__ = ["group"]


class CommandFolder(click.Group):
    """Commands by file name, with dashes; a module is imported when its command is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        modules = pkgutil.iter_modules(tracekit.cli.__path__)
        names = (module.name for module in modules if not module.name.startswith("_"))
        return sorted(name.replace("_", "-") for name in names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        module = importlib.import_module(f"tracekit.cli.{cmd_name.replace('-', '_')}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if not near:
                raise
            message = f"{error.message} Did you mean {near[0]!r}?"
            raise click.UsageError(message, ctx) from error

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; what tracekit raises on purpose is a message and exit code 1."""
        try:
            return super().invoke(ctx)
        except TracekitError as error:
            raise click.ClickException(str(error)) from error


@click.command(cls=CommandFolder, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="tracekit", message="%(prog)s %(version)s")
def group() -> None:
    """Trace Python programs, and see where the time went.

    \b
      tracekit run python app.py    trace a program without changing it
      tracekit show                 its latest trace, as a tree
      tracekit doctor               why are my spans missing?
    """
