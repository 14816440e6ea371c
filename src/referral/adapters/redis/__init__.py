"""Redis: the connection, cached look-ups and rate limits."""
