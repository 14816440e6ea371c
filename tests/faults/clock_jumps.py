"""A clock that jumps while two processes run: codes and links must expire by it."""

import asyncio
from functools import partial
from pathlib import Path

import httpx

from tests.faults.forked_api import start
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import look_up
from tests.support.api_client import Member, join, register
from tests.support.service_process import environment, free_port
from tests.support.waiting import wait_for_value

ROUNDS = 15
MINUTES = 3
HOUR = {"access_token_minutes": "60"}
"""Access tokens that outlive a jump."""


def run(rounds: int = ROUNDS) -> ScenarioReport:
    """Two processes share a clock that jumps over the expiry of one code after another."""
    report = ScenarioReport()
    with make_testbed() as testbed:
        asyncio.run(_jump(report, testbed, rounds))
    return report


async def _jump(report: ScenarioReport, testbed: Testbed, rounds: int) -> None:
    clock = testbed.folder / "clock"
    clock.write_text("0")
    variables = environment(testbed.folder / "api", **testbed.settings(**HOUR))
    ports = [free_port(), free_port()]
    processes = [await start(variables, port, clock) for port in ports]
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[0]}", timeout=20) as one,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[1]}", timeout=20) as other,
        ):
            member, seconds, shown, credited = await join(one), 0, 0, 0
            for _ in range(rounds):
                code = await member.issue_code(lifetime_minutes=MINUTES)
                for client in (one, other):
                    await wait_for_value(partial(_is_shown, client, member.email), 2)
                seconds += MINUTES * 60 + 1
                _set_clock(clock, seconds)
                responses = [await look_up(client, member.email) for client in (one, other)]
                shown += sum(response.status_code != 404 for response in responses)
                registered = await register(other, referral_code=code["code"])
                credited += registered.status_code != 422
                shown += (await _status(member, code["id"])) != "expired"
                # Back by a minute, as after a clock correction: the code is active again.
                _set_clock(clock, seconds - 60)
                assert (await look_up(one, member.email)).status_code in {200, 404}
                shown += await _active(member) > 1
                _set_clock(clock, seconds)
    finally:
        for process in processes:
            process.kill()
    report.record(
        codes_that_ended=rounds,
        minutes_jumped=seconds // 60,
        shown_after_the_end=shown,
        credited_after_the_end=credited,
    )
    report.check(holds=shown == 0, promise="no code is shown after its end")
    report.check(holds=credited == 0, promise="no registration is credited to an ended code")


def _set_clock(clock: Path, seconds: int) -> None:
    new = clock.with_suffix(".new")
    new.write_text(str(seconds))
    new.rename(clock)


async def _is_shown(client: httpx.AsyncClient, email: str) -> bool:
    return (await look_up(client, email)).status_code == 200


async def _status(member: Member, code: str) -> str:
    return str((await member.request("GET", f"/me/codes/{code}")).json()["status"])


async def _active(member: Member) -> int:
    listed = await member.request("GET", "/me/codes", params={"status": "active"})
    return len(listed.json()["items"])
