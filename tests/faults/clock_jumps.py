"""A clock that jumps while the service runs: codes and links end by it, in every process."""

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
"""Tokens that outlive the jumps."""


def run(rounds: int = ROUNDS) -> ScenarioReport:
    """Two processes share a clock, which jumps over the end of one code after another."""
    figures = ScenarioReport()
    with make_testbed() as place:
        asyncio.run(_jump(figures, place, rounds))
    return figures


async def _jump(figures: ScenarioReport, place: Testbed, rounds: int) -> None:
    clock = place.folder / "clock"
    clock.write_text("0")
    told = environment(place.folder / "api", **place.settings(**HOUR))
    ports = [free_port(), free_port()]
    processes = [await start(told, port, clock) for port in ports]
    try:
        async with (
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[0]}", timeout=20) as here,
            httpx.AsyncClient(base_url=f"http://127.0.0.1:{ports[1]}", timeout=20) as there,
        ):
            member, seconds, late, credited = await join(here), 0, 0, 0
            for _ in range(rounds):
                code = await member.issue_code(lifetime_minutes=MINUTES)
                for client in (here, there):
                    await wait_for_value(partial(_is_shown, client, member.email), 2)
                seconds += MINUTES * 60 + 1
                _set(clock, seconds)
                answers = [await look_up(client, member.email) for client in (here, there)]
                late += sum(answer.status_code != 404 for answer in answers)
                joined = await register(there, referral_code=code["code"])
                credited += joined.status_code != 422
                late += (await _status(member, code["id"])) != "expired"
                # Back by a minute, as when a machine's clock is put right: it is in force again.
                _set(clock, seconds - 60)
                assert (await look_up(here, member.email)).status_code in {200, 404}
                late += await _active(member) > 1
                _set(clock, seconds)
    finally:
        for process in processes:
            process.kill()
    figures.record(
        codes_that_ended=rounds,
        minutes_jumped=seconds // 60,
        shown_after_the_end=late,
        credited_after_the_end=credited,
    )
    figures.check(holds=late == 0, promise="no code is shown after its end")
    figures.check(holds=credited == 0, promise="nobody joins with a code that has ended")


def _set(clock: Path, seconds: int) -> None:
    fresh = clock.with_suffix(".new")
    fresh.write_text(str(seconds))
    fresh.rename(clock)


async def _is_shown(client: httpx.AsyncClient, email: str) -> bool:
    return (await look_up(client, email)).status_code == 200


async def _status(member: Member, code: str) -> str:
    return str((await member.request("GET", f"/me/codes/{code}")).json()["status"])


async def _active(member: Member) -> int:
    listed = await member.request("GET", "/me/codes", params={"status": "active"})
    return len(listed.json()["items"])
