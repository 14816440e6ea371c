"""What fulfils the ports: PostgreSQL, Redis, SMTP, and the standard parts."""
