"""E-mail confirmation: permissions, effects, and the expiry of unconfirmed accounts."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.codes import CodeStatus, Expiry
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.jobs import ReferralMailJob, WelcomeMailJob
from referral.core.entities.rate_limits import Rate, RateLimitGroup
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.users import User
from referral.core.errors import EmailTaken, TokenUnusable, TooManyRequests, WrongPassword
from referral.core.use_cases.codes import CodeRenewal
from referral.core.use_cases.email_links import InspectLink, RequestConfirmationMail
from referral.core.use_cases.referrals import SetReferrer
from referral.core.use_cases.retention import Prune
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService
from tests.support.fakes.repositories import FakeUserRepository

BOB = "bob@example.com"


class ConfirmingService(InMemoryService):
    """A service with e-mail verification on."""

    def __init__(self) -> None:
        super().__init__(email_verification="on")

    async def confirm_by_password(self, token: str, password: str | None = PASSWORD) -> None:
        """Confirm with a password and without an access token."""
        await self.confirm_email(token, caller_id=None, password=password, client_ip=CLIENT_IP)

    async def find_user(self, user: User) -> User | None:
        """Return the stored account."""
        async with self.database.read() as repositories:
            return await repositories.users.find(user.id)

    async def referral_of(self, user: User) -> Referral:
        """Return the referral of a referred user."""
        async with self.database.read() as repositories:
            found = await repositories.referrals.find_by_referred(user.id)
        assert found is not None
        return found

    async def count_jobs(self, job_type: type) -> int:
        """Return the number of queued jobs of a type."""
        async with self.database.read() as repositories:
            return sum(isinstance(job, job_type) for job in repositories.tables.jobs.values())

    async def save_user(self, user: User) -> None:
        """Save an account."""
        async with self.database.begin() as repositories:
            await repositories.users.save(user)


async def uses_and_status(
    service: InMemoryService, owner: User, code_id: UUID
) -> tuple[int, CodeStatus]:
    """Return the uses and the status of a code."""
    async with service.database.read() as repositories:
        code = await repositories.codes.find(owner.id, code_id)
    assert code is not None
    return code.uses, code.status(service.clock.now())


@pytest.fixture
def service() -> ConfirmingService:
    """A new service."""
    return ConfirmingService()


async def is_verified(service: ConfirmingService, user: User) -> bool:
    """Return whether the e-mail address of an account is confirmed."""
    stored = await service.find_user(user)
    assert stored is not None
    return stored.email_verified


async def test_account_password_confirms_the_email(service: ConfirmingService) -> None:
    """The confirmation deadline is removed, the welcome mail is queued, and the link is used up."""
    bob = await service.create_account(BOB)
    token = await service.create_mail_token(bob)
    await service.confirm_by_password(token)
    stored = await service.find_user(bob)
    assert stored is not None
    assert (stored.email_verified, stored.confirm_by) == (True, None)
    assert await service.count_jobs(WelcomeMailJob) == 1
    with pytest.raises(TokenUnusable):
        await service.confirm_by_password(token)


async def test_own_access_token_confirms_the_email(service: ConfirmingService) -> None:
    """No password is needed, and a wrong one is ignored."""
    bob = await service.create_account(BOB)
    token = await service.create_mail_token(bob)
    await service.confirm_email(token, caller_id=bob.id, password="wrong", client_ip=CLIENT_IP)  # noqa: S106
    assert await is_verified(service, bob)


@pytest.mark.parametrize("password", [None, "", "not the password", "x" * 2000])
async def test_others_cannot_confirm_the_email(
    service: ConfirmingService, password: str | None
) -> None:
    """Anonymous callers and other users are rejected; the link stays valid for its owner."""
    bob, eve = await service.create_account(BOB), await service.create_account("eve@example.com")
    token = await service.create_mail_token(bob)
    for caller in (None, eve.id):
        with pytest.raises(WrongPassword) as raised:
            await service.confirm_email(
                token, caller_id=caller, password=password, client_ip=CLIENT_IP
            )
        assert raised.value.field == "password"
        if password is None:
            detail = "Send the password of this account, or log in to it first."
            assert raised.value.detail == detail
    assert not await is_verified(service, bob)
    await service.confirm_by_password(token)
    assert await is_verified(service, bob)


async def test_confirmation_passwords_are_throttled(service: ConfirmingService) -> None:
    """They share the limits of logins: by account, with one attempt for another client IP."""
    bob = await service.create_account(BOB)
    token = await service.create_mail_token(bob)
    service.limits.limits |= {
        RateLimitGroup.LOGIN_ACCOUNT: 2,
        RateLimitGroup.LOGIN_CLIENT_IP: 1,
    }
    for _ in range(2):
        with pytest.raises(WrongPassword):
            await service.confirm_by_password(token, "not the password")
    with pytest.raises(TooManyRequests):
        await service.confirm_by_password(token)
    eve = await service.create_account("eve@example.com")
    eve_token = await service.create_mail_token(eve)
    await service.confirm_by_password(eve_token)
    await service.confirm_email(token, caller_id=None, password=PASSWORD, client_ip="192.0.2.2")


async def test_password_changed_during_confirmation_is_rejected(
    service: ConfirmingService,
) -> None:
    """The password hash is compared again when the e-mail address is confirmed."""
    bob = await service.create_account(BOB)
    token = await service.create_mail_token(bob)
    verify = service.password_hasher.verify

    async def verify_slowly(
        password: str, password_hash: str | None, costliest_hash: str | None = None
    ) -> bool:
        matches = await verify(password, password_hash, costliest_hash)
        service.password_hasher.verify = verify  # type: ignore[method-assign]
        await service.change_password(bob.id, None, PASSWORD, "another password")
        return matches

    service.password_hasher.verify = verify_slowly  # type: ignore[method-assign]
    with pytest.raises(WrongPassword) as raised:
        await service.confirm_by_password(token)
    assert raised.value.field == "password"
    assert not await is_verified(service, bob)
    await service.confirm_by_password(token, "another password")
    assert await is_verified(service, bob)


async def test_password_reset_confirms_the_email(service: ConfirmingService) -> None:
    """The welcome mail is queued, the referral is confirmed, and confirmation links are used up."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    bob = await service.create_account(BOB, referral_code=code.text)
    confirm_token, reset_token = (
        await service.create_mail_token(bob),
        await service.create_mail_token(bob, TokenPurpose.RESET),
    )
    await service.reset_password(reset_token, "another password")
    assert await is_verified(service, bob)
    assert (await service.referral_of(bob)).status is ReferralStatus.CONFIRMED
    assert (
        await service.count_jobs(WelcomeMailJob),
        await service.count_jobs(ReferralMailJob),
    ) == (1, 1)
    with pytest.raises(TokenUnusable):
        await service.disown_email(confirm_token)
    await service.reset_password(
        await service.create_mail_token(bob, TokenPurpose.RESET), "a third password"
    )
    assert await service.count_jobs(WelcomeMailJob) == 1


