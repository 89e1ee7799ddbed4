"""Where servers keep traces: one file a source, each of them asked and never written to."""
