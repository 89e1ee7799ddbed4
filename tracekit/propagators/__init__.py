"""How trace context crosses processes: one file per format, named as OTEL_PROPAGATORS names it."""
