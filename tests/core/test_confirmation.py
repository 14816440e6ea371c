"""Who may confirm an address, what follows from it, and what ends without it, over fakes."""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest

from referral.core.entities.codes import CodeStatus, Expiry
from referral.core.entities.email_links import Purpose
from referral.core.entities.jobs import ReferralMail, WelcomeMail
from referral.core.entities.limits import LimitGroup
from referral.core.entities.referrals import (
    PENDING_PERIOD,
    REFERRED_AGAIN_AFTER,
    Referral,
    ReferralStatus,
)
from referral.core.entities.users import CONFIRMATION_PERIOD, User
from referral.core.errors import EmailTaken, TokenUnusable, TooManyRequests, WrongPassword
from referral.core.use_cases.codes import Renewal
from referral.core.use_cases.email_links import AskForConfirmation
from referral.core.use_cases.notifications import MailLimit
from referral.core.use_cases.referrals import ClaimReferrer
from referral.core.use_cases.retention import Prune
from tests.core.world import ADDRESS, PASSWORD, World

BOB = "bob@example.com"


class Mailroom(World):
    """A service that has addresses confirmed."""

    def __init__(self) -> None:
        super().__init__(verifies=True)

    async def by_password(self, token: str, password: str | None = PASSWORD) -> None:
        """Confirm with a password, not signed in."""
        await self.confirm_email(token, caller=None, password=password, address=ADDRESS)

    async def user(self, user: User) -> User | None:
        """Return the account as it is stored."""
        async with self.database.read() as records:
            return await records.users.get(user.id)

    async def referral(self, user: User) -> Referral:
        """Return the referral by which a user joined."""
        async with self.database.read() as records:
            found = await records.referrals.of(user.id)
        assert found is not None
        return found

    async def jobs(self, kind: type) -> int:
        """Return how many jobs of a kind were queued."""
        async with self.database.read() as records:
            return sum(isinstance(job, kind) for job in records.tables.jobs.values())

    async def store(self, user: User) -> None:
        """Store an account as it is to be."""
        async with self.database.begin() as records:
            await records.users.save(user)


async def shown(world: World, owner: User, code_id: UUID) -> tuple[int, CodeStatus]:
    """Return the uses and the status of a code."""
    async with world.database.read() as records:
        code = await records.codes.get(owner.id, code_id)
    assert code is not None
    return code.uses, code.status(world.clock.now())


@pytest.fixture
def mailroom() -> Mailroom:
    """A service that nobody has used yet."""
    return Mailroom()


async def is_verified(mailroom: Mailroom, user: User) -> bool:
    """Tell whether an account counts as confirmed."""
    stored = await mailroom.user(user)
    assert stored is not None
    return stored.email_verified


async def test_the_password_of_the_account_confirms(mailroom: Mailroom) -> None:
    """The account never runs out then, the user is greeted, and the link is used up."""
    bob = await mailroom.join(BOB)
    token = await mailroom.mail_token(bob)
    await mailroom.by_password(token)
    stored = await mailroom.user(bob)
    assert stored is not None
    assert (stored.email_verified, stored.confirm_by) == (True, None)
    assert await mailroom.jobs(WelcomeMail) == 1
    with pytest.raises(TokenUnusable):
        await mailroom.by_password(token)


async def test_an_own_bearer_confirms(mailroom: Mailroom) -> None:
    """Without a password, and whatever password is sent with it."""
    bob = await mailroom.join(BOB)
    token = await mailroom.mail_token(bob)
    await mailroom.confirm_email(token, caller=bob.id, password="wrong", address=ADDRESS)  # noqa: S106
    assert await is_verified(mailroom, bob)


@pytest.mark.parametrize("password", [None, "", "not the password", "x" * 2000])
async def test_nobody_else_confirms(mailroom: Mailroom, password: str | None) -> None:
    """Signed out or in as somebody else; the link is good for the right one afterwards."""
    bob, eve = await mailroom.join(BOB), await mailroom.join("eve@example.com")
    token = await mailroom.mail_token(bob)
    for caller in (None, eve.id):
        with pytest.raises(WrongPassword) as refused:
            await mailroom.confirm_email(token, caller=caller, password=password, address=ADDRESS)
        assert refused.value.field == "password"
    assert not await is_verified(mailroom, bob)
    await mailroom.by_password(token)
    assert await is_verified(mailroom, bob)


