"""Verification by EmailHunter and enrichment, with every failure of the third party."""

import asyncio
import logging
import math
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from dishka import Provider, Scope
from msgspec.structs import replace

from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.passwords import ArgonPasswordHasher
from referral.settings import Settings
from tests.conftest import execute, fetch_value, run_service
from tests.support.api_client import API, PASSWORD, Member, join, new_email, register
from tests.support.database_dump import dump_tables
from tests.support.fakes.security import FakePasswordHasher
from tests.support.hunter_stub import (
    ERROR_MESSAGES,
    FAULTS,
    MALFORMED_BODIES,
    OVERSIZED_RESPONSES,
    VERIFIER_STATUSES,
    HunterStub,
    hunter_stub,
)
from tests.support.metrics import scrape
from tests.support.service_process import run_command
from tests.support.waiting import measure_thread_time, wait_for_value, wait_until

MAX_EXTRA_SECONDS = 1.9
"""Maximum duration of a registration in seconds, when hashing takes no time."""

REJECTED = {"invalid", "disposable"}
ACCEPTED = {*VERIFIER_STATUSES} - REJECTED - {"unknown"}
UNDETERMINED = ["unknown", *ERROR_MESSAGES, *MALFORMED_BODIES, *FAULTS, *OVERSIZED_RESPONSES]
PROFILE = {
    "name": "Ann Example",
    "title": "Head of Examples",
    "company": "Example",
    "domain": "example.com",
    "country": "Finland",
    "avatar_url": "https://images.example.com/ann.png",
}


@pytest.fixture
async def stub() -> AsyncIterator[HunterStub]:
    """A server with the APIs of EmailHunter and Clearbit."""
    async with hunter_stub() as stub:
        yield stub


@pytest.fixture
async def verification_settings(
    settings: Settings, stub: HunterStub, database_url: str
) -> Settings:
    """Settings with verification on; the queue is empty."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log, verdicts")
    return replace(settings, hunter_url=stub.url, hunter_api_key=stub.key)


async def deliverability(database_url: str, email: str) -> object:
    """Return the stored deliverability of an e-mail."""
    query = "SELECT deliverability FROM users WHERE email_key = $1"
    return await fetch_value(database_url, query, email)


async def count_scheduled_checks(database_url: str) -> object:
    """Count the jobs that verify an e-mail again later."""
    later = "entrypoint = 'verifying' AND execute_after - created > interval '4 seconds'"
    return await fetch_value(database_url, f"SELECT count(*) FROM pgqueuer WHERE {later}")  # noqa: S608 - ours


def email_for(result: str) -> str:
    """Return a new e-mail for which the stub returns this result."""
    return f"{result}.{new_email()}"


@pytest.mark.parametrize("result", sorted(REJECTED))
async def test_undeliverable_email_is_rejected(
    verification_settings: Settings, stub: HunterStub, database_url: str, result: str
) -> None:
    """The response is 422 and names the field; no account is made; a second try uses the cache."""
    email = email_for(result)
    async with run_service(verification_settings) as client:
        for _ in range(2):
            rejected = await register(client, email)
            assert rejected.status_code == 422
            problem = rejected.json()
            assert problem["type"].endswith("/problems/email-undeliverable")
            assert problem["errors"][0]["pointer"] == "/email"
        slug = httpx.URL(problem["type"]).path
        assert (await client.get(slug)).status_code == 200
    assert await deliverability(database_url, email) is None
    assert len(stub.requests) == 1


@pytest.mark.parametrize("result", sorted(ACCEPTED))
async def test_other_results_are_stored(
    verification_settings: Settings, database_url: str, result: str
) -> None:
    """The account is made with the result, and no job verifies it again."""
    email = email_for(result)
    async with run_service(verification_settings) as client:
        assert (await register(client, email)).status_code == 201
    assert await deliverability(database_url, email) == result
    assert await count_scheduled_checks(database_url) == 0


@pytest.mark.parametrize("result", UNDETERMINED)
async def test_failed_verification_does_not_block_registration(
    verification_settings: Settings, stub: HunterStub, database_url: str, result: str
) -> None:
    """The account is made in time with the result `unknown`, and a job verifies it later."""
    email = new_email()
    fast_hashing = Provider(scope=Scope.APP)
    fast_hashing.provide(FakePasswordHasher, provides=ArgonPasswordHasher, override=True)
    async with run_service(verification_settings, fast_hashing) as client:
        await register(client)
        stub.fault = result
        async with measure_thread_time() as elapsed:
            response = await register(client, email)
    assert elapsed.seconds < MAX_EXTRA_SECONDS
    assert response.status_code == 201
    assert await deliverability(database_url, email) == "unknown"
    assert await count_scheduled_checks(database_url) == 1


async def test_failed_verification_is_repeated(
    verification_settings: Settings, stub: HunterStub, database_url: str
) -> None:
    """The later result is stored, and the account stays."""
    email = new_email()
    stub.fault = "503"

    async def is_known() -> bool:
        return await deliverability(database_url, email) == "disposable"

    async with run_service(replace(verification_settings, worker="inline")) as client:
        ann = await join(client, email)
        stub.fault = "disposable"
        await wait_for_value(is_known)
        assert (await ann.request("GET", "/me")).json()["email"] == email
        exported = (await ann.request("GET", "/me/export")).json()
        assert exported["account"]["deliverability"] == "disposable"
    assert {request.email for request in stub.requests} == {email}


async def test_open_breaker_delays_no_registration(
    verification_settings: Settings, stub: HunterStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With an open breaker no request is sent until the retry time."""
    monkeypatch.setattr(
        "referral.adapters.third_parties.guarded_client.PROBE_INTERVAL_SECONDS", math.inf
    )
    stub.fault = "hang"
    async with run_service(verification_settings) as client:
        await asyncio.gather(*(register(client) for _ in range(4)))
        sent = len(stub.requests)
        for _ in range(20):
            assert (await register(client)).status_code == 201
        figures = await scrape(client)
    part = "EmailHunter's verifier"
    assert figures.value("referral_breaker_open", dependency=part) == 1
    assert len(stub.requests) == sent  # a registration that waits sends a request


