"""Routes that return HTML, and the API documentation."""
