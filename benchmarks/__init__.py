"""What tracekit costs beside opentelemetry-sdk, measured in one run: ``python -m benchmarks``."""
