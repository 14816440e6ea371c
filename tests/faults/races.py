"""Many clients change and read a few users' codes through two processes (rows 20 to 24)."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.faults.history import Change, History, Read, Registration, count_overlaps
from tests.faults.report import ScenarioReport
from tests.faults.testbed import Testbed, make_testbed
from tests.faults.workload import look_up
from tests.support.api_client import Member, join, new_email, register

SECONDS = 30
USERS = 4
WRITERS, READERS = 3, 3
"""For each user, spread over the processes."""

Times = tuple[float, float]
"""Before a request, and after its answer."""

OK, CREATED, CONFLICT, SERVER_ERROR = 200, 201, 409, 500


@dataclass
class Racer:
    """One client of one process, which acts for one user."""

    process: str
    member: Member
    codes: dict[str, str]
    """The user's codes, id by text; shared by all who act for the user."""

    history: History
    failures: list[str] = field(default_factory=list)

    async def write(self) -> None:
        """Do one thing that may change which code is in force."""
        known = list(self.codes)
        what = random.choice(("make", "replace", "activate", "deactivate", "delete", "renew"))  # noqa: S311
        if what in {"make", "replace"} or not known:
            await self._make(replace=what != "make")
            return
        text = random.choice(known[-4:])  # noqa: S311 - no secret
        path = f"/me/codes/{self.codes[text]}"
        if what in {"activate", "deactivate"}:
            await self._change(text, "POST", f"{path}/{what}", starts=what == "activate")
        elif what == "delete":
            await self._change(text, "DELETE", path, starts=False)
        else:
            await self._renew(text, path)

    async def _ask(self, request: Awaitable[httpx.Response]) -> tuple[httpx.Response, Times]:
        began = time.time()
        answer = await request
        if answer.status_code >= SERVER_ERROR:
            self.failures.append(f"{answer.status_code} {answer.text}")
        return answer, (began, time.time())

    async def _make(self, *, replace: bool) -> None:
        body = {"lifetime_minutes": 60, "replace": replace}
        answer, times = await self._ask(self.member.request("POST", "/me/codes", json=body))
        if answer.status_code == CREATED:
            made = answer.json()
            self.codes[made["code"]] = made["id"]
            self._note(made["code"], times, starts=True, gave_way=replace)

    async def _change(self, text: str, method: str, path: str, *, starts: bool) -> None:
        answer, times = await self._ask(self.member.request(method, path))
        if answer.is_success:
            self._note(text, times, starts=starts)

    async def _renew(self, text: str, path: str) -> None:
        body = {"lifetime_minutes": 90}
        answer, times = await self._ask(self.member.request("PATCH", path, json=body))
        if answer.is_success and answer.json()["status"] == "active":
            self._see({text}, times, remembers=False)

    def _note(self, text: str, times: Times, *, starts: bool, gave_way: bool = True) -> None:
        user = self.member.email
        self.history.changes.append(Change(user, text, starts, self.process, *times, gave_way))

    def _see(self, codes: set[str], times: Times, *, remembers: bool) -> None:
        user, shown = self.member.email, frozenset(codes)
        self.history.reads.append(Read(user, shown, self.process, *times, remembers))

    async def read(self) -> None:
        """Look the code up, or list what is in force, or join with it."""
        what = random.random()  # noqa: S311 - no secret
        if what < 0.7:
            answer, times = await self._ask(look_up(self.member.client, self.member.email))
            codes = {answer.json()["code"]} if answer.status_code == OK else set()
            self._see(codes, times, remembers=True)
            return
        if what < 0.95:
            query = {"status": "active"}
            answer, times = await self._ask(self.member.request("GET", "/me/codes", params=query))
            self._see({code["code"] for code in answer.json()["items"]}, times, remembers=False)
            return
        if self.codes:
            text, email = random.choice(list(self.codes)[-2:]), new_email()  # noqa: S311
            joining = register(self.member.client, email, referral_code=text)
            answer, times = await self._ask(joining)
            if answer.status_code == CREATED:
                self.history.registrations.append(
                    Registration(self.member.email, text, email, *times)
                )


def run(seconds: int = SECONDS) -> ScenarioReport:
    """Race over two processes of the service."""
    figures = ScenarioReport()
    with make_testbed() as place, ExitStack() as stack:
        urls = [stack.enter_context(place.service()).url for _ in range(2)]
        asyncio.run(race(figures, place, urls, seconds))
    return figures


async def race(figures: ScenarioReport, place: Testbed, urls: list[str], seconds: float) -> None:
    """Let all of them race, and judge what they saw."""
    history, racers = History(), []
    async with _clients(urls) as clients:
        for _ in range(USERS):
            member, codes = await join(clients[0]), dict[str, str]()
            for number in range(WRITERS + READERS):
                client = clients[number % len(clients)]
                theirs = Member(client, member.id, member.email, member.headers)
                racers.append(Racer(str(client.base_url), theirs, codes, history))
        over = time.time() + seconds
        await asyncio.gather(
            *(
                _keep(racer, over, writes=i % (WRITERS + READERS) < WRITERS)
                for i, racer in enumerate(racers)
            )
        )
    uses, accounts = await _truth(place)
    failures = [failure for racer in racers for failure in racer.failures]
    violations = history.find_violations(uses, accounts)
    figures.record(
        changes=len(history.changes),
        of_which_overlapped=count_overlaps(history),
        sights=len(history.reads),
        joined=len(history.registrations),
        violations=len(violations),
        answers_of_5xx=len(failures),
    )
    figures.violations += [*violations[:20], *failures[:5]]


async def _keep(racer: Racer, over: float, *, writes: bool) -> None:
    while time.time() < over:
        await (racer.write() if writes else racer.read())
        await asyncio.sleep(random.uniform(0, 0.05 if writes else 0.01))  # noqa: S311 - no secret


async def _truth(place: Testbed) -> tuple[dict[str, int], list[str]]:
    async with place.connection() as connection:
        query = (
            "SELECT text, uses, (SELECT count(*) FROM referrals WHERE code_id = codes.id) AS found "
            "FROM codes"
        )
        rows: list[Any] = await connection.fetch(query)
        users = await connection.fetch("SELECT email FROM users")
    uses = {row["text"]: row["uses"] if row["uses"] == row["found"] else -1 for row in rows}
    return uses, [row["email"] for row in users]


@asynccontextmanager
async def _clients(urls: list[str]) -> AsyncIterator[list[httpx.AsyncClient]]:
    clients = [httpx.AsyncClient(base_url=url, timeout=20) for url in urls]
    try:
        yield clients
    finally:
        for client in clients:
            await client.aclose()
