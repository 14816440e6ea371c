"""Signing keys, access tokens, unsubscribe tokens and password hashing."""
