"""Webhook deliveries over HTTP, and the networks that they may reach."""
