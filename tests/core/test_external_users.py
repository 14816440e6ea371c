"""Users of a product, which creates and changes them by its own ids."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from uuid import UUID

import pytest

from referral.core.entities.account_view import UserDetails
from referral.core.entities.audit import OPERATOR, AuditAction
from referral.core.entities.authorization_codes import AuthorizationRequest, make_code_challenge
from referral.core.entities.clients import Caller, Scope
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.external_ids import is_external_id
from referral.core.entities.jobs import ConfirmationMailJob, EnrichProfileJob
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.users import NO_PASSWORD, Locale, Role, User
from referral.core.errors import (
    AccountBlocked,
    EmailTaken,
    InsufficientScope,
    InvalidGrant,
    InvalidRequest,
    NotFound,
    ReferralCodeUnusable,
    TokenUnusable,
    WrongPassword,
)
from referral.core.ports.third_parties import Enrichment
from referral.core.use_cases.authorization_codes import IssueAuthorizationCode
from referral.core.use_cases.clients import CreatePublicClient
from referral.core.use_cases.external_users import ExternalUserData, PutExternalUser
from referral.core.use_cases.login_sessions import BeginLoginSession
from referral.core.use_cases.users import EraseUser, ShowUser
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService, client_caller
from tests.support.fakes.third_parties import FakeEnrichment

SHOP = client_caller(Scope.USERS_WRITE)


class ShopService(InMemoryService):
    """A service that requires confirmed addresses, with a product's shortcuts."""

    async def put(
        self, external_id: str, email: str, *, caller: Caller = SHOP, **rest: object
    ) -> tuple[User, bool]:
        """Put a user; return it and whether it is new."""
        data = ExternalUserData(email, **rest)  # type: ignore[arg-type]
        details, is_new = await self.get(PutExternalUser)(caller, external_id, data)
        return details.user, is_new

    async def find(self, user_id: UUID) -> UserDetails | None:
        """Return the user, or None."""
        try:
            return await self.get(ShowUser)(user_id)
        except NotFound:
            return None

    async def confirmed(self, email: str) -> User:
        """Register a user and confirm the address."""
        user = await self.create_account(email)
        token = await self.create_mail_token(user)
        await self.confirm_email(token, caller_id=user.id, password=None, client_ip=CLIENT_IP)
        return user


@pytest.fixture
def shop() -> ShopService:
    """A new service."""
    return ShopService(email_verification="on")


async def test_new_user_has_no_password_and_no_deadline(shop: ShopService) -> None:
    """The address is unconfirmed, and a confirmation mail goes out."""
    ann, is_new = await shop.put("7", "ann@example.com", locale=Locale.RU)
    assert is_new
    assert (ann.external_id, ann.email, ann.locale) == ("7", "ann@example.com", Locale.RU)
    assert (ann.password_hash, ann.email_verified, ann.confirm_by) == (NO_PASSWORD, False, None)
    assert await shop.jobs() == [ConfirmationMailJob(ann.id)]


async def test_vouched_address_counts_as_confirmed(shop: ShopService) -> None:
    """The user gets no mail; a welcome would come from a service that the user does not know."""
    shop.override(Enrichment | None, FakeEnrichment())
    ann, _ = await shop.put("7", "ann@example.com", email_verified=True)
    assert ann.email_verified
    assert await shop.jobs() == [EnrichProfileJob(ann.id)]


async def test_second_put_changes_what_it_names_and_nothing_else(shop: ShopService) -> None:
    """A missing locale keeps it, and unconfirmed takes nothing back."""
    ann, _ = await shop.put("7", "ann@example.com", email_verified=True, locale=Locale.RU)
    jobs = await shop.jobs()
    again, is_new = await shop.put("7", "Ann@example.com", referral_code="UNKNOWN")
    assert (again, is_new) == (replace(ann, email="Ann@example.com"), False)
    changed, _ = await shop.put("7", "Ann@example.com", locale=Locale.EN)
    assert changed == replace(again, locale=Locale.EN)
    assert await shop.jobs() == jobs


async def test_later_vouching_confirms(shop: ShopService) -> None:
    """With the pending referral, however old it is."""
    code = await shop.create_code(await shop.confirmed("eve@example.com"))
    ann, _ = await shop.put("7", "ann@example.com", referral_code=code.text)
    shop.clock.advance(days=400)
    await shop.expire_unconfirmed()
    assert await referral_status(shop, ann) is ReferralStatus.PENDING
    again, _ = await shop.put("7", "ann@example.com", email_verified=True)
    assert again == replace(ann, email_verified=True)
    assert await referral_status(shop, ann) is ReferralStatus.CONFIRMED


