"""What is wrong with a trace: one file a finding, each a plain function over a trace."""

from tracekit.findings._history import History, history_of
from tracekit.findings._ranking import find_all, kinds

__all__ = ["History", "find_all", "history_of", "kinds"]
