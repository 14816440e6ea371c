"""Exports of accounts."""

from dataclasses import replace
from datetime import datetime
from uuid import UUID

import pytest

from referral.core.entities.login_sessions import LOGIN_SESSION_LIFETIME, LoginSession
from referral.core.entities.referrals import Referral, ReferralListItem, ReferralStatus
from referral.core.entities.risk import UserNetwork
from referral.core.entities.users import Profile
from referral.core.errors import Unauthenticated
from referral.core.use_cases.exports import AccountExport, ExportAccount, RecordExport
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService
from tests.support.fakes.repositories import FakeReferralRepository

ANN = Profile(name="Ann Example", country="Finland")


def make_login_session(user_id: UUID, now: datetime) -> LoginSession:
    """Return a login session of a user."""
    return LoginSession(user_id.bytes * 2, user_id, now, now + LOGIN_SESSION_LIFETIME)


async def test_export_has_all_data_of_the_user(service: InMemoryService) -> None:
    """The account, its referrer, codes, referrals, sessions and profile, and nobody else's."""
    root = await service.create_account("root@example.com")
    root_code = await service.create_code(root)
    ann = await service.create_account("ann@example.com", referral_code=root_code.text)
    codes = [await service.create_code(ann, activate=False), await service.create_code(ann)]
    bob = await service.create_account("bob@example.com", referral_code=codes[1].text)
    await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    await service.log_in(bob.email, PASSWORD, CLIENT_IP)
    async with service.database.begin() as repositories:
        await repositories.profiles.save(ann.id, ANN, service.clock.now())
        referred_by = await repositories.referrals.find_by_referred(ann.id)
        [session] = await repositories.sessions.list_all(ann.id)
        login_session = make_login_session(ann.id, service.clock.now())
        await repositories.login_sessions.add(login_session)
        await repositories.login_sessions.add(make_login_session(bob.id, service.clock.now()))
    service.clock.advance(minutes=5)
    export = await service.get(ExportAccount)(ann.id)
    assert export == AccountExport(
        user=ann,
        referred_by=referred_by,
        codes=[replace(codes[1], uses=1), codes[0]],
        referrals=export.referrals,
        sessions=[session],
        login_sessions=[login_session],
        networks=[UserNetwork(session.created_at, None)],
        profile=ANN,
        as_of=service.clock.now(),
    )
    assert referred_by is not None
    assert [joined.email for joined in export.referrals] == ["bob@example.com"]


async def test_erased_account_has_no_export(service: InMemoryService) -> None:
    """A token that outlives its account gets `Unauthenticated`."""
    ann = await service.create_account("ann@example.com")
    await service.erase_account(ann.id, PASSWORD)
    with pytest.raises(Unauthenticated):
        await service.get(ExportAccount)(ann.id)


@pytest.mark.parametrize("count", [999, 1000, 2001])
async def test_export_has_all_referrals(
    service: InMemoryService, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """Each once, newest first; a query reads at most a thousand."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    ids = [UUID(int=number) for number in range(1, count + 1)]
    async with service.database.begin() as repositories:
        for each in ids:
            repositories.tables.users[each] = replace(ann, id=each, email_key=str(each))
            repositories.tables.referrals[each] = Referral(
                each, ann.id, each, code.id, "ANN", ReferralStatus.CONFIRMED, ann.created_at
            )
    read_page, limits = FakeReferralRepository.list_page, set()

    async def record_limit(
        repository: FakeReferralRepository,
        user_id: UUID,
        *,
        status: ReferralStatus | None,
        after: UUID | None,
        limit: int,
    ) -> list[ReferralListItem]:
        limits.add(limit)
        return await read_page(repository, user_id, status=status, after=after, limit=limit)

    monkeypatch.setattr(FakeReferralRepository, "list_page", record_limit)
    export = await service.get(ExportAccount)(ann.id)
    assert [joined.id for joined in export.referrals] == ids[::-1]
    assert limits == {1000}


async def test_export_of_everything_is_in_the_audit_log(service: InMemoryService) -> None:
    """Its start, and its end with the digest of the file, by which an import names it too."""
    record = service.get(RecordExport)
    await record()
    await record(b"digest")
    async with service.database.read() as repositories:
        audit = sorted(repositories.tables.audit.values(), key=lambda each: each.id)
    assert [(each.actor, each.action, each.subject) for each in audit] == [
        ("operator", "export.started", "all"),
        ("operator", "export.finished", b"digest".hex()),
    ]
