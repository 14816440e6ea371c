"""Mails: rendering, and delivery by SMTP or into files."""
