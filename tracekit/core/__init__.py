"""The tracer: providers, spans, scopes, and what they are made of."""