async def test_guesses_at_a_confirmation_are_limited(mailroom: Mailroom) -> None:
    """As log-ins are, and together with them."""
    bob = await mailroom.join(BOB)
    token = await mailroom.mail_token(bob)
    mailroom.limits.limits |= {
        LimitGroup.ATTEMPTS_ACCOUNT: 2,
        LimitGroup.ATTEMPTS_FIRST: 1,
    }
    for _ in range(2):
        with pytest.raises(WrongPassword):
            await mailroom.by_password(token, "not the password")
    with pytest.raises(TooManyRequests):
        await mailroom.by_password(token)


async def test_a_password_that_changes_meanwhile_confirms_nothing(mailroom: Mailroom) -> None:
    """The one that counts is that of the moment in which the address is confirmed."""
    bob = await mailroom.join(BOB)
    token = await mailroom.mail_token(bob)
    verify = mailroom.passwords.verify

    async def verify_slowly(password: str, hashed: str | None) -> bool:
        matches = await verify(password, hashed)
        mailroom.passwords.verify = verify  # type: ignore[method-assign]
        await mailroom.change_password(bob.id, None, PASSWORD, "another password")
        return matches

    mailroom.passwords.verify = verify_slowly  # type: ignore[method-assign]
    with pytest.raises(WrongPassword) as refused:
        await mailroom.by_password(token)
    assert refused.value.field == "password"
    assert not await is_verified(mailroom, bob)
    await mailroom.by_password(token, "another password")
    assert await is_verified(mailroom, bob)


async def test_a_reset_confirms(mailroom: Mailroom) -> None:
    """The mail was read: greeted, the referral counts, and no link confirms any more."""
    ann = await mailroom.join("ann@example.com")
    code = await mailroom.issue(ann)
    bob = await mailroom.join(BOB, referral_code=code.text)
    confirming, resetting = (
        await mailroom.mail_token(bob),
        await mailroom.mail_token(bob, Purpose.RESET),
    )
    await mailroom.reset_password(resetting, "another password")
    assert await is_verified(mailroom, bob)
    assert (await mailroom.referral(bob)).status is ReferralStatus.CONFIRMED
    assert (await mailroom.jobs(WelcomeMail), await mailroom.jobs(ReferralMail)) == (1, 1)
    with pytest.raises(TokenUnusable):
        await mailroom.disown_email(confirming)
    await mailroom.reset_password(await mailroom.mail_token(bob, Purpose.RESET), "a third password")
    assert await mailroom.jobs(WelcomeMail) == 1


async def test_a_disowned_account_is_gone(mailroom: Mailroom) -> None:
    """Its address is free, its referral rejected, and the code has its use back."""
    ann = await mailroom.join("ann@example.com")
    code = await mailroom.issue(ann, max_uses=1)
    bob = await mailroom.join(BOB, referral_code=code.text)
    assert await shown(mailroom, ann, code.id) == (1, CodeStatus.EXHAUSTED)
    mailroom.cache.cleared.clear()
    token = await mailroom.mail_token(bob)
    await mailroom.disown_email(token)
    assert await mailroom.user(bob) is None
    assert (await mailroom.referral(bob)).status is ReferralStatus.REJECTED
    assert await shown(mailroom, ann, code.id) == (0, CodeStatus.ACTIVE)
    assert mailroom.cache.cleared == [BOB, "ann@example.com"]
    with pytest.raises(TokenUnusable):
        await mailroom.disown_email(token)
    again = await mailroom.join(BOB, referral_code=code.text)
    assert (await mailroom.referral(again)).status is ReferralStatus.PENDING


async def test_a_confirmed_account_cannot_be_disowned(mailroom: Mailroom) -> None:
    """Nor by a link for a new password, nor a blocked one, whose address stays taken."""
    bob, eve = await mailroom.join(BOB), await mailroom.join("eve@example.com")
    confirming, other = await mailroom.mail_token(bob), await mailroom.mail_token(bob)
    resetting, of_blocked = (
        await mailroom.mail_token(bob, Purpose.RESET),
        await mailroom.mail_token(eve),
    )
    await mailroom.store(replace(eve, blocked_at=mailroom.clock.now()))
    await mailroom.by_password(confirming)
    for token in (other, resetting, of_blocked, "made up"):
        with pytest.raises(TokenUnusable):
            await mailroom.disown_email(token)
    assert await mailroom.user(bob) is not None
    with pytest.raises(EmailTaken):
        await mailroom.join("eve@example.com")


