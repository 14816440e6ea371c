"""Rules and steps that several use cases share."""
