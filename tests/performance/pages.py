"""The pages for people beside `GET /me`: `python -m tests.performance.pages` prints a table.

One user has a code and ten referrals. Each operation is measured one request at a time, in turns.
"""

import asyncio
import sys
import tempfile
from pathlib import Path

import httpx

from tests.performance.benchmarks import AUTHORIZED_SCRIPT, ROUNDS, median_measurement, with_cpu
from tests.performance.load import SECONDS, Measurement, run_wrk
from tests.performance.testbed import LIMITS, Server
from tests.support.api_client import API, join, register
from tests.support.page_forms import log_in_on_page
from tests.support.service_process import running_service

REFERRALS = 10
COOKIE_SCRIPT = 'wrk.headers["Cookie"] = "login={cookie}"'
BASELINE = "`GET /me`"
HEADER = (
    "| one at a time | p50, ms | ratio | target | CPU, ms | p99, ms |\n|---|---|---|---|---|---|\n"
)
TARGET = 1.5


def main() -> None:
    """Measure, and print the table."""
    with (
        tempfile.TemporaryDirectory(prefix="referral-pages-") as home,
        running_service(Path(home) / "data", **LIMITS) as service,
    ):
        measured = compare(Server(service.process, service.url, service.log))
    baseline = measured[BASELINE]
    sys.stdout.write(HEADER)
    for name, one in measured.items():
        ratio = f"{one.p50 / baseline.p50:.2f} | {TARGET}" if name != BASELINE else " | "
        sys.stdout.write(f"| {name} | {one.p50:.2f} | {ratio} | {one.cpu:.2f} | {one.p99:.2f} |\n")


def compare(service: Server) -> dict[str, Measurement]:
    """Return the medians of each operation."""
    token, cookie, code = asyncio.run(prepare(service.url))
    with_token, with_cookie = (
        AUTHORIZED_SCRIPT.format(token=token),
        COOKIE_SCRIPT.format(cookie=cookie),
    )
    operations = {
        BASELINE: (f"{API}/me", with_token),
        "`GET /login`": ("/login", ""),
        "`GET /join`": ("/join", ""),
        "`GET /join?ref=…`": (f"/join?ref={code}", ""),
        "`GET /account`": ("/account", with_cookie),
    }
    rounds: dict[str, list[Measurement]] = {name: [] for name in operations}
    for number in range(ROUNDS + 1):
        for name, (path, script) in operations.items():
            measurement = measure(service, path, script)
            if number:  # the first round warms up
                rounds[name].append(measurement)
    return {name: median_measurement(found) for name, found in rounds.items()}


def measure(service: Server, path: str, script: str) -> Measurement:
    """Send requests one at a time."""
    seconds = max(SECONDS // 2, 1)
    request = lambda: run_wrk(f"{service.url}{path}", script, connections=1, seconds=seconds)  # noqa: E731
    return with_cpu(service, request)()


async def prepare(url: str) -> tuple[str, str, str]:
    """Return an access token and a login cookie of a user, and the text of the code."""
    async with httpx.AsyncClient(base_url=url) as client:
        member = await join(client)
        code = await member.issue_code(lifetime_minutes=24 * 60)
        for _ in range(REFERRALS):
            (await register(client, referral_code=code["code"])).raise_for_status()
        await log_in_on_page(client, member.email)
        token = member.headers["Authorization"].removeprefix("Bearer ")
        return token, client.cookies["login"], code["code"]


if __name__ == "__main__":
    main()
