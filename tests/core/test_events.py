"""The events of each use case."""

from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from referral.core.entities.codes import Code, Expiry
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.events import (
    Event,
    format_time,
)
from referral.core.entities.referrals import REFERRAL_PENDING_PERIOD
from referral.core.entities.users import UNCONFIRMED_ACCOUNT_LIFETIME, Role, User
from referral.core.errors import (
    ActiveCodeExists,
    CodeTaken,
    ReferralCodeUnusable,
    Unavailable,
)
from referral.core.use_cases.accounts import AccountUpdate, NewAccount, UpdateAccount
from referral.core.use_cases.codes import CodeRenewal
from referral.core.use_cases.events import ListEvents, PublishEvents, ReportExpiredCodes
from referral.core.use_cases.referrals import SetReferrer
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService
from tests.support.fakes.events import FakeEventLog

CODE_FIELDS = ["code_id", "user_id", "code", "status", "expires_at", "uses", "max_uses"]
REFERRAL_FIELDS = [
    *("referral_id", "referrer_id", "user_id", "code_id"),
    *("code", "status", "joined_at", "reason"),
]


async def told(service: InMemoryService) -> list[str]:
    """Return the types of the new events."""
    return [event.type for event in await service.events()]


def data_of(events: Collection[Event], event_type: str) -> dict[str, Any]:
    """Return the data of the only event of a type."""
    [event] = [event for event in events if event.type == event_type]
    return dict(event.data)