async def test_a_link_that_was_mailed_late_is_good_for_nothing(mailroom: Mailroom) -> None:
    """A mail that is written while the address is confirmed leaves one for a confirmed account."""
    bob = await mailroom.join(BOB)
    await mailroom.by_password(await mailroom.mail_token(bob))
    late = await mailroom.mail_token(bob)
    for follow in (mailroom.disown_email, mailroom.by_password):
        with pytest.raises(TokenUnusable):
            await follow(late)
    with pytest.raises(TokenUnusable):
        await mailroom.confirm_email.inspect(late, Purpose.CONFIRM)
    assert await mailroom.user(bob) is not None


async def test_disowning_frees_the_places_for_mails(mailroom: Mailroom) -> None:
    """The mails of whoever registered an address do not keep its owner's from arriving."""
    eve = await mailroom.join(BOB)
    ask = AskForConfirmation(
        mailroom.clock, mailroom.database, mailroom.ids, MailLimit(1, timedelta(hours=1))
    )
    await ask(eve.id)
    await mailroom.disown_email(await mailroom.mail_token(eve))
    owner = await mailroom.join(BOB)
    await ask(owner.id)
    with pytest.raises(TooManyRequests):
        await ask(owner.id)


async def test_an_account_has_its_whole_time_after_a_block(mailroom: Mailroom) -> None:
    """While it was blocked no link could confirm it."""
    bob = await mailroom.join(BOB)
    await mailroom.block_account(BOB)
    mailroom.clock.advance(days=CONFIRMATION_PERIOD.days)
    await mailroom.block_account(BOB, undo=True)
    await mailroom.expire_unconfirmed()
    assert await mailroom.user(bob) is not None
    mailroom.clock.advance(days=CONFIRMATION_PERIOD.days)
    await mailroom.expire_unconfirmed()
    assert await mailroom.user(bob) is None


async def test_a_blocked_account_confirms_nothing(mailroom: Mailroom) -> None:
    """Neither by its password nor by a new one."""
    bob = await mailroom.join(BOB)
    token, resetting = (
        await mailroom.mail_token(bob),
        await mailroom.mail_token(bob, Purpose.RESET),
    )
    await mailroom.store(replace(bob, blocked_at=mailroom.clock.now()))
    with pytest.raises(TokenUnusable):
        await mailroom.by_password(token)
    with pytest.raises(TokenUnusable):
        await mailroom.reset_password(resetting, "another password")
    assert not await is_verified(mailroom, bob)


async def test_an_account_that_is_not_confirmed_in_time_is_erased(mailroom: Mailroom) -> None:
    """After 30 days and not before; its code has the use back."""
    ann = await mailroom.join("ann@example.com")
    code = await mailroom.issue(ann, max_uses=1)
    bob = await mailroom.join(BOB, referral_code=code.text)
    await mailroom.by_password(await mailroom.mail_token(ann))
    mailroom.clock.advance(days=CONFIRMATION_PERIOD.days, microseconds=-1)
    await mailroom.expire_unconfirmed()
    assert await mailroom.user(bob) is not None
    mailroom.clock.advance(microseconds=1)
    await mailroom.expire_unconfirmed()
    assert await mailroom.user(bob) is None
    assert await mailroom.user(ann) is not None
    assert (await shown(mailroom, ann, code.id))[0] == 0


async def test_no_account_is_erased_where_none_has_to_be_confirmed(mailroom: Mailroom) -> None:
    """Nor once it has to be again: whoever registered meanwhile could not know."""
    world = World()
    ann = await world.join("ann@example.com")
    assert ann.confirm_by is None
    bob = await mailroom.join(BOB)
    required, waived = (
        mailroom.expire_unconfirmed,
        replace(mailroom.expire_unconfirmed, verification=world.verification),
    )
    mailroom.clock.advance(days=CONFIRMATION_PERIOD.days)
    await waived()
    await required()
    assert await mailroom.user(bob) is not None


async def test_a_blocked_account_is_not_erased(mailroom: Mailroom) -> None:
    """Its address would be free."""
    bob = await mailroom.join(BOB)
    await mailroom.store(replace(bob, blocked_at=mailroom.clock.now()))
    mailroom.clock.advance(days=CONFIRMATION_PERIOD.days)
    await mailroom.expire_unconfirmed()
    assert await mailroom.user(bob) is not None


