"""Redis: the client, the look-up cache and the rate limiter."""
