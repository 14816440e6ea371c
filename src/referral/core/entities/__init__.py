"""Entities and their rules."""
