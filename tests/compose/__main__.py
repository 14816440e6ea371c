"""`make test-compose`: the containers of compose.yaml, a user journey, and a rolling restart.

It needs a Docker engine and the images of compose.yaml, present or downloadable.
"""

import asyncio
import time

import httpx

from tests.compose.journey import Journey
from tests.compose.stack import Stack, running_stack
from tests.support.api_client import API
from tests.support.steady_load import steady_load
from tests.support.waiting import wait_until

REQUESTS = 10_000
LOGGING = ("nginx", "api", "worker", "migrate", "key", "postgres", "redis")
"""All services but the mail catcher, whose log has the e-mails."""

PROBLEM = "application/problem+json"


def main() -> None:
    """Run all steps and print the progress."""
    started = time.monotonic()
    with running_stack() as running:
        say(f"up after {time.monotonic() - started:.0f} s")
        secrets = asyncio.run(run_journey(running))
        say("the user journey works, with the e-mails of the catcher")
        asyncio.run(check_nginx_errors(running))
        say("nginx' errors are problem documents, and /metrics is hidden")
        asyncio.run(restart_under_load(running))
        logged = running.compose("logs", "--no-color", *LOGGING).lower().splitlines()
        found = [line for line in logged if any(secret.lower() in line for secret in secrets)]
        assert not found, found
        say(f"none of {len(secrets)} e-mails, passwords, tokens and codes is in the logs")
    say("down")


def say(text: str) -> None:
    """Print the progress."""
    print(f"{time.strftime('%H:%M:%S')}  {text}", flush=True)  # noqa: T201 - progress


async def run_journey(running: Stack) -> set[str]:
    """Use the service as two users; return the secrets that no log may hold."""
    async with (
        httpx.AsyncClient(base_url=running.url) as web,
        httpx.AsyncClient(base_url=running.mail_url) as catcher,
    ):
        journey = Journey(web, catcher)
        await journey()
        return journey.secrets


async def check_nginx_errors(running: Stack) -> None:
    """Check that nginx' own errors are problem documents."""
    async with httpx.AsyncClient(base_url=running.url) as web:
        json = {"Content-Type": "application/json"}
        too_large = await web.post(f"{API}/auth/register", content=b" " * 65_537, headers=json)
        hidden = await web.get("/metrics")
        responses = [too_large, hidden, await web.get("//metrics/"), await web.get("/%6detrics")]
        assert [response.status_code for response in responses] == [413, 404, 404, 404]
        for response in responses:
            assert response.headers["Content-Type"] == PROBLEM
            problem = response.json()
            assert problem["request_id"] == response.headers["X-Request-ID"]
            assert problem["type"].endswith(f"/problems/{problem['code']}"), problem
            assert (await web.get(problem["type"])).is_success, problem


async def restart_under_load(running: Stack) -> None:
    """Restart the replicas in turn until enough requests have succeeded."""
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
        log = running.compose("logs", "--no-color", "--timestamps", "nginx", "api").splitlines()
        failed = [line for line in log if '"failed"' in line or "ERROR" in line]
        raise AssertionError("\n".join([f"{tally.failures}", *failed]))
    say(
        f"{tally.responses.total()} requests during {restarts} restarts of two replicas, "
        "none failed"
    )


main()
