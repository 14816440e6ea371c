"""The content of a database as text, for tests of what it must not hold."""

from referral.adapters.postgres.database import PostgresDatabase


async def dump_tables(database: PostgresDatabase) -> str:
    """Return all rows of all tables as text, with bytes in hexadecimal."""
    query = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
    async with database.read() as repositories:
        names = [row["tablename"] for row in await repositories.connection.fetch_sql(query)]
        rows = [
            str(await repositories.connection.fetch_sql(f"SELECT t::text FROM {name} t"))  # noqa: S608 - our own names
            for name in names
        ]
    return "".join(rows)
