"""Setting the referrer after the registration."""

import asyncio

import httpx
import msgspec
import pytest

from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import Member, join, register
from tests.support.fakes.system import FakeClock


async def set_referrer(member: Member, code: str) -> httpx.Response:
    """Send a code as the member's referrer."""
    return await member.request("POST", "/me/referrer", json={"referral_code": code})


def problem_slug(response: httpx.Response) -> str:
    """Return the slug of the problem type."""
    return str(response.json()["type"]).rpartition("/")[2]


async def test_referrer_can_be_set_once_after_registration(client: httpx.AsyncClient) -> None:
    """The referrer is credited as at registration; a second time is 409."""
    ann, bob = await join(client), await join(client)
    code = await ann.issue_code()
    first = await set_referrer(bob, code["code"].lower())
    assert first.status_code == 200
    assert first.json() == (await bob.request("GET", "/me")).json()
    assert first.json()["referrer"] == {"id": ann.id, "email": None}
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 1
    again = await set_referrer(bob, code["code"])
    assert (again.status_code, problem_slug(again)) == (409, "already-referred")
    assert (await ann.request("GET", "/me")).json()["active_code"]["uses"] == 1


async def test_referrer_of_the_registration_cannot_be_changed(client: httpx.AsyncClient) -> None:
    """A user who registered with a code gets 409."""
    ann, cleo = await join(client), await join(client)
    bob = await join(client, referral_code=(await ann.issue_code())["code"])
    response = await set_referrer(bob, (await cleo.issue_code())["code"])
    assert (response.status_code, problem_slug(response)) == (409, "already-referred")


@pytest.mark.parametrize(("days", "status"), [(6.99, 200), (7.01, 409)])
async def test_referrer_can_be_set_for_7_days(
    client: httpx.AsyncClient, clock: FakeClock, days: float, status: int
) -> None:
    """After 7 days the response is 409."""
    ann, bob = await join(client), await join(client)
    code = await ann.issue_code(lifetime_minutes=60 * 24 * 30)
    clock.advance(days=days)
    response = await set_referrer(await bob.log_in_again(), code["code"])
    assert response.status_code == status
    assert status == 200 or problem_slug(response) == "claim-window-closed"


async def test_unusable_code_is_rejected(client: httpx.AsyncClient) -> None:
    """The user's own code, an unknown, inactive or malformed code get the same response."""
    ann, bob = await join(client), await join(client)
    own, inactive = await bob.issue_code(), await ann.issue_code()
    await ann.request("POST", f"/me/codes/{inactive['id']}/deactivate")
    responses = [
        await set_referrer(bob, text) for text in (own["code"], inactive["code"], "NOBODYS", "\x00")
    ]
    assert {response.status_code for response in responses} == {422}
    assert {problem_slug(response) for response in responses} == {"referral-code-unusable"}
    assert len({response.json()["detail"] for response in responses}) == 1
    assert (await bob.request("GET", "/me")).json()["active_code"]["uses"] == 0


async def test_concurrent_requests_set_one_referrer(client: httpx.AsyncClient) -> None:
    """Twenty requests of one user with two codes count one use in all."""
    ann, cleo, bob = await join(client), await join(client), await join(client)
    texts = [(await member.issue_code())["code"] for member in (ann, cleo)]
    responses = await asyncio.gather(*(set_referrer(bob, text) for text in texts * 10))
    assert sorted(response.status_code for response in responses) == [200] + [409] * 19
    uses = [
        (await member.request("GET", "/me")).json()["active_code"]["uses"] for member in (ann, cleo)
    ]
    assert sum(uses) == 1


async def test_last_use_is_credited_once(client: httpx.AsyncClient) -> None:
    """Requests to set a referrer and registrations share one count."""
    ann = await join(client)
    code = (await ann.issue_code(max_uses=1))["code"]
    members = [await join(client) for _ in range(5)]
    responses = await asyncio.gather(
        *(set_referrer(member, code) for member in members),
        *(register(client, referral_code=code) for _ in range(5)),
    )
    assert sorted(response.status_code for response in responses)[1:] == [422] * 9
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 1


async def test_two_users_can_refer_each_other_concurrently(client: httpx.AsyncClient) -> None:
    """Both requests succeed without a deadlock."""
    for _ in range(5):
        ann, bob = await join(client), await join(client)
        texts = [(await member.issue_code())["code"] for member in (bob, ann)]
        responses = await asyncio.gather(set_referrer(ann, texts[0]), set_referrer(bob, texts[1]))
        assert [response.status_code for response in responses] == [200, 200]


@pytest.mark.parametrize(("verification", "status"), [("on", "pending"), ("off", "confirmed")])
async def test_referral_is_pending_until_the_email_is_confirmed(
    serve: ServiceFactory, settings: Settings, verification: str, status: str
) -> None:
    """Without verification a referral is confirmed at once."""
    async with serve(msgspec.structs.replace(settings, email_verification=verification)) as client:
        ann, bob = await join(client), await join(client)
        code = (await ann.issue_code())["code"]
        await set_referrer(bob, code)
        await join(client, referral_code=code)
        items = (await ann.request("GET", "/me/referrals")).json()["items"]
        assert [item["status"] for item in items] == [status, status]


async def test_preferences_are_updated_one_by_one(client: httpx.AsyncClient) -> None:
    """An omitted field keeps its value, and null is invalid."""
    ann = await join(client)
    changed = (await ann.request("PATCH", "/me", json={"locale": "ru"})).json()
    assert (changed["locale"], changed["notify_on_referral"]) == ("ru", True)
    changed = (await ann.request("PATCH", "/me", json={"notify_on_referral": False})).json()
    assert (changed["locale"], changed["notify_on_referral"]) == ("ru", False)
    assert (await ann.request("PATCH", "/me", json={})).json() == changed
    for body in ({"locale": None}, {"locale": "de"}, {"role": "admin"}, {"email": "a@b.example"}):
        assert (await ann.request("PATCH", "/me", json=body)).status_code == 422
