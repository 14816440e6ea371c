"""Background jobs in PostgreSQL, by pgqueuer."""
