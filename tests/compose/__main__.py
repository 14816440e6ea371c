"""`make test-compose`: compose.yaml for real, a journey through it, and a rolling restart.

It needs a Docker engine, and the images that compose.yaml names, present or to be pulled.
"""

import asyncio
import time

import httpx

from tests.compose.journey import Journey
from tests.compose.stack import Stack, stack
from tests.support.api_client import API
from tests.support.steady_load import steady_load
from tests.support.waiting import wait_until

REQUESTS = 10_000
LOGGING = ("nginx", "api", "worker", "migrate", "key", "postgres", "redis")
"""Not the mail catcher, which is there to show what it got."""

PROBLEM = "application/problem+json"


def main() -> None:
    """Run it all, and say what was seen."""
    began = time.monotonic()
    with stack() as running:
        say(f"up after {time.monotonic() - began:.0f} s")
        secrets = asyncio.run(run_journey(running))
        say("the journey works, with the mail from the catcher")
        asyncio.run(check_nginx_errors(running))
        say("nginx refuses in problem documents, and hides /metrics")
        asyncio.run(restart_under_load(running))
        logged = running.compose("logs", "--no-color", *LOGGING).lower().splitlines()
        found = [line for line in logged if any(secret.lower() in line for secret in secrets)]
        assert not found, found
        say(f"none of {len(secrets)} addresses, passwords, tokens and codes is in the logs")
    say("down")


def say(text: str) -> None:
    """Tell how far it came."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)  # noqa: T201 - for whoever runs it


async def run_journey(running: Stack) -> set[str]:
    """Do everything that users do, and return what no log may hold."""
    async with (
        httpx.AsyncClient(base_url=running.url) as web,
        httpx.AsyncClient(base_url=running.mail_url) as catcher,
    ):
        journey = Journey(web, catcher)
        await journey()
        return journey.secrets


async def check_nginx_errors(running: Stack) -> None:
    """Ask for what nginx itself refuses, in the form of the whole API."""
    async with httpx.AsyncClient(base_url=running.url) as web:
        json = {"Content-Type": "application/json"}
        too_large = await web.post(f"{API}/auth/register", content=b" " * 65_537, headers=json)
        hidden = await web.get("/metrics")
        answers = [too_large, hidden, await web.get("//metrics/"), await web.get("/%6detrics")]
        assert [answer.status_code for answer in answers] == [413, 404, 404, 404]
        for answer in answers:
            assert answer.headers["Content-Type"] == PROBLEM
            problem = answer.json()
            assert problem["request_id"] == answer.headers["X-Request-ID"]
            assert (await web.get(problem["type"])).is_success, problem


async def restart_under_load(running: Stack) -> None:
    """Restart one replica after the other until enough requests were answered, all of them well."""
    running.compose("up", "-d", "--no-recreate", "--scale", "api=2", "api")
    replicas = running.container_ids("api")
    assert len(replicas) == 2
    for replica in replicas:
        running.wait_until_healthy(replica)
    restarts = 0
    async with steady_load(running.url) as tally:
        await wait_until(lambda: tally.responses.total() > 200, 60)
        while tally.responses.total() < REQUESTS:
            await asyncio.to_thread(running.restart, replicas[restarts % 2])
            restarts += 1
    if tally.failures:
        said = running.compose("logs", "--no-color", "--timestamps", "nginx", "api").splitlines()
        failed = [line for line in said if '"failed"' in line or "ERROR" in line]
        raise AssertionError("\n".join([f"{tally.failures}", *failed]))
    say(
        f"{tally.responses.total()} requests through {restarts} restarts of two replicas, "
        "none failed"
    )


main()
