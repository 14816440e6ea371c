"""Repositories, transactions and migrations of PostgreSQL."""
