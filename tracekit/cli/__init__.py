"""The ``tracekit`` command: one file a subcommand, imported when it is asked for."""

__all__ = ["main"]


def main() -> None:
    """Run the command line and exit."""
    # Processes under `tracekit run` import this package as they start, and never need click.
    from tracekit.cli._group import group

    group(prog_name="tracekit")
