"""The HTTP API: routes that call use cases, and middleware."""
