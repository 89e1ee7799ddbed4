"""What becomes of spans when the back end fails, or the process: ``python -m benchmarks.faults``."""
