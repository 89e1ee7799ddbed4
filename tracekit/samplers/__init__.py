"""Samplers: which spans are kept; one file each, named as OTEL_TRACES_SAMPLER names it."""
