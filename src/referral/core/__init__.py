"""The rules: entities, ports and use cases. Imports the standard library alone."""
