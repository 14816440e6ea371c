"""The REST API: thin controllers over the use cases."""
