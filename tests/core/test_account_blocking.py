"""A blocked account can do nothing, and its codes cannot be used."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import pytest

from referral.core.entities.codes import Code, Expiry
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.referrals import ReferralVisibility
from referral.core.entities.users import User
from referral.core.errors import (
    AccountBlocked,
    EmailTaken,
    InvalidGrant,
    NoActiveCode,
    NotFound,
    ReferralCodeUnusable,
    TokenUnusable,
)
from referral.core.policies.reauthentication import Reauthenticate
from referral.core.use_cases.accounts import AccountUpdate, UpdateAccount
from referral.core.use_cases.codes import CodeRenewal
from referral.core.use_cases.email_links import RequestConfirmationMail
from referral.core.use_cases.notifications import RequestCodeMail
from referral.core.use_cases.referrals import ListReferrals, SetReferrer
from tests.core.service import (
    CLIENT_IP,
    PASSWORD,
    InMemoryService,
    user_caller,
)
from tests.core.test_authorization import begin_session

NEW_PASSWORD = "staple battery horse"


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """A user."""
    return await service.create_account("Ann@example.com")


@pytest.fixture
async def code(service: InMemoryService, ann: User) -> Code:
    """A code of Ann's."""
    return await service.create_code(ann, text="Ann-2026")


async def test_code_of_a_blocked_user_is_not_found(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """Neither by e-mail address, though cached, nor by its text; unblocking reverts this."""
    assert await service.look_up_code("ann@example.com") == code
    await service.block_account("ann@example.com")
    with pytest.raises(NoActiveCode) as raised:
        await service.look_up_code("ann@example.com")
    assert raised.value.detail == NoActiveCode.default_detail
    assert await service.check_code("Ann-2026") is None
    await service.block_account("ann@example.com", undo=True)
    assert await service.look_up_code("ann@example.com") == code
    assert await service.check_code("Ann-2026") == code
    assert service.cache.invalidated.count(ann.email_key) >= 3


async def test_code_of_a_blocked_user_cannot_be_used(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """Neither at registration, which then creates no account, nor to set a referrer later."""
    bob = await service.create_account("bob@example.com")
    set_referrer = service.get(SetReferrer)
    await service.block_account("ann@example.com")
    with pytest.raises(ReferralCodeUnusable) as raised:
        await service.create_account("cleo@example.com", referral_code=code.text)
    assert raised.value.field == "referral_code"
    with pytest.raises(ReferralCodeUnusable):
        await set_referrer(bob.id, code.text)
    assert (await service.show_account(ann.id)).referral_count == 0
    assert (await service.create_account("cleo@example.com")).id != ann.id


async def test_blocked_user_cannot_delete_the_account_or_change_the_password(
    service: InMemoryService, ann: User
) -> None:
    """The password is not verified, and the e-mail address stays taken."""
    await service.block_account("ann@example.com")
    for operation in password_operations(service, ann):
        with pytest.raises(AccountBlocked):
            await operation()
    assert service.password_hasher.verified_hashes == []
    with pytest.raises(EmailTaken):
        await service.create_account("ANN@example.com")


async def test_block_after_reauthentication_still_applies(
    service: InMemoryService, ann: User
) -> None:
    """The locked row decides, not the check before the password was hashed."""

    class BlockingReauthenticate(Reauthenticate):
        """Blocks the account right after the password was verified."""

        async def __call__(self, user_id: UUID, password: str, field: str) -> User:
            user = await super().__call__(user_id, password, field)
            await service.block_account("ann@example.com")
            return user

    service.override(
        Reauthenticate, BlockingReauthenticate(service.database, service.password_hasher)
    )
    for operation in password_operations(service, ann):
        await service.block_account("ann@example.com", undo=True)
        with pytest.raises(AccountBlocked):
            await operation()
    await service.block_account("ann@example.com", undo=True)
    assert await service.log_in("ann@example.com", PASSWORD, CLIENT_IP)


def password_operations(
    service: InMemoryService, user: User
) -> list[Callable[[], Awaitable[None]]]:
    """Return the operations that need the current password."""
    return [
        lambda: service.erase_account(user.id, PASSWORD),
        lambda: service.change_password(user.id, None, PASSWORD, NEW_PASSWORD),
    ]


async def test_blocked_user_cannot_write(service: InMemoryService, ann: User, code: Code) -> None:
    """A still valid access token neither writes nor sends mails."""
    await service.block_account("ann@example.com")
    set_referrer = service.get(SetReferrer)
    request_code_mail, request_confirmation = (
        service.get(RequestCodeMail),
        service.get(RequestConfirmationMail),
    )
    operations: list[Callable[[], Awaitable[object]]] = [
        lambda: service.create_code(ann, replace=True),
        lambda: service.renew_code(ann.id, code.id, CodeRenewal(Expiry(lifetime_minutes=9))),
        lambda: service.activate_code(ann.id, code.id),
        lambda: service.deactivate_code(ann.id, code.id),
        lambda: service.delete_code(ann.id, code.id),
        lambda: service.get(UpdateAccount)(ann.id, AccountUpdate(None, notify_on_referral=False)),
        lambda: set_referrer(ann.id, "ANY-CODE"),
        lambda: request_code_mail(ann.id),
        lambda: request_confirmation(ann.id),
    ]
    for operation in operations:
        with pytest.raises(AccountBlocked):
            await operation()
    account = await service.show_account(ann.id)
    assert account.active_code == code
    assert replace(account.user, blocked_at=None) == ann


@pytest.mark.parametrize("purpose", TokenPurpose)
async def test_email_links_of_a_blocked_user_are_suspended(
    service: InMemoryService, ann: User, purpose: TokenPurpose
) -> None:
    """They are rejected during the block, and are not used up."""
    token = await service.create_mail_token(ann, purpose)

    async def follow_link() -> None:
        if purpose is TokenPurpose.RESET:
            await service.reset_password(token, NEW_PASSWORD)
        else:
            await service.confirm_email(token, caller_id=ann.id, password=None, client_ip=CLIENT_IP)

    await service.block_account("ann@example.com")
    with pytest.raises(TokenUnusable):
        await follow_link()
    await service.block_account("ann@example.com", undo=True)
    await follow_link()


async def test_block_ends_all_sessions(service: InMemoryService, ann: User) -> None:
    """Existing sessions end permanently, and no login succeeds during the block."""
    tokens = await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    await service.block_account("ann@example.com")
    with pytest.raises(InvalidGrant):
        await service.log_in(ann.email, PASSWORD, CLIENT_IP)
    await service.block_account("ann@example.com", undo=True)
    with pytest.raises(InvalidGrant):
        await service.refresh(tokens.refresh_token)


async def test_blocked_admin_loses_admin_rights(service: InMemoryService, ann: User) -> None:
    """The role grants nothing during the block."""
    root = await service.create_admin("root@example.com")
    admin = user_caller(root, await begin_session(service, root))
    service.configure(referrals_visibility=ReferralVisibility.OWNER)
    list_referrals = service.get(ListReferrals)
    await list_referrals(admin, ann.id, status=None, after=None, limit=1)
    await service.block_account("root@example.com")
    with pytest.raises(NotFound):
        await list_referrals(admin, ann.id, status=None, after=None, limit=1)