@pytest.mark.parametrize("worker", ["inline", "off"])
async def test_no_third_party_request_within_a_transaction(
    verification_settings: Settings, stub: HunterStub, database_url: str, worker: str
) -> None:
    """The stub responds only when the service has no open transaction, and no request times out."""
    waits: list[bool] = []
    query = """SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database()
               AND application_name LIKE 'referral%' AND state LIKE 'idle in transaction%'"""

    async def watch() -> None:
        waits.append(False)
        number = len(waits) - 1
        # Shorter than the client's timeout, which would look like success.
        await wait_for_value(lambda: fetch_value(database_url, query), 1.0)
        waits[number] = True

    stub.on_request = watch
    async with run_service(
        replace(verification_settings, worker=worker, enrichment="hunter")
    ) as client:
        await asyncio.gather(register(client), register(client))
        jobs = 2 if worker == "inline" else 0
        await wait_until(lambda: len(stub.requests_to("/combined/find")) == jobs and all(waits))
    assert len(waits) == 2 + jobs


async def get_profile(member: Member) -> dict[str, str] | None:
    """Return the profile that a member sees, or None."""
    profile: dict[str, str] | None = (await member.request("GET", "/me")).json()["profile"]
    return profile


@pytest.mark.parametrize("by", ["hunter", "clearbit"])
async def test_account_lifecycle_with_verification_and_enrichment(
    verification_settings: Settings, stub: HunterStub, database_url: str, by: str
) -> None:
    """Registration, look-up, referral, enrichment, export and erasure, which deletes it all."""
    settings = replace(
        verification_settings,
        worker="inline",
        enrichment=by,
        clearbit_url=stub.url if by == "clearbit" else "",
        clearbit_api_key=stub.key if by == "clearbit" else "",
    )
    async with run_service(settings) as client:
        ann = await join(client)
        code = await ann.issue_code()
        found = await client.get(f"{API}/codes/lookup", params={"email": ann.email})
        assert found.json()["code"] == code["code"]
        rejected = await register(client, email_for("disposable"), referral_code=code["code"])
        assert rejected.status_code == 422
        bob = await join(client, email_for("accept_all"), referral_code=code["code"])
        me = (await ann.request("GET", "/me")).json()
        assert me["referral_count"] == 1
        assert await wait_for_value(lambda: get_profile(ann)) == PROFILE
        assert await wait_for_value(lambda: get_profile(bob)) == PROFILE
        exported = (await bob.request("GET", "/me/export")).json()
        assert exported["profile"] == PROFILE
        assert exported["account"]["deliverability"] == "accept_all"
        assert "profile" not in (await client.get("/openapi.json")).json()["paths"]
        response = await bob.request("DELETE", "/me", json={"password": PASSWORD})
        assert response.status_code == 204
        assert await get_profile(ann) == PROFILE
    assert (
        await fetch_value(database_url, "SELECT count(*) FROM profiles WHERE user_id = $1", bob.id)
        == 0
    )
    assert await fetch_value(database_url, "SELECT count(*) FROM verdicts") == 2


