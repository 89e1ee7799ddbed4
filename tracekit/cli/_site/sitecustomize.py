"""Set tracing up in a Python process that starts under ``tracekit run``.

The folder of this file is first on PYTHONPATH, so that the ``site`` module of every Python that
the program starts imports it, whatever started that Python: a worker, a reloader, a shell. That
may be another Python than ours, without tracekit: only syntax that any Python 3 reads is used.
"""

import os
import sys


def _run_the_programs_own():  # type: ignore[no-untyped-def]
    """Import the ``sitecustomize`` that this file stands in front of, under that name."""
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    here = os.path.dirname(os.path.abspath(__file__))
    elsewhere = [entry for entry in sys.path if os.path.abspath(entry) != here]
    spec = PathFinder.find_spec("sitecustomize", elsewhere)
    if spec is not None and spec.loader is not None:
        sys.modules["sitecustomize"] = module = module_from_spec(spec)
        spec.loader.exec_module(module)


def _trace():  # type: ignore[no-untyped-def]
    try:
        from tracekit.cli._startup import begin
    except Exception as error:
        # Told by the program itself and not by each small Python that it starts.
        if os.environ.get("TRACEKIT_RUN_PID") == str(os.getpid()) and sys.stderr is not None:
            where = "tracekit: not tracing, " + sys.executable + " cannot import tracekit"
            sys.stderr.write(where + " (" + str(error) + "); install it there\n")
        return
    begin()


# Only as what `site` imports; as a part of the package it does nothing.
if __name__ == "sitecustomize":
    # The program's own comes first: settings that it makes in the environment count, and for
    # instrumentation the order of imports does not matter. What it raises is reported by `site`.
    try:
        _run_the_programs_own()  # type: ignore[no-untyped-call]
    finally:
        _trace()  # type: ignore[no-untyped-call]
