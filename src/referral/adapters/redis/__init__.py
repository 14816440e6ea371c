"""Redis: the client, the lookup cache and the rate limiter."""
