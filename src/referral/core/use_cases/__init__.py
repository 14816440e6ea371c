"""The use cases, one module a subject."""
