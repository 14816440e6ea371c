"""A code entered after joining."""

import asyncio

import httpx
import msgspec
import pytest

from referral.settings import Settings
from tests.conftest import ServiceFactory
from tests.support.api_client import Member, join, register
from tests.support.fakes.ports import FakeClock


async def set_referrer(member: Member, code: str) -> httpx.Response:
    """Name one's referrer."""
    return await member.request("POST", "/me/referrer", json={"referral_code": code})


def slug(answer: httpx.Response) -> str:
    """Return what the problem is called."""
    return str(answer.json()["type"]).rpartition("/")[2]


async def test_a_code_may_be_entered_after_joining(client: httpx.AsyncClient) -> None:
    """The referrer is credited as at registration, and it happens once."""
    ann, bob = await join(client), await join(client)
    code = await ann.issue_code()
    named = await set_referrer(bob, code["code"].lower())
    assert named.status_code == 200
    assert named.json() == (await bob.request("GET", "/me")).json()
    assert named.json()["referrer"] == {"id": ann.id, "email": None}
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 1
    again = await set_referrer(bob, code["code"])
    assert (again.status_code, slug(again)) == (409, "already-referred")
    assert (await ann.request("GET", "/me")).json()["active_code"]["uses"] == 1


async def test_who_joined_with_a_code_has_a_referrer(client: httpx.AsyncClient) -> None:
    """It never changes."""
    ann, cleo = await join(client), await join(client)
    bob = await join(client, referral_code=(await ann.issue_code())["code"])
    refused = await set_referrer(bob, (await cleo.issue_code())["code"])
    assert (refused.status_code, slug(refused)) == (409, "already-referred")


@pytest.mark.parametrize(("days", "status"), [(6.99, 200), (7.01, 409)])
async def test_the_window_is_open_for_7_days(
    client: httpx.AsyncClient, clock: FakeClock, days: float, status: int
) -> None:
    """Later it is too late."""
    ann, bob = await join(client), await join(client)
    code = await ann.issue_code(lifetime_minutes=60 * 24 * 30)
    clock.advance(days=days)
    answer = await set_referrer(await bob.log_in_again(), code["code"])
    assert answer.status_code == status
    assert status == 200 or slug(answer) == "claim-window-closed"


async def test_an_unusable_code_is_refused(client: httpx.AsyncClient) -> None:
    """One's own, an unknown one, a deactivated one and one that is no code look the same."""
    ann, bob = await join(client), await join(client)
    own, off = await bob.issue_code(), await ann.issue_code()
    await ann.request("POST", f"/me/codes/{off['id']}/deactivate")
    answers = [
        await set_referrer(bob, text) for text in (own["code"], off["code"], "NOBODYS", "\x00")
    ]
    assert {answer.status_code for answer in answers} == {422}
    assert {slug(answer) for answer in answers} == {"referral-code-unusable"}
    assert len({answer.json()["detail"] for answer in answers}) == 1
    assert (await bob.request("GET", "/me")).json()["active_code"]["uses"] == 0


async def test_many_claims_at_once_credit_one(client: httpx.AsyncClient) -> None:
    """One user with twenty requests has one referrer, and one use is counted in all."""
    ann, cleo, bob = await join(client), await join(client), await join(client)
    texts = [(await member.issue_code())["code"] for member in (ann, cleo)]
    answers = await asyncio.gather(*(set_referrer(bob, text) for text in texts * 10))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 19
    uses = [
        (await member.request("GET", "/me")).json()["active_code"]["uses"] for member in (ann, cleo)
    ]
    assert sum(uses) == 1


async def test_the_last_use_goes_to_one_of_many(client: httpx.AsyncClient) -> None:
    """Claims and registrations share one count."""
    ann = await join(client)
    code = (await ann.issue_code(max_uses=1))["code"]
    members = [await join(client) for _ in range(5)]
    answers = await asyncio.gather(
        *(set_referrer(member, code) for member in members),
        *(register(client, referral_code=code) for _ in range(5)),
    )
    assert sorted(answer.status_code for answer in answers)[1:] == [422] * 9
    assert (await ann.request("GET", "/me")).json()["referral_count"] == 1


async def test_two_may_name_each_other_at_once(client: httpx.AsyncClient) -> None:
    """Neither waits for the other for ever."""
    for _ in range(5):
        ann, bob = await join(client), await join(client)
        texts = [(await member.issue_code())["code"] for member in (bob, ann)]
        answers = await asyncio.gather(set_referrer(ann, texts[0]), set_referrer(bob, texts[1]))
        assert [answer.status_code for answer in answers] == [200, 200]


@pytest.mark.parametrize(("verification", "status"), [("on", "pending"), ("off", "confirmed")])
async def test_a_referral_waits_for_the_address_to_be_confirmed(
    serve: ServiceFactory, settings: Settings, verification: str, status: str
) -> None:
    """Joined with the code or later; where nothing is verified it is confirmed at once."""
    async with serve(msgspec.structs.replace(settings, email_verification=verification)) as client:
        ann, bob = await join(client), await join(client)
        code = (await ann.issue_code())["code"]
        await set_referrer(bob, code)
        await join(client, referral_code=code)
        items = (await ann.request("GET", "/me/referrals")).json()["items"]
        assert [item["status"] for item in items] == [status, status]


async def test_preferences_change_one_by_one(client: httpx.AsyncClient) -> None:
    """What is left out stays, and null is no preference."""
    ann = await join(client)
    changed = (await ann.request("PATCH", "/me", json={"locale": "ru"})).json()
    assert (changed["locale"], changed["notify_on_referral"]) == ("ru", True)
    changed = (await ann.request("PATCH", "/me", json={"notify_on_referral": False})).json()
    assert (changed["locale"], changed["notify_on_referral"]) == ("ru", False)
    assert (await ann.request("PATCH", "/me", json={})).json() == changed
    for body in ({"locale": None}, {"locale": "de"}, {"role": "admin"}, {"email": "a@b.example"}):
        assert (await ann.request("PATCH", "/me", json=body)).status_code == 422
