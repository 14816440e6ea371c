"""The content of a database as text, for tests of what it must not hold."""

from sqlalchemy import text

from referral.adapters.postgres.database import PostgresDatabase


async def dump_tables(database: PostgresDatabase) -> str:
    """Return all rows of all tables as text, with bytes in hexadecimal."""
    query = text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    async with database.read() as repositories:
        names = (await repositories.session.execute(query)).scalars().all()
        rows = [
            str((await repositories.session.execute(text(f"SELECT t::text FROM {name} t"))).all())  # noqa: S608 - our own names
            for name in names
        ]
    return "".join(rows)