async def test_external_account_does_not_expire(shop: ShopService) -> None:
    """Unlike the account of somebody who registered and did not confirm the address."""
    ann, _ = await shop.put("7", "ann@example.com")
    bob = await shop.create_account("bob@example.com")
    shop.clock.advance(days=400)
    await shop.expire_unconfirmed()
    assert await shop.find(ann.id) is not None
    assert await shop.find(bob.id) is None


async def referral_status(shop: ShopService, user: User) -> ReferralStatus | None:
    """Return the status of the referral of a user."""
    async with shop.database.read() as repositories:
        referral = await repositories.referrals.find_by_referred(user.id)
    return None if referral is None else referral.status


async def test_code_counts_when_the_user_is_new(shop: ShopService) -> None:
    """An unusable code creates no account."""
    eve = await shop.confirmed("eve@example.com")
    code = await shop.create_code(eve)
    with pytest.raises(ReferralCodeUnusable):
        await shop.put("7", "ann@example.com", referral_code="UNKNOWN")
    ann, _ = await shop.put("7", "ann@example.com", email_verified=True, referral_code=code.text)
    details = await shop.find(ann.id)
    assert details is not None
    assert details.referrer is not None
    assert details.referrer.id == eve.id
    assert await referral_status(shop, ann) is ReferralStatus.CONFIRMED


async def test_concurrent_puts_create_one_user(shop: ShopService) -> None:
    """One answer says that the user is new, and all name the same user."""
    code = await shop.create_code(await shop.confirmed("eve@example.com"))
    results = await asyncio.gather(
        *(shop.put("7", "ann@example.com", referral_code=code.text) for _ in range(20))
    )
    assert len({user.id for user, _ in results}) == 1
    assert sum(is_new for _, is_new in results) == 1


async def test_taken_address_is_refused(shop: ShopService) -> None:
    """Of a confirmed account, of another external user, and without vouching of anybody."""
    await shop.confirmed("ann@example.com")
    await shop.create_account("bob@example.com")
    await shop.put("1", "eve@example.com")
    for email, vouched in (
        ("ann@example.com", True),
        ("bob@example.com", False),
        ("eve@example.com", True),
    ):
        with pytest.raises(EmailTaken):
            await shop.put("7", email, email_verified=vouched)
        await shop.put("8", "zoe@example.com")
        with pytest.raises(EmailTaken):
            await shop.put("8", email, email_verified=vouched)


@pytest.mark.parametrize("existing", [False, True])
async def test_unconfirmed_account_gives_way_to_a_vouched_user(
    shop: ShopService, *, existing: bool
) -> None:
    """It is erased as by a disowner, also for the new address of a known user."""
    squatter = await shop.create_account("ann@example.com")
    code = await shop.create_code(squatter)
    if existing:
        await shop.put("7", "old@example.com")
    ann, is_new = await shop.put("7", "ann@example.com", email_verified=True)
    assert is_new is not existing
    assert ann.id != squatter.id
    assert await shop.find(squatter.id) is None
    assert await shop.check_code(code.text) is None


async def test_blocked_account_keeps_its_address(shop: ShopService) -> None:
    """Nobody gets around a block by a product."""
    bob = await shop.create_account("bob@example.com")
    await shop.block_account(bob.email)
    with pytest.raises(EmailTaken):
        await shop.put("7", bob.email, email_verified=True)


async def test_new_address_is_unconfirmed(shop: ShopService) -> None:
    """Its confirmation mail goes out, and links that were mailed to the old one are unusable."""
    ann, _ = await shop.put("7", "ann@example.com", email_verified=True)
    reset = await shop.create_mail_token(ann, TokenPurpose.RESET)
    confirm = await shop.create_mail_token(ann)
    changed, is_new = await shop.put("7", "new@example.com")
    assert (changed.id, changed.email, changed.email_verified, is_new) == (
        *(ann.id, "new@example.com", False, False),
    )
    assert ConfirmationMailJob(ann.id) in await shop.jobs()
    with pytest.raises(TokenUnusable):
        await shop.reset_password(reset, "another password")
    with pytest.raises(TokenUnusable):
        await shop.confirm_email(confirm, caller_id=ann.id, password=None, client_ip=CLIENT_IP)
    free, _ = await shop.put("8", "ann@example.com", email_verified=True)
    assert free.id != ann.id


