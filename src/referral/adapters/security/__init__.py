"""Keys, access tokens and passwords."""
