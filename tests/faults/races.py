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
"""Clients per user, spread over the processes."""

Times = tuple[float, float]
"""The time before a request, and after its response."""

OK, CREATED, CONFLICT, SERVER_ERROR = 200, 201, 409, 500


@dataclass
class Racer:
    """A client of one process that acts for one user."""

    process: str
    member: Member
    codes: dict[str, str]
    """The user's codes, id by text, shared by the user's clients."""

    history: History
    failures: list[str] = field(default_factory=list)

    async def write(self) -> None:
        """Send a request that may change the active code."""
        known = list(self.codes)
        choice = random.choice(("make", "replace", "activate", "deactivate", "delete", "renew"))  # noqa: S311
        if choice in {"make", "replace"} or not known:
            await self._create(replace=choice != "make")
            return
        text = random.choice(known[-4:])  # noqa: S311 - no secret
        path = f"/me/codes/{self.codes[text]}"
        if choice in {"activate", "deactivate"}:
            await self._change(text, "POST", f"{path}/{choice}", starts=choice == "activate")
        elif choice == "delete":
            await self._change(text, "DELETE", path, starts=False)
        else:
            await self._renew(text, path)

    async def _send(self, request: Awaitable[httpx.Response]) -> tuple[httpx.Response, Times]:
        began = time.time()
        response = await request
        if response.status_code >= SERVER_ERROR:
            self.failures.append(f"{response.status_code} {response.text}")
        return response, (began, time.time())

    async def _create(self, *, replace: bool) -> None:
        body = {"lifetime_minutes": 60, "replace": replace}
        response, times = await self._send(self.member.request("POST", "/me/codes", json=body))
        if response.status_code == CREATED:
            created = response.json()
            self.codes[created["code"]] = created["id"]
            self._record_change(created["code"], times, starts=True, replaced=replace)

    async def _change(self, text: str, method: str, path: str, *, starts: bool) -> None:
        response, times = await self._send(self.member.request(method, path))
        if response.is_success:
            self._record_change(text, times, starts=starts)

    async def _renew(self, text: str, path: str) -> None:
        body = {"lifetime_minutes": 90}
        response, times = await self._send(self.member.request("PATCH", path, json=body))
        if response.is_success and response.json()["status"] == "active":
            self._record_read({text}, times, remembers=False)

    def _record_change(
        self, text: str, times: Times, *, starts: bool, replaced: bool = True
    ) -> None:
        user = self.member.email
        self.history.changes.append(Change(user, text, starts, self.process, *times, replaced))

    def _record_read(self, codes: set[str], times: Times, *, remembers: bool) -> None:
        user, shown = self.member.email, frozenset(codes)
        self.history.reads.append(Read(user, shown, self.process, *times, remembers))

    async def read(self) -> None:
        """Look the code up, list the active codes, or register with a code."""
        choice = random.random()  # noqa: S311 - no secret
        if choice < 0.7:
            response, times = await self._send(look_up(self.member.client, self.member.email))
            codes = {response.json()["code"]} if response.status_code == OK else set()
            self._record_read(codes, times, remembers=True)
            return
        if choice < 0.95:
            query = {"status": "active"}
            response, times = await self._send(
                self.member.request("GET", "/me/codes", params=query)
            )
            self._record_read(
                {item["code"] for item in response.json()["items"]}, times, remembers=False
            )
            return
        if self.codes:
            code, email = random.choice(list(self.codes)[-2:]), new_email()  # noqa: S311
            registration = register(self.member.client, email, referral_code=code)
            response, times = await self._send(registration)
            if response.status_code == CREATED:
                self.history.registrations.append(
                    Registration(self.member.email, code, email, *times)
                )


def run(seconds: int = SECONDS) -> ScenarioReport:
    """Race through two processes of the service."""
    report = ScenarioReport()
    with make_testbed() as testbed, ExitStack() as stack:
        urls = [stack.enter_context(testbed.service()).url for _ in range(2)]
        asyncio.run(race(report, testbed, urls, seconds))
    return report


async def race(report: ScenarioReport, testbed: Testbed, urls: list[str], seconds: float) -> None:
    """Run all clients, and check their history."""
    history, racers = History(), []
    async with _clients(urls) as clients:
        for _ in range(USERS):
            member, codes = await join(clients[0]), dict[str, str]()
            for number in range(WRITERS + READERS):
                client = clients[number % len(clients)]
                same_user = Member(client, member.id, member.email, member.headers)
                racers.append(Racer(str(client.base_url), same_user, codes, history))
        end = time.time() + seconds
        await asyncio.gather(
            *(
                _run_until(racer, end, writes=i % (WRITERS + READERS) < WRITERS)
                for i, racer in enumerate(racers)
            )
        )
    uses, accounts = await _stored(testbed)
    failures = [failure for racer in racers for failure in racer.failures]
    violations = history.find_violations(uses, accounts)
    report.record(
        changes=len(history.changes),
        of_which_overlapped=count_overlaps(history),
        sights=len(history.reads),
        joined=len(history.registrations),
        violations=len(violations),
        answers_of_5xx=len(failures),
    )
    report.violations += [*violations[:20], *failures[:5]]


async def _run_until(racer: Racer, end: float, *, writes: bool) -> None:
    while time.time() < end:
        await (racer.write() if writes else racer.read())
        await asyncio.sleep(random.uniform(0, 0.05 if writes else 0.01))  # noqa: S311 - no secret


async def _stored(testbed: Testbed) -> tuple[dict[str, int], list[str]]:
    async with testbed.connection() as connection:
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
