"""EmailHunter, Clearbit, and the HTTP client for them."""
