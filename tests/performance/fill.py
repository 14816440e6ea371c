"""Many users with a code each, one of them with as many referrals, made by the server itself."""

from uuid import UUID

import asyncpg

FIRST = 1
"""The user whose code everybody else joined with."""

ADDRESS = "b{}@bench.example"

# Ids grow with their numbers, as UUIDv7 ids grow with time.
FILL = """
CREATE OR REPLACE FUNCTION bench_id(number bigint) RETURNS uuid IMMUTABLE LANGUAGE sql AS
    $$ SELECT ('01900000-0000-7000-8000-' || lpad(to_hex(number), 12, '0'))::uuid $$;
INSERT INTO users SELECT bench_id(n), 'b' || n || '@bench.example', 'b' || n || '@bench.example',
    'x', 'member', 'en', true, true, now() FROM generate_series({first}, {last}) n;
INSERT INTO codes SELECT bench_id(n), bench_id(n), 'BENCH-' || n, 'BENCH-' || n, now(),
    now() + interval '100 days', NULL, CASE n WHEN 1 THEN {last} - 1 ELSE 0 END, true, NULL
    FROM generate_series({first}, {last}) n;
INSERT INTO referrals SELECT bench_id(n), bench_id(1), bench_id(n), bench_id(1), 'BENCH-1',
    'confirmed', now() FROM generate_series(greatest(2, {first}), least({last}, 1000000)) n;
VACUUM ANALYZE
"""


def user_id(number: int) -> UUID:
    """Return the id of a user."""
    return UUID(f"01900000-0000-7000-8000-{number:012x}")


async def fill(url: str, first: int, last: int) -> None:
    """Add the users with these numbers."""
    connection = await asyncpg.connect(url)
    try:
        for statement in FILL.format(first=first, last=last).split(";\n"):
            await connection.execute(statement, timeout=3600)
    finally:
        await connection.close()
