"""The service's own pages in HTML."""
