"""Many users with a code each, one of them with as many referrals, by COPY."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import asyncpg

FIRST = 1
"""The user whose code everybody else joined with."""

REFERRALS = 1_000_000
"""How many of the users did, at most."""

BATCH = 20_000
TIMEOUT = 3600.0
NOW = datetime.now(UTC)
END = NOW + timedelta(days=100)
BASE = UUID("01900000-0000-7000-8000-000000000000").int

TABLES = {
    "users": ("id", "email", "email_key", "password_hash", "role", "locale", "email_verified",
        "notify_on_referral", "created_at"),
    "codes": ("id", "user_id", "text", "text_key", "created_at", "expires_at", "uses", "enabled"),
    "referrals": ("id", "referrer_id", "referred_id", "code_id", "code", "status", "joined_at"),
}  # fmt: skip


def user_id(number: int) -> UUID:
    """Return the id of a user, and of their code: it grows as UUIDv7 ids grow with time."""
    return UUID(int=BASE + number)


def email_of(number: int) -> str:
    """Return the address of a user."""
    return f"b{number}@bench.example"


async def fill(url: str, first: int, last: int, hashed: str) -> float:
    """Add the users with these numbers and this password; return how many seconds it took."""
    began = time.perf_counter()
    numbers = range(first, last + 1)
    referred = range(max(first, 2), min(last, REFERRALS) + 1)
    await asyncio.gather(
        _copy(url, "users", (_user(number, hashed) for number in numbers)),
        _copy(url, "codes", (_code(number, last) for number in numbers)),
        _copy(url, "referrals", (_referral(number) for number in referred)),
    )
    connection = await asyncpg.connect(url)
    await connection.execute("VACUUM ANALYZE", timeout=TIMEOUT)
    await connection.execute("CHECKPOINT", timeout=TIMEOUT)
    await connection.close()
    return time.perf_counter() - began


async def _copy(url: str, table: str, rows: Iterator[tuple[object, ...]]) -> None:
    # Replicas check no foreign keys: the rows come in any order, and fulfil them at the end.
    connection = await asyncpg.connect(
        url, server_settings={"session_replication_role": "replica", "synchronous_commit": "off"}
    )
    while batch := list(islice(rows, BATCH)):
        await connection.copy_records_to_table(
            table, records=batch, columns=TABLES[table], timeout=TIMEOUT
        )
    await connection.close()


def _user(number: int, hashed: str) -> tuple[object, ...]:
    email = email_of(number)
    return user_id(number), email, email, hashed, "member", "en", True, True, NOW


def _code(number: int, last: int) -> tuple[object, ...]:
    text, this = f"BENCH-{number}", user_id(number)
    uses = min(last, REFERRALS) - 1 if number == FIRST else 0
    return this, this, text, text, NOW, END, uses, True


def _referral(number: int) -> tuple[object, ...]:
    referrer = user_id(FIRST)
    return user_id(number), referrer, user_id(number), referrer, "BENCH-1", "confirmed", NOW
