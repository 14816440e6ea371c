"""The import of many users, codes and referrals: rate, memory, the lookup before and after.

`make bench-import` prints the figures; `SCALE` is the number of users and of codes.
"""

import argparse
import asyncio
import filecmp
import json
import os
import statistics
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import asyncpg
import httpx

from referral.adapters.postgres.embedded import EmbeddedPostgres
from referral.adapters.postgres.migrations import migrate
from referral.adapters.security.keys import make_key_file
from tests.performance.seed import NOW, email_of, user_id
from tests.support.service_process import COMMAND, environment, running_service

SCALE = 1_000_000
LOOKUPS = 2_000
DOMAINS = 5_000
DATABASES = ("first", "second")
JOINED_AT = (NOW - timedelta(days=1)).isoformat().replace("+00:00", "Z")
EXPIRES_AT = (NOW + timedelta(days=100)).isoformat().replace("+00:00", "Z")
LOOKUP = """
SELECT text FROM codes JOIN users ON users.id = codes.user_id AND codes.enabled
WHERE users.email_key = $1
"""


def write_file(path: Path, users: int) -> int:
    """Write users without passwords, a code each, and a referral of every second; return lines."""
    with path.open("w") as file:
        for number in range(users):
            line = {"type": "user", "email": _email(number), "id": str(user_id(number))}
            file.write(f"{json.dumps(line | {'created_at': JOINED_AT})}\n")
        for number in range(users):
            line = {"type": "code", "user": _email(number), "code": f"BENCH-{number}"}
            times = {"expires_at": EXPIRES_AT, "created_at": JOINED_AT}
            file.write(f"{json.dumps(line | times | {'active': True})}\n")
        for number in range(1, users, 2):
            line = {"type": "referral", "user": _email(number), "referrer": _email(number // 2)}
            file.write(f"{json.dumps(line | {'code': f'BENCH-{number // 2}'})}\n")
    return 2 * users + users // 2


def run_measured(folder: Path, url: str, *arguments: str) -> tuple[float, float]:
    """Run a command; return its seconds and its greatest memory in MB."""
    started = time.perf_counter()
    settings = {"database_url": url, "signing_key_file": str(folder / "key.pem")}
    process = os.posix_spawn(
        COMMAND[0], [*COMMAND, *arguments], environment(folder / "var", **settings)
    )
    _, status, usage = os.wait4(process, 0)
    assert status == 0, arguments
    return time.perf_counter() - started, usage.ru_maxrss / 1024


async def measure_lookups(url: str, users: int) -> float:
    """Return the median milliseconds of the lookup of a code by address."""
    connection = await asyncpg.connect(url)
    times = []
    for number in range(LOOKUPS):
        started = time.perf_counter()
        found = await connection.fetchval(LOOKUP, _email(number * 7919 % users).lower())
        times.append(time.perf_counter() - started)
        assert found
    await connection.close()
    return statistics.median(times) * 1000


def measure_http_lookups(folder: Path, url: str, users: int) -> float:
    """Return the median milliseconds of `GET /codes/lookup` for addresses that are not cached."""
    settings = {"database_url": url, "signing_key_file": str(folder / "key.pem"), "worker": "off"}
    with running_service(folder / "var", **settings) as service, httpx.Client() as client:
        times = []
        for number in range(LOOKUPS):
            email = _email((number * 7919 + 1) % users)
            started = time.perf_counter()
            found = client.get(f"{service.url}/api/v1/codes/lookup", params={"email": email})
            times.append(time.perf_counter() - started)
            assert found.is_success
    return statistics.median(times) * 1000


async def create_databases(url: str) -> list[str]:
    """Create the databases, and return their URLs."""
    connection = await asyncpg.connect(url)
    for name in DATABASES:
        await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    return [url.replace("/postgres?", f"/{name}?") for name in DATABASES]


def measure(folder: Path, users: int) -> str:
    """Import, look up, export, import and export again; return the figures."""
    make_key_file(folder / "key.pem")
    server = EmbeddedPostgres(folder / "postgres")
    server.start()
    try:
        first, second = asyncio.run(create_databases(server.url))
        for url in (first, second):
            migrate(url)
        small, path = folder / "small.jsonl", folder / "all.jsonl"
        write_file(small, DOMAINS)
        lines = write_file(path, users)
        run_measured(folder, first, "import", str(small))
        before = asyncio.run(measure_lookups(first, DOMAINS))
        http_before = measure_http_lookups(folder, first, DOMAINS)
        seconds, megabytes = run_measured(folder, first, "import", str(path))
        after = asyncio.run(measure_lookups(first, users))
        http_after = measure_http_lookups(folder, first, users)
        exports = [folder / "1.jsonl", folder / "2.jsonl"]
        export_seconds, export_mb = run_measured(folder, first, "export", str(exports[0]))
        run_measured(folder, second, "import", str(exports[0]))
        run_measured(folder, second, "export", str(exports[1]))
        is_equal = filecmp.cmp(exports[0], exports[1], shallow=False)
    finally:
        server.stop()
    return (
        f"Import of {users:,} users, as many codes and {users // 2:,} referrals: {seconds:.0f} s, "
        f"{lines / seconds:,.0f} lines a second, {megabytes:.0f} MB at most. The lookup takes "
        f"{after:.2f} ms afterwards, {before:.2f} ms with {DOMAINS:,} users; over HTTP "
        f"{http_after:.2f} and {http_before:.2f} ms. The export takes "
        f"{export_seconds:.0f} s and {export_mb:.0f} MB; imported elsewhere and exported again, "
        f"the file is {'equal' if is_equal else 'NOT EQUAL'}.\n"
    )


def _email(number: int) -> str:
    return f"{email_of(number).partition('@')[0]}@d{number % DOMAINS}.example.com"


def main() -> None:
    """Print the figures."""
    arguments = argparse.ArgumentParser(description="Measure imports and exports.")
    arguments.add_argument("--scale", type=int, default=SCALE, help="users, and codes")
    with tempfile.TemporaryDirectory(prefix="referral-") as folder:
        sys.stdout.write(measure(Path(folder), arguments.parse_args().scale))


if __name__ == "__main__":
    main()
