"""What becomes of spans when the back end or the process fails: `python -m benchmarks.faults`."""