async def test_erasure_stops_verification_and_enrichment(
    verification_settings: Settings, stub: HunterStub, database_url: str
) -> None:
    """A queued job of an erased account sends nothing to a third party."""
    email = new_email()
    stub.fault = "500"
    async with run_service(replace(verification_settings, enrichment="hunter")) as client:
        ann = await join(client, email)
        payloads = await fetch_value(
            database_url, "SELECT string_agg(encode(payload, 'escape'), '') FROM pgqueuer"
        )
        assert ann.id in str(payloads)
        assert email not in str(payloads)
        await ann.request("DELETE", "/me", json={"password": PASSWORD})
    stub.requests.clear()

    async def is_idle() -> bool:
        return await fetch_value(database_url, "SELECT count(*) FROM pgqueuer") == 0

    async with run_service(replace(verification_settings, enrichment="hunter", worker="inline")):
        await wait_for_value(is_idle)
    assert stub.requests == []


async def test_offline_verification_sends_no_request(
    settings: Settings, stub: HunterStub, database_url: str
) -> None:
    """`offline` rejects disposable domains and does nothing else."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    async with run_service(replace(settings, hunter_url="offline")) as client:
        rejected = await register(client, "ann@yopmail.com")
        assert rejected.json()["type"].endswith("/email-undeliverable")
        assert (await register(client)).status_code == 201
    assert await count_scheduled_checks(database_url) == 0
    assert stub.requests == []


async def test_verification_is_off_by_default(settings: Settings, database_url: str) -> None:
    """Without settings a disposable e-mail can register."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    async with run_service(settings) as client:
        assert (await register(client, f"{new_email()}.yopmail.com")).status_code == 201
    assert await count_scheduled_checks(database_url) == 0


@pytest.mark.parametrize(
    "results",
    [
        ["valid", "disposable", "401", "garbage", "redirect"],
        ["429", "reset", "cut", "bomb", "no-http"],
    ],
    ids=["results", "faults"],
)
async def test_api_keys_and_emails_are_not_logged(
    verification_settings: Settings,
    stub: HunterStub,
    database: PostgresDatabase,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    results: list[str],
) -> None:
    """No API key or e-mail is logged at level debug, and no table has the key."""
    caplog.set_level(logging.DEBUG)
    emails = [email_for(result) for result in results]
    async with run_service(verification_settings) as client:
        for email in emails:
            await register(client, email)
    stub.requests.clear()
    async with run_service(replace(verification_settings, worker="inline", enrichment="hunter")):
        await wait_until(
            lambda: stub.requests_to("/combined/find") or stub.requests_to("/email-verifier")
        )
    log = "".join(capfd.readouterr()) + caplog.text
    assert "service does not answer" in log
    assert stub.key not in log + await dump_tables(database)
    for email in emails:
        assert email.partition("@")[0] not in log


async def test_check_reports_the_api_keys(stub: HunterStub, tmp_path: Path) -> None:
    """`check` prints the remaining quota; a rejected key exits with 1."""
    folder, settings = tmp_path / "data", {"hunter_url": stub.url, "enrichment": "clearbit"}
    assert (await asyncio.to_thread(run_command, folder, "migrate")).returncode == 0
    settings |= {"clearbit_url": stub.url, "clearbit_api_key": stub.key}
    for key, code in ((stub.key, 0), ("another-key", 1)):
        command = await asyncio.to_thread(
            run_command, folder, "check", hunter_api_key=key, **settings
        )
        assert command.returncode == code, command.stderr
        lines = {line.split("  ")[0]: line for line in command.stdout.splitlines()}
        expected = "ok, 42 of 50 verifications left" if code == 0 else "refuses the key"
        assert lines["EmailHunter"].endswith(expected)
        assert lines["Clearbit"].endswith("ok")
        assert lines["verification"].endswith("EmailHunter")
        assert key not in command.stdout + command.stderr