async def test_reader_of_the_old_mailbox_loses_the_account(shop: ShopService) -> None:
    """Password, sessions, login sessions and authorization codes end with the old address."""
    ann, _ = await shop.put("7", "typo@example.com")
    await shop.reset_password(await shop.create_mail_token(ann, TokenPurpose.RESET), PASSWORD)
    tokens = await shop.log_in("typo@example.com", PASSWORD, CLIENT_IP)
    cookie = await shop.get(BeginLoginSession)("typo@example.com", PASSWORD, CLIENT_IP, None)
    app = await shop.get(CreatePublicClient)("app", ["https://app.example/"], OPERATOR)
    request = AuthorizationRequest(app.id, "https://app.example/", make_code_challenge("x" * 43))
    assert await shop.get(IssueAuthorizationCode)(cookie, request)
    await shop.put("7", "ann@example.com", email_verified=True)
    for email in ("typo@example.com", "ann@example.com"):
        with pytest.raises(InvalidGrant):
            await shop.log_in(email, PASSWORD, CLIENT_IP)
    with pytest.raises(InvalidGrant):
        await shop.refresh(tokens.refresh_token)
    async with shop.database.read() as repositories:
        tables = repositories.tables
        assert not tables.sessions
        assert not tables.login_sessions
        assert not tables.authorization_codes


async def test_removed_password_is_audited_once(shop: ShopService) -> None:
    """A user without a password loses none."""
    ann, _ = await shop.put("7", "typo@example.com")
    await shop.reset_password(await shop.create_mail_token(ann, TokenPurpose.RESET), PASSWORD)
    for email in ("ann@example.com", "zoe@example.com"):
        await shop.put("7", email)
    async with shop.database.read() as repositories:
        log = repositories.tables.audit.values()
        removed = [each for each in log if each.action == AuditAction.PASSWORD_REMOVED]
    assert [(each.actor, each.subject) for each in removed] == [(SHOP.actor.id, str(ann.id))]


async def test_new_address_changes_lookups_at_once(shop: ShopService) -> None:
    """The old address finds nothing, and the new one finds the code."""
    ann, _ = await shop.put("7", "ann@example.com", email_verified=True)
    code = await shop.create_code(ann)
    assert await shop.look_up_code("ann@example.com") == code
    assert await is_hidden(shop, "new@example.com")
    await shop.put("7", "new@example.com", email_verified=True)
    assert await is_hidden(shop, "ann@example.com")
    assert await shop.look_up_code("new@example.com") == code


async def is_hidden(shop: ShopService, email: str) -> bool:
    """Return whether the look-up of an address finds no code."""
    try:
        await shop.look_up_code(email)
    except NotFound:
        return True
    return False


async def test_given_up_address_is_not_referred_again(shop: ShopService) -> None:
    """An address that was somebody's referral is nobody's again for a year."""
    code = await shop.create_code(await shop.confirmed("eve@example.com"))
    await shop.put("7", "ann@example.com", email_verified=True, referral_code=code.text)
    await shop.put("7", "new@example.com", email_verified=True)
    again, _ = await shop.put("8", "ann@example.com", email_verified=True, referral_code=code.text)
    assert await referral_status(shop, again) is ReferralStatus.REJECTED


async def test_login_without_a_password_fails_like_any_other(shop: ShopService) -> None:
    """One hash is verified, and no password is right, not even the stored text."""
    ann, _ = await shop.put("7", "ann@example.com", email_verified=True)
    for password in (PASSWORD, NO_PASSWORD * 8):
        with pytest.raises(InvalidGrant):
            await shop.log_in(ann.email, password, CLIENT_IP)
    assert shop.password_hasher.verified_hashes == [NO_PASSWORD] * 2
    with pytest.raises(WrongPassword):
        await shop.change_password(ann.id, None, PASSWORD, "another password")
    with pytest.raises(WrongPassword):
        await shop.erase_account(ann.id, PASSWORD)


async def test_reader_of_the_mailbox_sets_a_password(shop: ShopService) -> None:
    """Which also confirms the address."""
    ann, _ = await shop.put("7", "ann@example.com")
    await shop.reset_password(await shop.create_mail_token(ann, TokenPurpose.RESET), PASSWORD)
    await shop.log_in(ann.email, PASSWORD, CLIENT_IP)
    details = await shop.find(ann.id)
    assert details is not None
    assert details.user.email_verified


@pytest.mark.parametrize(
    ("text", "is_valid"),
    [
        *((text, True) for text in ("7", "a/b", "Жанна", "https://id.example|7", "😀", "x" * 255)),
        *((text, False) for text in ("", " ", "a b", "x" * 256, "\0", "a\n", "\x7f", "\u200b")),
        *((text, False) for text in ("\u202ea", "\u00a0", "\u3000", "\u2800", "\u3164", "\ufe0f")),
        *((text, False) for text in ("\ud800", "\u115f", "\U000e0100", "\ue000")),
    ],
)
async def test_external_id_is_visible_characters(
    shop: ShopService, text: str, *, is_valid: bool
) -> None:
    """Invisible ones would make two ids look equal."""
    assert is_external_id(text) is is_valid
    if is_valid:
        assert (await shop.put(text, "ann@example.com"))[1]
        assert (await shop.get(ShowUser).by_external_id(text)).user.external_id == text
        return
    with pytest.raises(InvalidRequest) as raised:
        await shop.put(text, "ann@example.com")
    assert raised.value.field == "external_id"
    with pytest.raises(NotFound):
        await shop.get(ShowUser).by_external_id(text)


