"""Repositories in PostgreSQL, one for each port."""