async def user_with_code(service: InMemoryService, **fields: Any) -> tuple[User, Code]:
    """Return a user and the user's active code; their events are published."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, text="ANN", **fields)
    await service.events()
    return ann, code


@pytest.fixture
def service() -> InMemoryService:
    """A service that requires the confirmation of addresses."""
    return InMemoryService(email_verification="on")


@pytest.fixture
def unverified() -> InMemoryService:
    """A service that does not require it."""
    return InMemoryService(email_verification="off")


async def test_registration_is_an_event(service: InMemoryService) -> None:
    """Its data has the documented fields, and no e-mail address."""
    ann = await service.create_account("ann@example.com")
    [event] = await service.events()
    assert (event.type, event.occurred_at) == ("user.registered", ann.created_at)
    fields = {"user_id": str(ann.id), "external_id": None, "referrer_id": None, "code": None}
    assert event.data == fields


async def test_admin_is_registered_with_a_verified_address(service: InMemoryService) -> None:
    """Creating an admin is two events."""
    await service.register(NewAccount("root@example.com", PASSWORD, role=Role.ADMIN))
    assert await told(service) == ["user.registered", "user.verified"]


async def test_referral_is_pending_and_then_confirmed(service: InMemoryService) -> None:
    """By the link of the confirmation mail."""
    ann, code = await user_with_code(service)
    bob = await service.create_account("bob@example.com", referral_code="ann")
    events = await service.events()
    assert [event.type for event in events] == ["user.registered", "referral.created"]
    assert events[0].data["referrer_id"] == str(ann.id)
    assert events[0].data["code"] == "ANN"
    created = data_of(events, "referral.created")
    assert list(created) == REFERRAL_FIELDS
    assert created | {"referral_id": None, "joined_at": None} == {
        "referral_id": None,
        "referrer_id": str(ann.id),
        "user_id": str(bob.id),
        "code_id": str(code.id),
        "code": "ANN",
        "status": "pending",
        "joined_at": None,
        "reason": None,
    }
    assert created["joined_at"] == format_time(service.clock.now())
    token = await service.create_mail_token(bob)
    await service.confirm_email(token, caller_id=bob.id, password=None, client_ip=CLIENT_IP)
    events = await service.events()
    assert [event.type for event in events] == ["user.verified", "referral.confirmed"]
    confirmed = data_of(events, "referral.confirmed")
    assert confirmed == created | {"status": "confirmed"}


async def test_password_reset_verifies_the_address_once(service: InMemoryService) -> None:
    """The second reset changes nothing that is an event."""
    ann = await service.create_account("ann@example.com")
    await service.events()
    for expected in (["user.verified"], []):
        token = await service.create_mail_token(ann, TokenPurpose.RESET)
        await service.reset_password(token, "another long password")
        assert await told(service) == expected


async def test_referral_is_confirmed_at_once_without_confirmation(
    unverified: InMemoryService,
) -> None:
    """The last use also exhausts the code."""
    _, code = await user_with_code(unverified, max_uses=1)
    await unverified.create_account("bob@example.com", referral_code="ANN")
    events = await unverified.events()
    assert [event.type for event in events] == [
        *("user.registered", "referral.created", "referral.confirmed", "code.exhausted")
    ]
    exhausted = data_of(events, "code.exhausted")
    assert list(exhausted) == CODE_FIELDS
    assert exhausted["code_id"] == str(code.id)
    assert (exhausted["uses"], exhausted["max_uses"]) == (1, 1)
    assert exhausted["status"] == "exhausted"


async def test_refused_registration_is_no_event(service: InMemoryService) -> None:
    """Nor is one with a taken address."""
    with pytest.raises(ReferralCodeUnusable):
        await service.create_account("bob@example.com", referral_code="NONE")
    assert await told(service) == []


async def test_referral_of_a_returning_address_is_rejected_alone(
    unverified: InMemoryService,
) -> None:
    """No referral is created before."""
    await user_with_code(unverified)
    bob = await unverified.create_account("bob@example.com", referral_code="ANN")
    await unverified.erase_account(bob.id, PASSWORD)
    await unverified.events()
    await unverified.create_account("bob@example.com", referral_code="ANN")
    assert await told(unverified) == ["user.registered", "referral.rejected"]


async def test_referrer_that_is_set_later_is_an_event(unverified: InMemoryService) -> None:
    """The account is not registered again."""
    await user_with_code(unverified)
    bob = await unverified.create_account("bob@example.com")
    await unverified.events()
    await unverified.get(SetReferrer)(bob.id, "ANN")
    assert await told(unverified) == ["referral.created", "referral.confirmed"]


async def test_block_is_an_event_when_it_changes_something(service: InMemoryService) -> None:
    """A second block or unblock is none."""
    await service.create_account("ann@example.com")
    await service.events()
    for undo, expected in (
        (True, []),
        (False, ["user.blocked"]),
        (False, []),
        (True, ["user.unblocked"]),
    ):
        await service.block_account("ann@example.com", undo=undo)
        assert await told(service) == expected


async def test_change_of_the_locale_is_no_event(service: InMemoryService) -> None:
    """No event type tells of it."""
    ann = await service.create_account("ann@example.com")
    await service.events()
    await service.get(UpdateAccount)(ann.id, AccountUpdate(None, notify_on_referral=False))
    assert await told(service) == []


@pytest.mark.parametrize("way", ["by password", "by disowning", "by expiry"])
async def test_erasure_tells_of_codes_and_referral(service: InMemoryService, way: str) -> None:
    """By every way: the pending referral is rejected, and each code is deleted."""
    await user_with_code(service, max_uses=1, minutes=100_000)
    bob = await service.create_account("bob@example.com", referral_code="ANN")
    codes = [await service.create_code(bob, activate=False, minutes=100_000) for _ in range(2)]
    await service.events()
    match way:
        case "by password":
            await service.erase_account(bob.id, PASSWORD)
        case "by disowning":
            await service.disown_email(await service.create_mail_token(bob))
        case _:
            async with service.database.begin() as repositories:
                now = service.clock.now()
                await repositories.users.save(replace(bob, confirm_by=now))
            await service.expire_unconfirmed()
    events = await service.events()
    assert [event.type for event in events] == [
        *("referral.rejected", "code.deleted", "code.deleted", "user.erased")
    ]
    assert events[0].data["status"] == "rejected"
    assert {event.data["code_id"] for event in events[1:3]} == {str(code.id) for code in codes}
    assert events[3].data == {"user_id": str(bob.id), "external_id": None}


async def test_erasure_removes_the_external_id_from_stored_events(
    service: InMemoryService,
) -> None:
    """From published events, and from those that are not published yet."""
    ann = await service.create_account("ann@example.com")
    identified = replace(ann, external_id="shop|1")
    async with service.database.begin() as repositories:
        await repositories.users.save(identified)
    await service.events()
    await service.block_account("ann@example.com")
    [blocked] = await service.events()
    assert blocked.data["external_id"] == "shop|1"
    await service.block_account("ann@example.com", undo=True)
    await service.erase_account(ann.id, PASSWORD)
    unpublished = await service.events()
    async with service.database.read() as repositories:
        feed = await repositories.events.list_page(["user.blocked"], after=0, limit=9)
    [published] = [each.event for each in feed]
    assert [event.data["external_id"] for event in (published, *unpublished)] == [None] * 3


async def test_overdue_referral_is_rejected(service: InMemoryService) -> None:
    """By the hourly job, or by a late confirmation."""
    await user_with_code(service, minutes=100_000)
    for way in ("job", "confirmation"):
        bob = await service.create_account(f"{way}@example.com", referral_code="ANN")
        await service.events()
        service.clock.advance(days=REFERRAL_PENDING_PERIOD.days)
        if way == "job":
            await service.expire_unconfirmed()
            assert await told(service) == ["referral.rejected"]
        else:
            token = await service.create_mail_token(bob)
            await service.confirm_email(token, caller_id=bob.id, password=None, client_ip=CLIENT_IP)
            assert await told(service) == ["user.verified", "referral.rejected"]


async def test_unconfirmed_accounts_expire_with_events(service: InMemoryService) -> None:
    """Each one is erased."""
    await service.create_account("ann@example.com")
    await service.events()
    service.clock.advance(days=UNCONFIRMED_ACCOUNT_LIFETIME.days)
    await service.expire_unconfirmed()
    assert await told(service) == ["user.erased"]


async def test_code_is_created_and_replaced(service: InMemoryService) -> None:
    """The replaced code is deactivated first."""
    ann = await service.create_account("ann@example.com")
    await service.events()
    first = await service.create_code(ann, text="FIRST", max_uses=5)
    events = await service.events()
    assert [event.type for event in events] == ["code.created"]
    assert list(events[0].data) == CODE_FIELDS
    assert events[0].data == {
        "code_id": str(first.id),
        "user_id": str(ann.id),
        "code": "FIRST",
        "status": "active",
        "expires_at": format_time(first.expires_at),
        "uses": 0,
        "max_uses": 5,
    }
    second = await service.create_code(ann, replace=True)
    events = await service.events()
    assert [event.type for event in events] == ["code.deactivated", "code.created"]
    assert (events[0].data["code_id"], events[0].data["status"]) == (str(first.id), "inactive")
    assert events[1].data["code_id"] == str(second.id)


async def test_code_that_is_not_stored_is_no_event(service: InMemoryService) -> None:
    """A taken text, or a second active code."""
    ann, _ = await user_with_code(service)
    with pytest.raises(ActiveCodeExists):
        await service.create_code(ann)
    with pytest.raises(CodeTaken):
        await service.create_code(ann, text="ann", activate=False)
    assert await told(service) == []


async def test_activation_deactivates_the_other_code(service: InMemoryService) -> None:
    """Activating the active code, and deactivating an inactive one, are no events."""
    ann, first = await user_with_code(service)
    second = await service.create_code(ann, activate=False)
    assert await told(service) == ["code.created"]
    await service.activate_code(ann.id, second.id)
    events = await service.events()
    assert [event.type for event in events] == ["code.deactivated", "code.activated"]
    assert [event.data["code_id"] for event in events] == [str(first.id), str(second.id)]
    assert [event.data["status"] for event in events] == ["inactive", "active"]
    await service.activate_code(ann.id, second.id)
    await service.deactivate_code(ann.id, first.id)
    assert await told(service) == []
    await service.deactivate_code(ann.id, second.id)
    assert await told(service) == ["code.deactivated"]


async def test_renewal_that_changes_nothing_is_no_event(service: InMemoryService) -> None:
    """An empty one, and one with the stored values."""
    ann, code = await user_with_code(service, max_uses=5)
    for renewal in (CodeRenewal(), CodeRenewal(max_uses=5)):
        await service.renew_code(ann.id, code.id, renewal)
        assert await told(service) == []
    renewal = CodeRenewal(expiry=Expiry(lifetime_minutes=120), unlimited=True)
    renewed = await service.renew_code(ann.id, code.id, renewal)
    data = data_of(await service.events(), "code.renewed")
    assert (data["expires_at"], data["max_uses"]) == (format_time(renewed.expires_at), None)


async def test_lower_maximum_exhausts_an_active_code(service: InMemoryService) -> None:
    """Once; an inactive code is not exhausted by it."""
    ann, code = await user_with_code(service)
    await service.create_account("bob@example.com", referral_code="ANN")
    await service.events()
    await service.renew_code(ann.id, code.id, CodeRenewal(max_uses=1))
    assert await told(service) == ["code.renewed", "code.exhausted"]
    await service.renew_code(ann.id, code.id, CodeRenewal(max_uses=2))
    await service.deactivate_code(ann.id, code.id)
    await service.events()
    await service.renew_code(ann.id, code.id, CodeRenewal(max_uses=1))
    assert await told(service) == ["code.renewed"]


async def test_deletion_is_one_event(service: InMemoryService) -> None:
    """The code is not active any more, and is not deactivated before."""
    ann, code = await user_with_code(service)
    await service.delete_code(ann.id, code.id)
    deleted = data_of(await service.events(), "code.deleted")
    assert (deleted["code_id"], deleted["status"]) == (str(code.id), "inactive")


CHANGES = ("replace", "activate", "retire", "deactivate", "delete", "renew", "erase")


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("reported", [False, True])
@pytest.mark.parametrize("exhausted", [False, True])
async def test_change_of_an_expired_code_reports_the_expiry(
    service: InMemoryService, change: str, *, reported: bool, exhausted: bool
) -> None:
    """Unless it was reported already, or the code was exhausted and so not active."""
    ann, code = await user_with_code(service, max_uses=1)
    other = await service.create_code(ann, minutes=999, activate=False)
    if exhausted:
        await service.create_account("bob@example.com", referral_code="ANN")
    service.clock.advance(minutes=60)
    if reported:
        async with service.database.begin() as repositories:
            assert await repositories.codes.report_expiry(code.id)
    await service.events()
    match change:
        case "replace":
            await service.create_code(ann, replace=True)
        case "retire":
            await service.create_code(ann)
        case "activate":
            await service.activate_code(ann.id, other.id)
        case "deactivate":
            await service.deactivate_code(ann.id, code.id)
        case "delete":
            await service.delete_code(ann.id, code.id)
        case "renew":
            renewal = CodeRenewal(expiry=Expiry(lifetime_minutes=60))
            await service.renew_code(ann.id, code.id, renewal)
        case _:
            await service.erase_account(ann.id, PASSWORD)
    expected = {
        "replace": ["code.created"],
        "retire": ["code.created"],
        "activate": ["code.activated"],
        "deactivate": ["code.deactivated"],
        "delete": ["code.deleted"],
        "renew": ["code.renewed"],
        "erase": ["code.deleted", "code.deleted", "user.erased"],
    }[change]
    first = [] if reported or exhausted else ["code.expired"]
    events = await service.events()
    assert [event.type for event in events] == first + expected
    if first:
        assert (events[0].data["code_id"], events[0].data["status"]) == (str(code.id), "expired")


async def test_use_that_is_returned_after_the_expiry_reports_none(
    service: InMemoryService,
) -> None:
    """The code was exhausted when it expired."""
    ann, code = await user_with_code(service, max_uses=1)
    bob = await service.create_account("bob@example.com", referral_code="ANN")
    service.clock.advance(minutes=60)
    await service.disown_email(await service.create_mail_token(bob))
    await service.events()
    await service.delete_code(ann.id, code.id)
    assert await told(service) == ["code.deleted"]


def test_time_is_in_utc() -> None:
    """As in the API: with microseconds where there are any."""
    moscow = timezone(timedelta(hours=3))
    assert format_time(datetime(2026, 1, 31, 15, tzinfo=moscow)) == "2026-01-31T12:00:00Z"
    assert format_time(datetime(2026, 1, 31, 0, 0, 0, 5, UTC)) == "2026-01-31T00:00:00.000005Z"


async def feed(service: InMemoryService) -> list[str]:
    """Return the types in the feed."""
    async with service.database.read() as repositories:
        page = await repositories.events.list_page(None, after=0, limit=9999)
    return [each.event.type for each in page]


async def test_events_are_published_in_batches(service: InMemoryService) -> None:
    """The result tells whether there was anything to publish."""
    publish = service.get(PublishEvents)
    assert not await publish()
    await service.create_account("ann@example.com")
    async with service.database.begin() as repositories:
        event = Event(service.id_generator.new(), "code.created", service.clock.now(), {})
        events = (replace(event, id=service.id_generator.new()) for _ in range(600))
        await repositories.events.add(*events)
    assert await publish()
    assert len(await feed(service)) == 500
    assert await publish(wait=True)
    assert not await publish()
    assert await feed(service) == ["user.registered", *["code.created"] * 600]


async def test_expiry_of_an_active_code_is_reported_once(service: InMemoryService) -> None:
    """Neither before it, nor again, nor after the clock was set back; a renewal counts anew."""
    report = service.get(ReportExpiredCodes)
    ann, code = await user_with_code(service, minutes=60)
    service.clock.advance(minutes=60, microseconds=-1)
    assert not await report()
    service.clock.advance(microseconds=1)
    assert await report()
    [event] = await service.events()
    assert (event.type, event.occurred_at) == ("code.expired", code.expires_at)
    assert (event.data["code_id"], event.data["status"]) == (str(code.id), "expired")
    service.clock.advance(hours=-1)
    assert not await report()
    service.clock.advance(hours=1)
    assert not await report()
    await service.renew_code(ann.id, code.id, CodeRenewal(expiry=Expiry(lifetime_minutes=5)))
    assert await told(service) == ["code.renewed"]
    service.clock.advance(minutes=5)
    assert await report()
    assert await told(service) == ["code.expired"]


async def test_expiry_of_a_code_that_is_not_active_is_no_event(service: InMemoryService) -> None:
    """Inactive, exhausted, deleted, or renewed before it."""
    ann, exhausted = await user_with_code(service, minutes=60, max_uses=1)
    bob = await service.create_account("bob@example.com", referral_code="ANN")
    await service.create_code(ann, minutes=60, activate=False)
    deleted = await service.create_code(bob, minutes=60)
    await service.delete_code(bob.id, deleted.id)
    cem = await service.create_account("cem@example.com")
    renewed = await service.create_code(cem, minutes=60)
    renewal = CodeRenewal(expiry=Expiry(lifetime_minutes=90))
    await service.renew_code(cem.id, renewed.id, renewal)
    await service.events()
    service.clock.advance(minutes=60)
    assert await service.get(ReportExpiredCodes)()
    assert await told(service) == []
    service.clock.advance(minutes=30)
    await service.get(ReportExpiredCodes)()
    [event] = await service.events()
    assert event.data["code_id"] == str(renewed.id)
    await service.renew_code(ann.id, exhausted.id, CodeRenewal(unlimited=True))
    assert await told(service) == ["code.renewed"]


async def test_many_expiries_are_reported_in_batches(service: InMemoryService) -> None:
    """All in one call."""
    for number in range(250):
        user = await service.create_account(f"u{number}@example.com")
        await service.create_code(user, minutes=60)
    await service.events()
    service.clock.advance(minutes=60)
    assert await service.get(ReportExpiredCodes)()
    assert await told(service) == ["code.expired"] * 250


async def test_feed_is_listed_while_a_publisher_hangs(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New events are listed later; events that are published are listed now."""
    await service.create_account("ann@example.com")
    list_events = service.get(ListEvents)
    assert len(await list_events(None, after=0, limit=9)) == 1
    await service.create_account("bob@example.com")

    async def hang(*_: object, **__: object) -> list[Event]:
        raise Unavailable

    with monkeypatch.context() as patches:
        patches.setattr(FakeEventLog, "publish", hang)
        assert len(await list_events(["user.*"], after=0, limit=9)) == 1
    assert len(await list_events(["user.*"], after=0, limit=9)) == 2
