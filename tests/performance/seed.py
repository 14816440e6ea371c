"""Many users with a code each, and one with as many referrals, inserted by COPY."""

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from uuid import UUID

import asyncpg

FIRST = 1
"""The user who referred the others."""

REFERRALS = 1_000_000
"""Maximum number of referred users."""

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
    """Return the id of a user and of their code; ids grow as UUIDv7 ids do."""
    return UUID(int=BASE + number)


def email_of(number: int) -> str:
    """Return the e-mail of a user."""
    return f"b{number}@bench.example"


async def seed(url: str, first: int, last: int, password_hash: str) -> float:
    """Insert users with these numbers and this password hash; return the seconds it took."""
    started = time.perf_counter()
    numbers = range(first, last + 1)
    referred = range(max(first, 2), min(last, REFERRALS) + 1)
    await asyncio.gather(
        _copy(url, "users", (_user(number, password_hash) for number in numbers)),
        _copy(url, "codes", (_code(number, last) for number in numbers)),
        _copy(url, "referrals", (_referral(number) for number in referred)),
    )
    connection = await asyncpg.connect(url)
    await connection.execute("VACUUM ANALYZE", timeout=TIMEOUT)
    await connection.execute("CHECKPOINT", timeout=TIMEOUT)
    await connection.close()
    return time.perf_counter() - started


async def _copy(url: str, table: str, rows: Iterator[tuple[object, ...]]) -> None:
    # The role `replica` skips foreign keys, so rows can be inserted in any order.
    connection = await asyncpg.connect(
        url, server_settings={"session_replication_role": "replica", "synchronous_commit": "off"}
    )
    while batch := list(islice(rows, BATCH)):
        await connection.copy_records_to_table(
            table, records=batch, columns=TABLES[table], timeout=TIMEOUT
        )
    await connection.close()


def _user(number: int, password_hash: str) -> tuple[object, ...]:
    email = email_of(number)
    return user_id(number), email, email, password_hash, "member", "en", True, True, NOW


def _code(number: int, last: int) -> tuple[object, ...]:
    text, id_ = f"BENCH-{number}", user_id(number)
    uses = min(last, REFERRALS) - 1 if number == FIRST else 0
    return id_, id_, text, text, NOW, END, uses, True


def _referral(number: int) -> tuple[object, ...]:
    referrer = user_id(FIRST)
    return user_id(number), referrer, user_id(number), referrer, "BENCH-1", "confirmed", NOW