async def test_disowned_account_is_deleted(service: ConfirmingService) -> None:
    """Its e-mail address is free, its referral is rejected, and the use of the code is returned."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, max_uses=1)
    bob = await service.create_account(BOB, referral_code=code.text)
    assert await uses_and_status(service, ann, code.id) == (1, CodeStatus.EXHAUSTED)
    service.cache.invalidated.clear()
    token = await service.create_mail_token(bob)
    await service.disown_email(token)
    assert await service.find_user(bob) is None
    assert (await service.referral_of(bob)).status is ReferralStatus.REJECTED
    assert await uses_and_status(service, ann, code.id) == (0, CodeStatus.ACTIVE)
    assert service.cache.invalidated == [BOB, "ann@example.com"]
    with pytest.raises(TokenUnusable):
        await service.disown_email(token)
    recreated = await service.create_account(BOB, referral_code=code.text)
    assert (await service.referral_of(recreated)).status is ReferralStatus.PENDING


async def test_a_confirmed_account_cannot_be_disowned(service: ConfirmingService) -> None:
    """Neither can a blocked one, nor with a password reset link."""
    bob, eve = await service.create_account(BOB), await service.create_account("eve@example.com")
    confirm_token, other = (
        await service.create_mail_token(bob),
        await service.create_mail_token(bob),
    )
    reset_token, blocked_token = (
        await service.create_mail_token(bob, TokenPurpose.RESET),
        await service.create_mail_token(eve),
    )
    await service.save_user(replace(eve, blocked_at=service.clock.now()))
    await service.confirm_by_password(confirm_token)
    for token in (other, reset_token, blocked_token, "made up"):
        with pytest.raises(TokenUnusable):
            await service.disown_email(token)
    assert await service.find_user(bob) is not None
    with pytest.raises(EmailTaken):
        await service.create_account("eve@example.com")


async def test_confirmation_link_for_a_confirmed_account_is_unusable(
    service: ConfirmingService,
) -> None:
    """A mail that is written while the address is confirmed carries such a link."""
    bob = await service.create_account(BOB)
    await service.confirm_by_password(await service.create_mail_token(bob))
    late_token = await service.create_mail_token(bob)
    for follow in (service.disown_email, service.confirm_by_password):
        with pytest.raises(TokenUnusable):
            await follow(late_token)
    with pytest.raises(TokenUnusable):
        await service.get(InspectLink)(late_token, TokenPurpose.CONFIRM)
    assert await service.find_user(bob) is not None


async def test_disowning_resets_the_mail_quota(service: ConfirmingService) -> None:
    """Mails to a fraudulent account do not use up the quota of the address's real owner."""
    eve = await service.create_account(BOB)
    service.configure(limit_mail=Rate(1, timedelta(hours=1)))
    request_confirmation = service.get(RequestConfirmationMail)
    await request_confirmation(eve.id)
    await service.disown_email(await service.create_mail_token(eve))
    owner = await service.create_account(BOB)
    await request_confirmation(owner.id)
    with pytest.raises(TooManyRequests):
        await request_confirmation(owner.id)


