"""What a number of users takes, from figures measured on a small machine.

It is arithmetic, not a load test: it says which limit is reached first, and about when.
`python -m tests.performance.scaling_picture` prints the table of docs/scaling.md and draws it.
"""

import math
from collections.abc import Callable

DAY = 86_400
SIZES = (1e6, 1e8, 1e9)

# Bytes of a row and of its index entries, by pg_table_size and pg_indexes_size of a million users,
# codes and referrals and 200,000 other rows, inserted in the order of their ids.
ROW = {
    "users": (234, 157),
    "codes": (134, 191),
    "referrals": (158, 729),
    # 2.86 rows a referral.
    "referrer_statistics": (207, 352),
    "sessions": (101, 97),
    "refresh_tokens": (85, 110),
    "user_networks": (101, 188),
    "events": (241, 230),
    "audit_log": (183, 693),
    "referred_emails": (77, 98),
}

# Milliseconds of a core of the service, by docs/performance.md: a registration with two mails; of
# ten lookups eight are hot; to renew a token costs as much as to change a code.
SERVICE_MS = {
    "registration": 25.4, "login": 22.0, "refresh": 0.95, "me": 0.42, "lookup": 0.09, "code": 0.95
}  # fmt: skip
# Of PostgreSQL, measured as docs/scaling.md says: twice the time of the statements, for protocol
# and processes. Every tenth lookup reaches it.
POSTGRES_MS = {
    "registration": 5.5, "login": 0.92, "refresh": 0.21, "me": 0.1, "lookup": 0.028, "code": 0.5
}  # fmt: skip
WAL_BYTES = {"registration": 17_000, "login": 2_000, "refresh": 600, "code": 1_900}
TRANSACTIONS = {"registration": 4.4, "login": 1.0, "refresh": 1.0, "code": 1.1}
NOTIFYING_COMMITS = 2.1
"""Of a registration and its jobs: the one that enqueues them, and those that complete them."""
CONNECTIONS = 14
"""Of a server process."""

# What a user does in a day. These are assumptions: change them to what you know.
DAILY = {
    "registration": 0.002, "login": 0.015, "refresh": 0.05, "me": 0.2, "lookup": 0.2, "code": 0.005
}  # fmt: skip
REFERRED = 0.5
"""The share of users who joined with a code."""
EVENTS_OF_A_REGISTRATION = 4
AUDIT_DAYS = 365
PEAK = 4
"""How many times the mean."""

# One large server, and what its operator accepts. Assumptions too.
CORES, MEMORY, DIRECT_CONNECTIONS = 64, 512e9, 500
RESTORE_BYTES_PER_SECOND, RESTORE_SECONDS = 250e6, 4 * 3600
COMMIT_SECONDS = 0.001
"""Time to write and replicate the log: commits that notify are one after the other."""
BUSY = 0.6
"""The share of a core that may be used at the peak."""

LIMITS = ("memory", "restore", "connections", "notifications", "processor")


def rate(operation: str, users: float) -> float:
    """Return the operations a second at the peak."""
    return users * DAILY[operation] * PEAK / DAY


def cores(costs: dict[str, float], users: float) -> float:
    """Return the cores that are busy at the peak with operations of these milliseconds."""
    return sum(rate(operation, users) * cost / 1000 for operation, cost in costs.items())


def rows(users: float) -> dict[str, float]:
    """Return the rows of each table after a year at this number of users."""
    month = 30 * users
    return {
        "users": users,
        "codes": users,
        "referrals": users * REFERRED,
        "referrer_statistics": users * REFERRED,
        "sessions": month * DAILY["login"],
        "refresh_tokens": month * (DAILY["login"] + DAILY["refresh"]),
        "user_networks": month * DAILY["login"],
        "events": month * (DAILY["registration"] * EVENTS_OF_A_REGISTRATION + DAILY["code"]),
        "audit_log": AUDIT_DAYS * users * DAILY["login"],
        "referred_emails": 365 * users * DAILY["registration"] * REFERRED,
    }


def stored_bytes(users: float) -> tuple[float, float]:
    """Return the size of the tables and of their indexes."""
    sizes = [(count * ROW[name][0], count * ROW[name][1]) for name, count in rows(users).items()]
    return sum(size for size, _ in sizes), sum(size for _, size in sizes)


def processes(users: float) -> int:
    """Return the server processes that the peak takes."""
    return math.ceil(cores(SERVICE_MS, users) / BUSY)


def wal_rate(users: float) -> float:
    """Return the bytes of the log a second at the peak."""
    return sum(rate(operation, users) * size for operation, size in WAL_BYTES.items())


def hours_of_transaction_ids(users: float) -> float:
    """Return the hours until PostgreSQL's 200 million ids force a vacuum of every table."""
    mean = sum(rate(name, users) * count for name, count in TRANSACTIONS.items()) / PEAK
    return 200e6 / mean / 3600


def shares(users: float) -> dict[str, float]:
    """Return how much of each limit of one server is used; 1 is the limit."""
    tables, indexes = stored_bytes(users)
    return {
        "memory": indexes / MEMORY,
        "restore": (tables + indexes) / RESTORE_BYTES_PER_SECOND / RESTORE_SECONDS,
        "connections": processes(users) * CONNECTIONS / DIRECT_CONNECTIONS,
        "notifications": rate("registration", users) * NOTIFYING_COMMITS * COMMIT_SECONDS,
        "processor": cores(POSTGRES_MS, users) / BUSY / CORES,
    }


def users_at_limit(limit: str) -> float:
    """Return the number of users that reaches a limit, to two digits."""
    low, high = 1e3, 1e13
    while high / low > 1.001:
        middle = math.sqrt(low * high)
        low, high = (middle, high) if shares(middle)[limit] < 1 else (low, middle)
    return float(f"{high:.1e}")


def table() -> str:
    """Return the table of the page, in Markdown."""
    cells: dict[str, Callable[[float], str]] = {
        "database after a year, GB": lambda n: f"{sum(stored_bytes(n)) / 1e9:,.0f}",
        "of it indexes, GB": lambda n: f"{stored_bytes(n)[1] / 1e9:,.0f}",
        "of it the audit log, GB": lambda n: (
            f"{rows(n)['audit_log'] * sum(ROW['audit_log']) / 1e9:,.0f}"
        ),
        "registrations a second at the peak": lambda n: f"{rate('registration', n):,.1f}",
        "logins": lambda n: f"{rate('login', n):,.1f}",
        "lookups, and as many `GET /me`": lambda n: f"{rate('lookup', n):,.0f}",
        "server processes": lambda n: f"{processes(n):,}",
        "their connections": lambda n: f"{processes(n) * CONNECTIONS:,}",
        "busy cores of PostgreSQL": lambda n: f"{cores(POSTGRES_MS, n):,.2f}",
        "WAL a second at the peak, MB": lambda n: f"{wal_rate(n) / 1e6:,.2f}",
        "WAL a day, GB": lambda n: f"{wal_rate(n) / PEAK * DAY / 1e9:,.1f}",
        "hours until ids force a vacuum": lambda n: f"{hours_of_transaction_ids(n):,.0f}",
    }
    lines = ["| users | 1 million | 100 million | 1 billion |", "|---|---|---|---|"]
    for name, cell in cells.items():
        lines.append(f"| {name} | {' | '.join(cell(users) for users in SIZES)} |")
    return "\n".join(lines)
