"""Files of traces that others wrote, read back to span records: one file a format."""
