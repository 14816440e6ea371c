"""No long or malformed request delays the service for others."""

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
from uuid import UUID, uuid4

import httpx
import pytest

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.system import RandomTokenGenerator, SystemClock
from referral.core.entities.clients import Scope
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from tests.support.api_client import PASSWORD, create_client, join
from tests.support.health_polling import TIMEOUT_SECONDS, HealthPoller, poll_health
from tests.support.process_stats import cpu_seconds
from tests.support.service_process import Service, running_service
from tests.tools.openapi_document import current_document
from tests.web.hostile_requests import Attack, Caller, attacks

MAX_STALL_SECONDS = 0.1
"""Maximum delay of `/health/live` by one request, beyond its idle duration."""

MAX_CPU_SECONDS = 0.3
"""Maximum CPU time of one request; two password hashes take less than half of it."""

MAX_TRIES = 3
"""The fastest of several tries counts: a busy machine is slow now and then, a service each time."""

OF_CLIENTS = (Scope.REFERRALS_READ, Scope.CODES_READ, Scope.USERS_READ)


@dataclass(frozen=True)
class Outcome:
    """The status of a request, how long it stalled others, and its CPU time."""

    status: int
    stall_seconds: float
    cpu_seconds: float

    def is_too_expensive(self, idle: float) -> bool:
        """Tell whether the request exceeds a limit."""
        return self.stall_seconds > idle + MAX_STALL_SECONDS or self.cpu_seconds > MAX_CPU_SECONDS


class Attacker:
    """Sends requests one by one and measures them."""

    def __init__(self, service: Service, pulse: HealthPoller) -> None:
        """Attack this service."""
        self.sent: list[tuple[Attack, float, float, Outcome]] = []
        self._pulse = pulse
        self._address = (httpx.URL(service.url).host, httpx.URL(service.url).port or 80)

    def send(self, attack: Attack, caller: Caller) -> None:
        """Send an attack and record the outcome."""
        request = attack.write(caller)
        used, began = cpu_seconds(self._pulse.process), time.monotonic()
        status = self._exchange(request)
        ended, busy = time.monotonic(), cpu_seconds(self._pulse.process) - used
        self.sent.append((attack, began, ended, Outcome(status, 0.0, busy)))

    def send_alone(self, attack: Attack, caller: Caller) -> Outcome:
        """Send an attack on an idle service, and return the outcome."""
        self._pulse.wait()
        self.send(attack, caller)
        self._pulse.wait()
        return self.outcome(*self.sent.pop())

    def outcome(self, _: Attack, began: float, ended: float, outcome: Outcome) -> Outcome:
        """Add the stall during the request to its outcome."""
        return replace(outcome, stall_seconds=self._pulse.max_delay_seconds(began, ended))

    def _exchange(self, request: bytes) -> int:
        """Return the status of the response, or 0 if there is none."""
        received = b""
        with socket.create_connection(self._address, TIMEOUT_SECONDS) as connection:
            with suppress(ConnectionError):  # the service may close before all is sent
                connection.sendall(request)
            with suppress(ConnectionError):
                while part := connection.recv(65_536):
                    received += part
        found = re.match(rb"HTTP/1\.1 (\d{3}) ", received)
        return int(found[1]) if found else 0


@pytest.fixture
def service(database_url: str, key_file: Path, tmp_path: Path) -> Iterator[Service]:
    """A service in its own process that trusts X-Forwarded-For from this machine."""
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
async def make_caller(
    service: Service, database: PostgresDatabase
) -> AsyncIterator[Callable[[], Awaitable[Caller]]]:
    """A factory for callers with full access."""
    secrets, clock = RandomTokenGenerator(), SystemClock()
    shop, secret = await create_client(database, f"shop {uuid4()}", list(OF_CLIENTS))
    basic = f"Basic {b64encode(f'{shop.id}:{secret}'.encode()).decode()}"
    async with httpx.AsyncClient(base_url=service.url) as client:
        code = await (await join(client)).issue_code()

        async def make_one() -> Caller:
            member, token = await join(client), secrets.new()
            own_code = await member.issue_code(activate=False)
            end = clock.now() + timedelta(hours=1)
            one_time_token = OneTimeToken(
                secrets.digest(token), UUID(member.id), TokenPurpose.RESET, end
            )
            async with database.begin() as repositories:
                await repositories.one_time_tokens.add(one_time_token)
            values = {
                "user_id": member.id,
                "code_id": own_code["id"],
                "username": member.email,
                "password": PASSWORD,
                "current_password": PASSWORD,
                "referral_code": code["code"],
                "token": token,
            }
            return Caller(member.headers["Authorization"], basic, values)

        yield make_one


async def test_no_request_stalls_the_service(
    service: Service, make_caller: Callable[[], Awaitable[Caller]]
) -> None:
    """No attack on any input delays `/health/live` by over 100 ms, or gets a 5xx."""
    document = json.loads(await current_document())
    with poll_health(service) as pulse:
        for _ in range(20):
            pulse.wait()
        idle = statistics.median(beat.delay_seconds for beat in pulse.samples)
        attacker, shared_caller = Attacker(service, pulse), await make_caller()
        for on_one_input in attacks(document):
            # A write may change or end the account of its sender.
            caller = (
                shared_caller if on_one_input[0].operation.method == "GET" else await make_caller()
            )
            for attack in on_one_input:
                await asyncio.to_thread(attacker.send, attack, caller)
        pulse.wait()
        sent = [(entry[0], attacker.outcome(*entry)) for entry in attacker.sent]
        expensive = {}
        for attack, first in sent:
            outcomes = [first]
            while outcomes[-1].is_too_expensive(idle) and len(outcomes) < MAX_TRIES:
                outcomes.append(
                    await asyncio.to_thread(attacker.send_alone, attack, await make_caller())
                )
            if outcomes[-1].is_too_expensive(idle):
                expensive[str(attack)] = (
                    min(outcome.stall_seconds for outcome in outcomes),
                    min(outcome.cpu_seconds for outcome in outcomes),
                )
    assert not expensive, "".join(
        f"\n{name}: stalled the service for {stall:.2f} s, CPU time {cpu:.2f} s"
        for name, (stall, cpu) in expensive.items()
    )
    assert {str(attack) for attack, outcome in sent if not 200 <= outcome.status < 500} == set()
    assert {str(attack) for attack, outcome in sent if is_rejected_early(attack, outcome)} == set()


def is_rejected_early(attack: Attack, outcome: Outcome) -> bool:
    """Tell whether the credentials were rejected, so that the text was not read."""
    authenticated = attack.operation.credentials and attack.target != "header Authorization"
    return bool(authenticated) and outcome.status == 401