async def test_unblocking_restarts_the_confirmation_period(service: ConfirmingService) -> None:
    """No link could confirm the account during the block."""
    bob = await service.create_account(BOB)
    await service.block_account(BOB)
    service.clock.advance(days=30)
    await service.block_account(BOB, undo=True)
    await service.expire_unconfirmed()
    assert await service.find_user(bob) is not None
    service.clock.advance(days=30)
    await service.expire_unconfirmed()
    assert await service.find_user(bob) is None


async def test_blocked_account_cannot_be_confirmed(service: ConfirmingService) -> None:
    """Neither with the password nor by a password reset."""
    bob = await service.create_account(BOB)
    token, reset_token = (
        await service.create_mail_token(bob),
        await service.create_mail_token(bob, TokenPurpose.RESET),
    )
    await service.save_user(replace(bob, blocked_at=service.clock.now()))
    with pytest.raises(TokenUnusable):
        await service.confirm_by_password(token)
    with pytest.raises(TokenUnusable):
        await service.reset_password(reset_token, "another password")
    assert not await is_verified(service, bob)


async def test_unconfirmed_account_is_erased_after_its_deadline(
    service: ConfirmingService,
) -> None:
    """After 30 days and not before; the use of the code is returned."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, max_uses=1)
    bob = await service.create_account(BOB, referral_code=code.text)
    await service.confirm_by_password(await service.create_mail_token(ann))
    service.clock.advance(days=30, microseconds=-1)
    await service.expire_unconfirmed()
    assert await service.find_user(bob) is not None
    service.clock.advance(microseconds=1)
    await service.expire_unconfirmed()
    assert await service.find_user(bob) is None
    assert await service.find_user(ann) is not None
    assert (await uses_and_status(service, ann, code.id))[0] == 0


async def test_no_account_is_erased_without_email_verification(
    service: ConfirmingService,
) -> None:
    """Accounts from that time are kept after verification is switched on again."""
    without_verification = InMemoryService()
    ann = await without_verification.create_account("ann@example.com")
    assert ann.confirm_by is None
    bob = await service.create_account(BOB)
    service.clock.advance(days=30)
    for setting in ("off", "on"):
        service.configure(email_verification=setting)
        await service.expire_unconfirmed()
    assert await service.find_user(bob) is not None


async def test_blocked_account_is_not_erased(service: ConfirmingService) -> None:
    """Erasure would free its e-mail address."""
    bob = await service.create_account(BOB)
    await service.save_user(replace(bob, blocked_at=service.clock.now()))
    service.clock.advance(days=30)
    await service.expire_unconfirmed()
    assert await service.find_user(bob) is not None


async def test_overdue_pending_referral_is_rejected(service: ConfirmingService) -> None:
    """After seven days and not before; the code is active again, and its look-up is invalidated."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, max_uses=1)
    bob = await service.create_account(BOB, referral_code=code.text)
    await service.renew_code(ann.id, code.id, CodeRenewal(Expiry(lifetime_minutes=20_000)))
    service.clock.advance(days=7, microseconds=-1)
    service.cache.invalidated.clear()
    await service.expire_unconfirmed()
    assert (await service.referral_of(bob)).status is ReferralStatus.PENDING
    service.clock.advance(microseconds=1)
    await service.expire_unconfirmed()
    assert (await service.referral_of(bob)).status is ReferralStatus.REJECTED
    assert await uses_and_status(service, ann, code.id) == (0, CodeStatus.ACTIVE)
    assert (await service.show_account(ann.id)).referral_count == 0
    assert service.cache.invalidated == ["ann@example.com"]
    await service.confirm_by_password(await service.create_mail_token(bob))
    assert (await service.referral_of(bob)).status is ReferralStatus.REJECTED


