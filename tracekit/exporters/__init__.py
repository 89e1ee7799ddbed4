"""Span exporters: where spans go; one file each, named as OTEL_TRACES_EXPORTER names it."""
