"""EmailHunter and enrichment, from the registration to the profile, with all that may go wrong."""

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
from tests.support.fakes.ports import FakePasswordHasher
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
"""How long a registration may take, in seconds, when hashing takes no time."""

REFUSED = {"invalid", "disposable"}
ACCEPTED = {*VERIFIER_STATUSES} - REFUSED - {"unknown"}
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
    """A server of both APIs."""
    async with hunter_stub() as stub:
        yield stub


@pytest.fixture
async def verification_settings(
    settings: Settings, stub: HunterStub, database_url: str
) -> Settings:
    """Settings of a service that has addresses verified; its queue is empty at first."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log, verdicts")
    return replace(settings, hunter_url=stub.url, hunter_api_key=stub.key)


async def deliverability(database_url: str, email: str) -> object:
    """Return what an account says of its address."""
    query = "SELECT deliverability FROM users WHERE email_key = $1"
    return await fetch_value(database_url, query, email)


async def count_scheduled_checks(database_url: str) -> object:
    """Count the jobs that ask again, after a while."""
    later = "entrypoint = 'verifying' AND execute_after - created > interval '4 seconds'"
    return await fetch_value(database_url, f"SELECT count(*) FROM pgqueuer WHERE {later}")  # noqa: S608 - ours


def email_for(word: str) -> str:
    """Make up an address that is answered in a way."""
    return f"{word}.{new_email()}"


@pytest.mark.parametrize("word", sorted(REFUSED))
async def test_a_definite_answer_refuses(
    verification_settings: Settings, stub: HunterStub, database_url: str, word: str
) -> None:
    """422, the field is named, there is no account, and a second try asks nobody."""
    email = email_for(word)
    async with run_service(verification_settings) as client:
        for _ in range(2):
            refused = await register(client, email)
            assert refused.status_code == 422
            problem = refused.json()
            assert problem["type"].endswith("/problems/email-undeliverable")
            assert problem["errors"][0]["pointer"] == "/email"
        slug = httpx.URL(problem["type"]).path
        assert (await client.get(slug)).status_code == 200
    assert await deliverability(database_url, email) is None
    assert len(stub.requests) == 1


@pytest.mark.parametrize("word", sorted(ACCEPTED))
async def test_other_answers_are_noted(
    verification_settings: Settings, database_url: str, word: str
) -> None:
    """The account is made, and nobody asks again."""
    email = email_for(word)
    async with run_service(verification_settings) as client:
        assert (await register(client, email)).status_code == 201
    assert await deliverability(database_url, email) == word
    assert await count_scheduled_checks(database_url) == 0


@pytest.mark.parametrize("word", UNDETERMINED)
async def test_whatever_else_happens_the_account_is_made(
    verification_settings: Settings, stub: HunterStub, database_url: str, word: str
) -> None:
    """In time; the state is unknown, and a job asks again later."""
    email = new_email()
    quick = Provider(scope=Scope.APP)
    quick.provide(FakePasswordHasher, provides=ArgonPasswordHasher, override=True)
    async with run_service(verification_settings, quick) as client:
        await register(client)
        stub.fault = word
        async with measure_thread_time() as waited:
            answer = await register(client, email)
    assert waited.seconds < MAX_EXTRA_SECONDS
    assert answer.status_code == 201
    assert await deliverability(database_url, email) == "unknown"
    assert await count_scheduled_checks(database_url) == 1


async def test_it_is_asked_again_when_the_service_is_back(
    verification_settings: Settings, stub: HunterStub, database_url: str
) -> None:
    """After seconds; what is said then changes the state, and the account stays as it is."""
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
    assert {one.email for one in stub.requests} == {email}


async def test_a_dead_service_costs_some_registrations_and_then_nothing(
    verification_settings: Settings, stub: HunterStub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the breaker is open nobody waits, and nobody is asked until it is time to try."""
    monkeypatch.setattr(
        "referral.adapters.third_parties.guarded_client.PROBE_INTERVAL_SECONDS", math.inf
    )
    stub.fault = "hang"
    async with run_service(verification_settings) as client:
        await asyncio.gather(*(register(client) for _ in range(4)))
        asked = len(stub.requests)
        for _ in range(20):
            assert (await register(client)).status_code == 201
        figures = await scrape(client)
    part = "EmailHunter's verifier"
    assert figures.value("referral_breaker_open", part=part) == 1
    assert len(stub.requests) == asked  # whoever waits has asked


@pytest.mark.parametrize("worker", ["inline", "off"])
async def test_nobody_is_asked_within_a_transaction(
    verification_settings: Settings, stub: HunterStub, database_url: str, worker: str
) -> None:
    """EmailHunter keeps each question until the service has no transaction open: it never has to
    give up, for registrations and jobs.
    """
    closed: list[bool] = []
    query = """SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = current_database()
               AND application_name LIKE 'referral%' AND state LIKE 'idle in transaction%'"""

    async def watch() -> None:
        closed.append(False)
        place = len(closed) - 1
        # A shorter time than the asking side waits, or its giving up would look like success.
        await wait_for_value(lambda: fetch_value(database_url, query), 1.0)
        closed[place] = True

    stub.on_request = watch
    async with run_service(
        replace(verification_settings, worker=worker, enrichment="hunter")
    ) as client:
        await asyncio.gather(register(client), register(client))
        jobs = 2 if worker == "inline" else 0
        await wait_until(lambda: len(stub.requests_to("/combined/find")) == jobs and all(closed))
    assert len(closed) == 2 + jobs


