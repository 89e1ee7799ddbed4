"""Span processors: what happens to a span after its end; one file each."""
