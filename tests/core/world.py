"""A service in memory: the use cases over the fakes, and what many tests begin with."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ParamSpec
from uuid import UUID

from referral.core.entities.clients import Caller, Scope
from referral.core.entities.codes import Code, Expiry
from referral.core.entities.email_links import OneTimeToken, Purpose
from referral.core.entities.referrals import Visibility
from referral.core.entities.users import Locale, Role, User, Verification
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import CreditReferrer, SettleReferral
from referral.core.policies.confirmation import Confirm
from referral.core.policies.email_deliverability import VerifyEmailAtSignup
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.policies.lookup_invalidation import InvalidateLookup
from referral.core.policies.reauthentication import Reauthenticate
from referral.core.ports.third_parties import Enrichment
from referral.core.use_cases.accounts import BlockAccount, NewAccount, Register, ShowAccount
from referral.core.use_cases.codes import (
    ActivateCode,
    DeactivateCode,
    DeleteCode,
    IssueCode,
    ListCodes,
    NewCode,
    RenewCode,
    ShowActiveCode,
    ShowCode,
)
from referral.core.use_cases.email_links import (
    ConfirmEmail,
    DisownEmail,
    InspectLink,
    ResetPassword,
)
from referral.core.use_cases.erasure import EraseAccount
from referral.core.use_cases.lookups import CheckCode, LookUpCode
from referral.core.use_cases.passwords import ChangePassword
from referral.core.use_cases.retention import ExpireUnconfirmed
from referral.core.use_cases.sessions import LogIn, Refresh
from tests.support.fake_database import FakeDatabase, FakeReadModel
from tests.support.fakes import (
    FakeAccessTokens,
    FakeCache,
    FakeClock,
    FakeCodeGenerator,
    FakeEmailParser,
    FakeFingerprints,
    FakeIdGenerator,
    FakeLimits,
    FakePasswordHasher,
    FakeSecurityLog,
    FakeTokenGenerator,
)

ADDRESS = "192.0.2.1"
PASSWORD = "correct horse battery"  # noqa: S105 - of accounts that live for one test
COMMON = "password1234"
LIFETIME = timedelta(days=30)
P = ParamSpec("P")


class World:
    """Everything wired, with the fakes at hand."""

    def __init__(self, *, verifies: bool = False) -> None:
        self.access_tokens = access_tokens = FakeAccessTokens()
        self.cache = cache = FakeCache()
        self.clock = clock = FakeClock()
        self.code_texts = FakeCodeGenerator()
        self.database = database = FakeDatabase()
        reads = FakeReadModel(database)
        self.ids = ids = FakeIdGenerator()
        self.limits = FakeLimits()
        self.passwords = passwords = FakePasswordHasher()
        addresses = FakeEmailParser()
        self.secrets = secrets = FakeTokenGenerator()
        self.journal = FakeSecurityLog()
        self.verification = verification = Verification(required=verifies)
        self.fingerprints = FakeFingerprints()
        self.settle = SettleReferral(clock)
        credit = CreditReferrer(clock, self.fingerprints, ids, verification)
        self.clear = clear = InvalidateLookup(cache, database)
        self.register = Register(
            addresses,
            clear,
            clock,
            {COMMON},
            credit,
            database,
            None,
            ids,
            passwords,
            VerifyEmailAtSignup(clock, database, self.fingerprints, None),
            verification,
        )
        self.show_account = ShowAccount(clock, reads, Visibility.REDACTED)
        self.block_account = BlockAccount(addresses, clear, clock, database)
        login_throttle = LoginThrottle(self.limits)
        self.remove = remove = RemoveAccount(clock, self.fingerprints, self.settle)
        confirm = Confirm(None, self.settle, verification)
        inspect = InspectLink(clock, database, secrets)
        self.confirm_email = ConfirmEmail(
            login_throttle, clear, clock, confirm, database, inspect, passwords, secrets
        )
        self.disown_email = DisownEmail(clear, clock, database, remove, secrets)
        self.reset_password = ResetPassword(
            clear, clock, {COMMON}, confirm, database, passwords, secrets
        )
        prove = Reauthenticate(database, passwords)
        self.change_password = ChangePassword({COMMON}, database, passwords, prove)
        self.erase_account = EraseAccount(clear, database, prove, remove)
        self.expire_unconfirmed = ExpireUnconfirmed(
            clear, clock, database, remove, self.settle, verification
        )
        self.log_in = LogIn(
            access_tokens,
            addresses,
            login_throttle,
            clock,
            database,
            ids,
            passwords,
            secrets,
            LIFETIME,
        )
        self.refresh = Refresh(access_tokens, clock, database, self.journal, secrets)
        self.issue_code = IssueCode(clear, clock, self.code_texts, database, ids)
        self.list_codes = ListCodes(clock, database)
        self.show_code = _code_of(ShowCode(clock, database))
        self.show_active_code = _code_of(ShowActiveCode(clock, database))
        self.renew_code = _code_of(RenewCode(clear, clock, database))
        self.activate_code = _code_of(ActivateCode(clear, clock, database))
        self.deactivate_code = _code_of(DeactivateCode(clear, clock, database))
        self.delete_code = DeleteCode(clear, clock, database)
        self.look_up_code = LookUpCode(addresses, cache, clock, reads, verification)
        self.check_code = CheckCode(clock, database)

    async def join(
        self, email: str, *, referral_code: str | None = None, password: str = PASSWORD
    ) -> User:
        """Make an account."""
        return await self.register(NewAccount(email, password, referral_code, Locale.EN))

    def have_addresses_confirmed(self) -> None:
        """Go on as a service that has `REFERRAL_EMAIL_VERIFICATION` on."""
        on = Verification(required=True)
        credit = replace(self.register.credit, verification=on)
        self.register = replace(self.register, credit=credit, verification=on)
        self.look_up_code = replace(self.look_up_code, verification=on)
        confirm = replace(self.confirm_email.confirm, verification=on)
        self.confirm_email = replace(self.confirm_email, confirm=confirm)

    def have_profiles_asked_for(self, enrichment: Enrichment) -> None:
        """Go on as a service that has `REFERRAL_ENRICHMENT` set."""
        self.register = replace(self.register, enrichment=enrichment)
        confirm = replace(self.confirm_email.confirm, enrichment=enrichment)
        self.confirm_email = replace(self.confirm_email, confirm=confirm)

    async def mail_token(self, user: User, purpose: Purpose = Purpose.CONFIRM) -> str:
        """Return the token of a link that does not run out."""
        token, ends = self.secrets.new(), self.clock.now() + timedelta(days=1000)
        async with self.database.begin() as records:
            await records.one_time_tokens.add(
                OneTimeToken(self.secrets.digest(token), user.id, purpose, ends)
            )
        return token

    async def issue(self, user: User, *, minutes: int = 60, **wanted: Any) -> Code:
        """Give a user a code that lives an hour, unless told otherwise."""
        return await self.issue_code(user.id, NewCode(Expiry(minutes=minutes), **wanted))

    async def make_admin(self, email: str) -> User:
        """Store an account with the role of an administrator."""
        plain = await self.join(f"plain-{email}")
        admin = replace(
            plain, id=self.ids.new(), email=email, email_key=email.lower(), role=Role.ADMIN
        )
        async with self.database.begin() as records:
            await records.users.add(admin)
        return admin


def _code_of(
    use: Callable[P, Awaitable[tuple[Code, datetime]]],
) -> Callable[P, Awaitable[Code]]:
    """Leave out the instant, which few tests ask about."""

    async def alone(*args: P.args, **kwargs: P.kwargs) -> Code:
        code, _ = await use(*args, **kwargs)
        return code

    return alone


def signed_in(user: User, session_id: UUID | None = None) -> Caller:
    """Return the caller that a user is with an access token."""
    return Caller("first-party", frozenset({Scope.ACCOUNT}), user.id, session_id)


def client(*scopes: str) -> Caller:
    """Return a client with some scopes."""
    return Caller("a client", frozenset(scopes), None)
