"""Implementations of the ports, each over one library or external service."""
