"""Ports: the interfaces that adapters implement."""