async def test_a_referral_that_is_pending_for_long_is_rejected(mailroom: Mailroom) -> None:
    """After seven days and not before; the code is active again, and look-ups are invalidated."""
    ann = await mailroom.join("ann@example.com")
    code = await mailroom.issue(ann, max_uses=1)
    bob = await mailroom.join(BOB, referral_code=code.text)
    await mailroom.renew_code(ann.id, code.id, Renewal(Expiry(minutes=20_000)))
    mailroom.clock.advance(days=PENDING_PERIOD.days, microseconds=-1)
    mailroom.cache.cleared.clear()
    await mailroom.expire_unconfirmed()
    assert (await mailroom.referral(bob)).status is ReferralStatus.PENDING
    mailroom.clock.advance(microseconds=1)
    await mailroom.expire_unconfirmed()
    assert (await mailroom.referral(bob)).status is ReferralStatus.REJECTED
    assert await shown(mailroom, ann, code.id) == (0, CodeStatus.ACTIVE)
    assert (await mailroom.show_account(ann.id)).referral_count == 0
    assert mailroom.cache.cleared == ["ann@example.com"]
    await mailroom.by_password(await mailroom.mail_token(bob))
    assert (await mailroom.referral(bob)).status is ReferralStatus.REJECTED


async def test_who_confirms_too_late_is_rejected_at_once(mailroom: Mailroom) -> None:
    """The status does not wait for the job that rejects what is overdue."""
    ann = await mailroom.join("ann@example.com")
    code = await mailroom.issue(ann)
    bob = await mailroom.join(BOB, referral_code=code.text)
    mailroom.clock.advance(days=PENDING_PERIOD.days)
    await mailroom.by_password(await mailroom.mail_token(bob))
    assert (await mailroom.referral(bob)).status is ReferralStatus.REJECTED
    assert (await mailroom.show_account(ann.id)).referral_count == 0
    assert await mailroom.jobs(ReferralMail) == 0


async def test_an_address_is_referred_once_a_year(mailroom: Mailroom) -> None:
    """Erased in between: the account is made, its referral rejected, and no use is counted."""
    ann = await mailroom.join("ann@example.com")
    code = await mailroom.issue(ann, minutes=525_600)
    bob = await mailroom.join(BOB, referral_code=code.text)
    await mailroom.by_password(await mailroom.mail_token(bob))
    await mailroom.erase_account(bob.id, PASSWORD)
    mailroom.clock.advance(days=REFERRED_AGAIN_AFTER.days, microseconds=-1)
    again = await mailroom.join(BOB.upper())
    claim = ClaimReferrer(
        mailroom.register.clear,
        mailroom.clock,
        mailroom.register.credit,
        mailroom.database,
    )
    await claim(again.id, code.text)
    assert (await mailroom.referral(again)).status is ReferralStatus.REJECTED
    assert (await shown(mailroom, ann, code.id))[0] == 1
    await mailroom.by_password(await mailroom.mail_token(again))
    assert (await mailroom.referral(again)).status is ReferralStatus.REJECTED
    assert await mailroom.jobs(ReferralMail) == 1


async def test_after_a_year_an_address_is_referred_again(mailroom: Mailroom) -> None:
    """A rejected registration in between does not begin the year anew."""
    ann = await mailroom.join("ann@example.com")
    await mailroom.store(replace(ann, email_verified=True, confirm_by=None))
    code = await mailroom.issue(ann, minutes=525_600)
    bob = await mailroom.join(BOB, referral_code=code.text)
    await mailroom.by_password(await mailroom.mail_token(bob))
    await mailroom.erase_account(bob.id, PASSWORD)
    await mailroom.erase_account((await mailroom.join(BOB, referral_code=code.text)).id, PASSWORD)
    mailroom.clock.advance(days=REFERRED_AGAIN_AFTER.days)
    await Prune(mailroom.clock, mailroom.database)()
    other = await mailroom.issue(ann)
    last = await mailroom.join(BOB, referral_code=other.text)
    assert (await mailroom.referral(last)).status is ReferralStatus.PENDING


async def test_who_was_never_confirmed_may_be_referred_again(mailroom: Mailroom) -> None:
    """Otherwise a stranger could spend the one referral of any address."""
    ann = await mailroom.join("ann@example.com")
    code = await mailroom.issue(ann)
    await mailroom.erase_account((await mailroom.join(BOB, referral_code=code.text)).id, PASSWORD)
    again = await mailroom.join(BOB, referral_code=code.text)
    assert (await mailroom.referral(again)).status is ReferralStatus.PENDING
    assert (await shown(mailroom, ann, code.id))[0] == 1
