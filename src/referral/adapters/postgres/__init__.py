"""Users, codes, referrals and sessions in PostgreSQL."""