async def test_external_id_is_case_sensitive(shop: ShopService) -> None:
    """As the product's ids may be."""
    await shop.put("a", "ann@example.com")
    with pytest.raises(NotFound):
        await shop.get(ShowUser).by_external_id("A")


async def make_admin(shop: ShopService) -> User:
    """Store an admin who has an external id."""
    ann, _ = await shop.put("7", "ann@example.com", email_verified=True)
    async with shop.database.begin() as repositories:
        await repositories.users.save(replace(ann, role=Role.ADMIN))
    return ann


Change = Callable[[ShopService, Caller, User], Awaitable[object]]
CHANGES: list[Change] = [
    lambda shop, caller, _: shop.put("7", "Ann@example.com", caller=caller),
    lambda shop, caller, ann: shop.put("7", ann.email, caller=caller, locale=Locale.RU),
    lambda shop, caller, _: shop.put("7", "mine@example.com", caller=caller, email_verified=True),
    lambda shop, caller, ann: shop.get(EraseUser)(caller, ann.id),
]


@pytest.mark.parametrize("change", CHANGES)
async def test_admin_is_changed_by_admins_only(shop: ShopService, change: Change) -> None:
    """Who can set an admin's address can set the admin's password."""
    ann = await make_admin(shop)
    with pytest.raises(InsufficientScope):
        await change(shop, SHOP, ann)
    assert (await shop.put("7", ann.email))[0].email == ann.email
    await change(shop, client_caller(Scope.ADMIN), ann)


@pytest.mark.parametrize("change", CHANGES)
async def test_blocked_user_is_changed_by_admins_only(shop: ShopService, change: Change) -> None:
    """Another client would free the address, and the blocked user could register again."""
    ann, _ = await shop.put("7", "ann@example.com", email_verified=True)
    await shop.block_account(ann.email)
    with pytest.raises(AccountBlocked):
        await change(shop, SHOP, ann)
    details = await shop.find(ann.id)
    assert details is not None
    assert details.user == replace(ann, blocked_at=shop.clock.now())
    assert (await shop.put("7", ann.email))[0] == details.user
    await change(shop, client_caller(Scope.ADMIN), ann)


async def test_unconfirmed_admin_keeps_the_address(shop: ShopService) -> None:
    """A client that could erase admins by vouching for their addresses would need no `admin`."""
    root = await shop.create_admin("root@example.com")
    assert not root.email_verified
    with pytest.raises(EmailTaken):
        await shop.put("7", root.email, email_verified=True)
    assert await shop.find(root.id) is not None


async def test_erased_user_frees_address_and_id(shop: ShopService) -> None:
    """A second erasure finds nobody."""
    ann, _ = await shop.put("7", "ann@example.com")
    await shop.get(EraseUser)(SHOP, ann.id)
    with pytest.raises(NotFound):
        await shop.get(EraseUser)(SHOP, ann.id)
    again, is_new = await shop.put("7", "ann@example.com")
    assert is_new
    assert again.id != ann.id


async def test_operator_erases_admins(shop: ShopService) -> None:
    """The operator is no caller of the API, and needs no scope."""
    ann = await make_admin(shop)
    await shop.get(EraseUser)(None, ann.id)
    assert await shop.find(ann.id) is None


async def test_changes_are_events(shop: ShopService) -> None:
    """With the external id, which an erasure takes out of all of them."""

    async def events() -> list[tuple[str, object]]:
        async with shop.database.read() as repositories:
            log = repositories.tables.event_outbox.values()
            return [
                (each.type, each.data["external_id"])
                for each in log
                if each.type.startswith("user.")
            ]

    ann, _ = await shop.put("7", "ann@example.com")
    await shop.put("7", "ann@example.com", email_verified=True)
    await shop.put("7", "new@example.com", email_verified=True)
    assert await events() == [
        *(("user.registered", "7"), ("user.verified", "7"), ("user.verified", "7")),
    ]
    await shop.get(EraseUser)(SHOP, ann.id)
    assert await events() == [
        *(("user.registered", None), ("user.verified", None), ("user.verified", None)),
        ("user.erased", None),
    ]