async def wait_for_profile(member: Member) -> dict[str, str] | None:
    """Return the profile that a member sees."""
    found: dict[str, str] | None = (await member.request("GET", "/me")).json()["profile"]
    return found


@pytest.mark.parametrize("by", ["hunter", "clearbit"])
async def test_the_whole_journey_with_verification_and_enrichment(
    verification_settings: Settings, stub: HunterStub, database_url: str, by: str
) -> None:
    """Join, be looked up, refer, be known, take the data along, leave; nothing stays."""
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
        refused = await register(client, email_for("disposable"), referral_code=code["code"])
        assert refused.status_code == 422
        bob = await join(client, email_for("accept_all"), referral_code=code["code"])
        me = (await ann.request("GET", "/me")).json()
        assert me["referral_count"] == 1
        assert await wait_for_value(lambda: wait_for_profile(ann)) == PROFILE
        assert await wait_for_value(lambda: wait_for_profile(bob)) == PROFILE
        exported = (await bob.request("GET", "/me/export")).json()
        assert exported["profile"] == PROFILE
        assert exported["account"]["deliverability"] == "accept_all"
        assert "profile" not in (await client.get("/openapi.json")).json()["paths"]
        answer = await bob.request("DELETE", "/me", json={"password": PASSWORD})
        assert answer.status_code == 204
        assert await wait_for_profile(ann) == PROFILE
    assert (
        await fetch_value(database_url, "SELECT count(*) FROM profiles WHERE user_id = $1", bob.id)
        == 0
    )
    assert await fetch_value(database_url, "SELECT count(*) FROM verdicts") == 2


async def test_leaving_ends_the_questions(
    verification_settings: Settings, stub: HunterStub, database_url: str
) -> None:
    """A job that waited finds nobody; no third party hears of the address again."""
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


async def test_a_list_of_domains_asks_nobody(
    settings: Settings, stub: HunterStub, database_url: str
) -> None:
    """With `offline` disposable domains are refused, and that is all."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    async with run_service(replace(settings, hunter_url="offline")) as client:
        refused = await register(client, "ann@yopmail.com")
        assert refused.json()["type"].endswith("/email-undeliverable")
        assert (await register(client)).status_code == 201
    assert await count_scheduled_checks(database_url) == 0
    assert stub.requests == []


async def test_without_settings_nobody_is_asked(settings: Settings, database_url: str) -> None:
    """No verification where nothing is set: a disposable address registers."""
    await execute(database_url, "TRUNCATE pgqueuer, pgqueuer_log")
    async with run_service(settings) as client:
        assert (await register(client, f"{new_email()}.yopmail.com")).status_code == 201
    assert await count_scheduled_checks(database_url) == 0


@pytest.mark.parametrize(
    "words",
    [
        ["valid", "disposable", "401", "garbage", "redirect"],
        ["429", "reset", "cut", "bomb", "no-http"],
    ],
    ids=["answers", "faults"],
)
async def test_keys_and_addresses_are_in_no_log(
    verification_settings: Settings,
    stub: HunterStub,
    database: PostgresDatabase,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    words: list[str],
) -> None:
    """Not even in the most talkative one, and the key in no table, whatever happens."""
    caplog.set_level(logging.DEBUG)
    emails = [email_for(word) for word in words]
    async with run_service(verification_settings) as client:
        for email in emails:
            await register(client, email)
    stub.requests.clear()
    async with run_service(replace(verification_settings, worker="inline", enrichment="hunter")):
        await wait_until(
            lambda: stub.requests_to("/combined/find") or stub.requests_to("/email-verifier")
        )
    said = "".join(capfd.readouterr()) + caplog.text
    assert "service does not answer" in said
    assert stub.key not in said + await dump_tables(database)
    for email in emails:
        assert email.partition("@")[0] not in said


async def test_check_tells_how_the_keys_are(stub: HunterStub, tmp_path: Path) -> None:
    """And what is left of the quota; a key that is refused makes it end with 1."""
    folder, chosen = tmp_path / "data", {"hunter_url": stub.url, "enrichment": "clearbit"}
    assert (await asyncio.to_thread(run_command, folder, "migrate")).returncode == 0
    chosen |= {"clearbit_url": stub.url, "clearbit_api_key": stub.key}
    for key, code in ((stub.key, 0), ("another-key", 1)):
        done = await asyncio.to_thread(run_command, folder, "check", hunter_api_key=key, **chosen)
        assert done.returncode == code, done.stderr
        lines = {line.split("  ")[0]: line for line in done.stdout.splitlines()}
        told = "ok, 42 of 50 verifications left" if code == 0 else "refuses the key"
        assert lines["EmailHunter"].endswith(told)
        assert lines["Clearbit"].endswith("ok")
        assert lines["verification"].endswith("EmailHunter")
        assert key not in done.stdout + done.stderr