async def test_late_confirmation_rejects_the_referral_at_once(service: ConfirmingService) -> None:
    """The status does not wait for the retention job."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    bob = await service.create_account(BOB, referral_code=code.text)
    service.clock.advance(days=7)
    await service.confirm_by_password(await service.create_mail_token(bob))
    assert (await service.referral_of(bob)).status is ReferralStatus.REJECTED
    assert (await service.show_account(ann.id)).referral_count == 0
    assert await service.count_jobs(ReferralMailJob) == 0


async def test_email_is_referred_at_most_once_a_year(service: ConfirmingService) -> None:
    """A new account after an erasure gets a rejected referral, which counts no use."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann, minutes=525_600)
    bob = await service.create_account(BOB, referral_code=code.text)
    await service.confirm_by_password(await service.create_mail_token(bob))
    await service.erase_account(bob.id, PASSWORD)
    service.clock.advance(days=365, microseconds=-1)
    recreated = await service.create_account(BOB.upper())
    set_referrer = service.get(SetReferrer)
    await set_referrer(recreated.id, code.text)
    assert (await service.referral_of(recreated)).status is ReferralStatus.REJECTED
    assert (await uses_and_status(service, ann, code.id))[0] == 1
    await service.confirm_by_password(await service.create_mail_token(recreated))
    assert (await service.referral_of(recreated)).status is ReferralStatus.REJECTED
    assert await service.count_jobs(ReferralMailJob) == 1


async def test_email_can_be_referred_again_after_a_year(service: ConfirmingService) -> None:
    """A rejected registration in between does not restart the year."""
    ann = await service.create_account("ann@example.com")
    await service.save_user(replace(ann, email_verified=True, confirm_by=None))
    code = await service.create_code(ann, minutes=525_600)
    bob = await service.create_account(BOB, referral_code=code.text)
    await service.confirm_by_password(await service.create_mail_token(bob))
    await service.erase_account(bob.id, PASSWORD)
    await service.erase_account(
        (await service.create_account(BOB, referral_code=code.text)).id, PASSWORD
    )
    service.clock.advance(days=365)
    await service.get(Prune)()
    other = await service.create_code(ann)
    last = await service.create_account(BOB, referral_code=other.text)
    assert (await service.referral_of(last)).status is ReferralStatus.PENDING


async def test_unconfirmed_email_can_be_referred_again(service: ConfirmingService) -> None:
    """Otherwise a stranger could use up the one referral of any address."""
    ann = await service.create_account("ann@example.com")
    code = await service.create_code(ann)
    await service.erase_account(
        (await service.create_account(BOB, referral_code=code.text)).id, PASSWORD
    )
    recreated = await service.create_account(BOB, referral_code=code.text)
    assert (await service.referral_of(recreated)).status is ReferralStatus.PENDING
    assert (await uses_and_status(service, ann, code.id))[0] == 1


async def test_confirmation_notifies_the_referrer_of_that_referral(
    service: ConfirmingService,
) -> None:
    """The mail waits for the confirmation, and names the confirmed referral."""
    code = await service.create_code(await service.create_account("ann@example.com"))
    bob = await service.create_account(BOB, referral_code=code.text)
    assert await service.count_jobs(ReferralMailJob) == 0
    await service.confirm_by_password(await service.create_mail_token(bob))
    *_, job = await service.jobs()
    assert job == ReferralMailJob((await service.referral_of(bob)).id)


async def test_confirmation_uses_up_the_confirmation_links_of_one_user(
    service: ConfirmingService,
) -> None:
    """By a link or by a reset; reset links that were not used stay valid, and others' links."""
    eve = await service.create_account("eve@example.com")
    for name, purpose in (("bob", TokenPurpose.CONFIRM), ("cid", TokenPurpose.RESET)):
        user = await service.create_account(f"{name}@example.com")
        for each in (user, eve):
            await service.create_mail_token(each)
        token = await service.create_mail_token(user, purpose)
        if purpose is TokenPurpose.CONFIRM:
            await service.create_mail_token(user, TokenPurpose.RESET)
            await service.confirm_by_password(token)
        else:
            await service.reset_password(token, "another password")
        async with service.database.read() as repositories:
            tokens = list(repositories.tables.one_time_tokens.values())
        left = [row.purpose for row in tokens if row.user_id == user.id]
        assert left == ([TokenPurpose.RESET] if purpose is TokenPurpose.CONFIRM else [])
        assert {row.user_id for row in tokens} >= {eve.id}


async def test_unusable_links_name_the_field(
    service: ConfirmingService, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown one, that of a confirmed user, and one that another request uses meanwhile."""
    bob, eve = await service.create_account(BOB), await service.create_account("eve@example.com")
    late, used = await service.create_mail_token(bob), await service.create_mail_token(eve)
    await service.save_user(replace(bob, email_verified=True))
    lock = FakeUserRepository.lock

    async def lock_after_use(users: FakeUserRepository, user_id: UUID) -> User | None:
        users.tables.one_time_tokens.clear()
        return await lock(users, user_id)

    monkeypatch.setattr(FakeUserRepository, "lock", lock_after_use)
    for token in ("unknown", late, used):
        with pytest.raises(TokenUnusable) as raised:
            await service.disown_email(token)
        assert raised.value.field == "token"
    assert await service.find_user(eve) == eve
