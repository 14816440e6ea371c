"""No request, however long and however odd, keeps the service from answering others."""

import asyncio
import json
import re
import socket
import statistics
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.system import RandomTokenGenerator, SystemClock, SystemIdGenerator
from referral.core.entities.clients import Scope
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.use_cases.clients import CreateClient
from tests.support.api_client import PASSWORD, join
from tests.support.health_polling import TIMEOUT_SECONDS, HealthPoller, poll_health
from tests.support.process_stats import cpu_seconds
from tests.support.service_process import Service, running_service
from tests.tools.openapi_document import current_document
from tests.web.hostile_requests import Attack, Caller, attacks

MAX_STALL_SECONDS = 0.1
"""How long `/health/live` may wait for a request, beside what it takes anyway."""

MAX_CPU_SECONDS = 0.3
"""Seconds of a processor that one request may take; two hashes are less than half of it."""

MAX_TRIES = 3
OF_CLIENTS = (Scope.REFERRALS_READ, Scope.CODES_READ, Scope.USERS_READ)


@dataclass(frozen=True)
class Outcome:
    """What a request got, how long others waited for it, and what it took of a processor."""

    status: int
    stall_seconds: float
    cpu_seconds: float

    def is_too_expensive(self, idle: float) -> bool:
        """Tell whether it is more than a request may take."""
        return self.stall_seconds > idle + MAX_STALL_SECONDS or self.cpu_seconds > MAX_CPU_SECONDS


class Attacker:
    """Sends requests one after the other, and measures."""

    def __init__(self, service: Service, pulse: HealthPoller) -> None:
        """Send to a service."""
        self.sent: list[tuple[Attack, float, float, Outcome]] = []
        self._pulse = pulse
        self._address = (httpx.URL(service.url).host, httpx.URL(service.url).port or 80)

    def send(self, attack: Attack, who: Caller) -> None:
        """Send it, and note what it got."""
        request = attack.write(who)
        used, began = cpu_seconds(self._pulse.process), time.monotonic()
        status = self._exchange(request)
        ended, busy = time.monotonic(), cpu_seconds(self._pulse.process) - used
        self.sent.append((attack, began, ended, Outcome(status, 0.0, busy)))

    def send_alone(self, attack: Attack, who: Caller) -> Outcome:
        """Send it when nothing else is asked, and wait until the service answers others."""
        self._pulse.wait()
        self.send(attack, who)
        self._pulse.wait()
        return self.outcome(*self.sent.pop())

    def outcome(self, _: Attack, began: float, ended: float, outcome: Outcome) -> Outcome:
        """Put in how long others waited meanwhile."""
        return replace(outcome, stall_seconds=self._pulse.max_delay_seconds(began, ended))

    def _exchange(self, request: bytes) -> int:
        """Return the status of the answer, or 0 when there was none."""
        received = b""
        with socket.create_connection(self._address, TIMEOUT_SECONDS) as connection:
            with suppress(ConnectionError):  # a refusal may come before all was sent
                connection.sendall(request)
            with suppress(ConnectionError):
                while part := connection.recv(65_536):
                    received += part
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
        return int(found[1]) if found else 0


@pytest.fixture
def service(database_url: str, key_file: Path, tmp_path: Path) -> Iterator[Service]:
    """A service in a process of its own, which believes us where we come from."""
    with running_service(
        tmp_path / "data",
        database_url=database_url,
        signing_key_file=str(key_file),
        email_verification="off",
        trusted_proxies="127.0.0.0/8",
        worker="off",
    ) as service:
        yield service


@pytest.fixture
async def crowd(
    service: Service, database: PostgresDatabase
) -> AsyncIterator[Callable[[], Awaitable[Caller]]]:
    """Make up someone who may do everything."""
    secrets, clock = RandomTokenGenerator(), SystemClock()
    shop, secret = await CreateClient(clock, database, SystemIdGenerator(), secrets)(
        "shop", list(OF_CLIENTS)
    )
    basic = f"Basic {b64encode(f'{shop.id}:{secret}'.encode()).decode()}"
    async with httpx.AsyncClient(base_url=service.url) as client:
        code = await (await join(client)).issue_code()

        async def make() -> Caller:
            member, token = await join(client), secrets.new()
            mine = await member.issue_code(activate=False)
            end = clock.now() + timedelta(hours=1)
            proof = OneTimeToken(secrets.digest(token), UUID(member.id), TokenPurpose.RESET, end)
            async with database.begin() as records:
                await records.one_time_tokens.add(proof)
            known = {
                "user_id": member.id,
                "code_id": mine["id"],
                "username": member.email,
                "password": PASSWORD,
                "current_password": PASSWORD,
                "referral_code": code["code"],
                "token": token,
            }
            return Caller(member.headers["Authorization"], basic, known)

        yield make


async def test_no_request_holds_others_up(
    service: Service, crowd: Callable[[], Awaitable[Caller]]
) -> None:
    """Long and odd texts in every field, parameter, form and header of the document: health is
    answered within 100 ms of what it takes anyway, and no answer is a 5xx.

    What looks slow is sent again, alone, and the quickest of three counts: a busy machine makes
    requests slow now and then, and a slow service makes them slow each time.
    """
    document = json.loads(await current_document())
    with poll_health(service) as pulse:
        for _ in range(20):
            pulse.wait()
        idle = statistics.median(beat.delay_seconds for beat in pulse.samples)
        attacker, anyone = Attacker(service, pulse), await crowd()
        for place in attacks(document):
            # A text may change or end the account that sends it.
            who = anyone if place[0].operation.method == "GET" else await crowd()
            for attack in place:
                await asyncio.to_thread(attacker.send, attack, who)
        pulse.wait()
        sent = [(entry[0], attacker.outcome(*entry)) for entry in attacker.sent]
        dear = {}
        for attack, first in sent:
            seen = [first]
            while seen[-1].is_too_expensive(idle) and len(seen) < MAX_TRIES:
                seen.append(await asyncio.to_thread(attacker.send_alone, attack, await crowd()))
            if seen[-1].is_too_expensive(idle):
                dear[str(attack)] = (
                    min(one.stall_seconds for one in seen),
                    min(one.cpu_seconds for one in seen),
                )
    assert not dear, "".join(
        f"\n{name}: stood still for {still:.2f} s, took {busy:.2f} s of a processor"
        for name, (still, busy) in dear.items()
    )
    assert {str(attack) for attack, seen in sent if not 200 <= seen.status < 500} == set()
    assert {str(attack) for attack, seen in sent if is_rejected_early(attack, seen)} == set()


def is_rejected_early(attack: Attack, seen: Outcome) -> bool:
    """Tell whether a text was not read, as who sent it was not known."""
    sent = attack.operation.credentials and attack.target != "header Authorization"
    return bool(sent) and seen.status == 401
