"""A service in memory: the use cases over fakes, with shortcuts for the set-up of tests."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, ParamSpec
from uuid import UUID

from referral.core.entities.clients import Caller, Scope
from referral.core.entities.codes import Code, Expiry
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.referrals import ReferralVisibility
from referral.core.entities.users import EmailConfirmationPolicy, Locale, Role, User
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import CreditReferrer, ResolveReferral
from referral.core.policies.email_confirmation import MarkEmailConfirmed
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
from referral.core.use_cases.sessions import LogIn, RefreshSession
from tests.support.fakes.database import FakeDatabase, FakeReadModel
from tests.support.fakes.ports import (
    FakeAccessTokenIssuer,
    FakeClock,
    FakeCodeGenerator,
    FakeEmailParser,
    FakeFingerprinter,
    FakeIdGenerator,
    FakeLookupCache,
    FakePasswordHasher,
    FakeRateLimiter,
    FakeSecurityLog,
    FakeTokenGenerator,
)

CLIENT_IP = "192.0.2.1"
PASSWORD = "correct horse battery"
COMMON_PASSWORD = "password1234"
SESSION_LIFETIME = timedelta(days=30)
P = ParamSpec("P")


class InMemoryService:
    """All use cases, wired over fakes that tests can reach."""

    def __init__(self, *, verification_required: bool = False) -> None:
        self.access_tokens = access_tokens = FakeAccessTokenIssuer()
        self.cache = cache = FakeLookupCache()
        self.clock = clock = FakeClock()
        self.code_generator = FakeCodeGenerator()
        self.database = database = FakeDatabase()
        read_model = FakeReadModel(database)
        self.id_generator = id_generator = FakeIdGenerator()
        self.limits = FakeRateLimiter()
        self.password_hasher = password_hasher = FakePasswordHasher()
        email_parser = FakeEmailParser()
        self.token_generator = token_generator = FakeTokenGenerator()
        self.security_log = FakeSecurityLog()
        self.verification = verification = EmailConfirmationPolicy(required=verification_required)
        self.fingerprints = FakeFingerprinter()
        self.settle_referral = ResolveReferral(clock)
        credit_referrer = CreditReferrer(clock, self.fingerprints, id_generator, verification)
        self.invalidate_lookup = invalidate_lookup = InvalidateLookup(cache, database)
        self.register = Register(
            email_parser,
            invalidate_lookup,
            clock,
            {COMMON_PASSWORD},
            credit_referrer,
            database,
            None,
            id_generator,
            password_hasher,
            VerifyEmailAtSignup(clock, database, self.fingerprints, None),
            verification,
        )
        self.show_account = ShowAccount(clock, read_model, ReferralVisibility.REDACTED)
        self.block_account = BlockAccount(email_parser, invalidate_lookup, clock, database)
        login_throttle = LoginThrottle(self.limits)
        self.remove_account = remove_account = RemoveAccount(
            clock, self.fingerprints, self.settle_referral
        )
        confirm = MarkEmailConfirmed(None, self.settle_referral, verification)
        inspect_link = InspectLink(clock, database, token_generator)
        self.confirm_email = ConfirmEmail(
            login_throttle,
            invalidate_lookup,
            clock,
            confirm,
            database,
            inspect_link,
            password_hasher,
            token_generator,
        )
        self.disown_email = DisownEmail(
            invalidate_lookup, clock, database, remove_account, token_generator
        )
        self.reset_password = ResetPassword(
            invalidate_lookup,
            clock,
            {COMMON_PASSWORD},
            confirm,
            database,
            password_hasher,
            token_generator,
        )
        reauthenticate = Reauthenticate(database, password_hasher)
        self.change_password = ChangePassword(
            {COMMON_PASSWORD}, database, password_hasher, reauthenticate
        )
        self.erase_account = EraseAccount(
            invalidate_lookup, database, reauthenticate, remove_account
        )
        self.expire_unconfirmed = ExpireUnconfirmed(
            invalidate_lookup, clock, database, remove_account, self.settle_referral, verification
        )
        self.log_in = LogIn(
            access_tokens,
            email_parser,
            login_throttle,
            clock,
            database,
            id_generator,
            password_hasher,
            token_generator,
            SESSION_LIFETIME,
        )
        self.refresh = RefreshSession(
            access_tokens, clock, database, self.security_log, token_generator
        )
        self.issue_code = IssueCode(
            invalidate_lookup, clock, self.code_generator, database, id_generator
        )
        self.list_codes = ListCodes(clock, database)
        self.show_code = _without_time(ShowCode(clock, database))
        self.show_active_code = _without_time(ShowActiveCode(clock, database))
        self.renew_code = _without_time(RenewCode(invalidate_lookup, clock, database))
        self.activate_code = _without_time(ActivateCode(invalidate_lookup, clock, database))
        self.deactivate_code = _without_time(DeactivateCode(invalidate_lookup, clock, database))
        self.delete_code = DeleteCode(invalidate_lookup, clock, database)
        self.look_up_code = LookUpCode(email_parser, cache, clock, read_model, verification)
        self.check_code = CheckCode(clock, database)

    async def create_account(
        self, email: str, *, referral_code: str | None = None, password: str = PASSWORD
    ) -> User:
        """Register an account."""
        return await self.register(NewAccount(email, password, referral_code, Locale.EN))

    def require_email_verification(self) -> None:
        """Continue with `REFERRAL_EMAIL_VERIFICATION` on."""
        on = EmailConfirmationPolicy(required=True)
        credit = replace(self.register.credit_referrer, confirmation_policy=on)
        self.register = replace(self.register, credit_referrer=credit, confirmation_policy=on)
        self.look_up_code = replace(self.look_up_code, confirmation_policy=on)
        confirm = replace(self.confirm_email.mark_email_confirmed, confirmation_policy=on)
        self.confirm_email = replace(self.confirm_email, mark_email_confirmed=confirm)

    def enable_enrichment(self, enrichment: Enrichment) -> None:
        """Continue with `REFERRAL_ENRICHMENT` set."""
        self.register = replace(self.register, enrichment=enrichment)
        confirm = replace(self.confirm_email.mark_email_confirmed, enrichment=enrichment)
        self.confirm_email = replace(self.confirm_email, mark_email_confirmed=confirm)

    async def create_mail_token(
        self, user: User, purpose: TokenPurpose = TokenPurpose.CONFIRM
    ) -> str:
        """Store and return the token of a link that expires after 1,000 days."""
        token, ends = self.token_generator.new(), self.clock.now() + timedelta(days=1000)
        async with self.database.begin() as repositories:
            await repositories.one_time_tokens.add(
                OneTimeToken(self.token_generator.digest(token), user.id, purpose, ends)
            )
        return token

    async def create_code(self, user: User, *, minutes: int = 60, **fields: Any) -> Code:
        """Issue a code to a user; by default it expires in an hour."""
        return await self.issue_code(user.id, NewCode(Expiry(lifetime_minutes=minutes), **fields))

    async def create_admin(self, email: str) -> User:
        """Store an account with the admin role."""
        plain = await self.create_account(f"plain-{email}")
        admin = replace(
            plain, id=self.id_generator.new(), email=email, email_key=email.lower(), role=Role.ADMIN
        )
        async with self.database.begin() as repositories:
            await repositories.users.add(admin)
        return admin


def _without_time(
    use: Callable[P, Awaitable[tuple[Code, datetime]]],
) -> Callable[P, Awaitable[Code]]:
    """Drop the time from the result, which few tests need."""

    async def alone(*args: P.args, **kwargs: P.kwargs) -> Code:
        code, _ = await use(*args, **kwargs)
        return code

    return alone


def user_caller(user: User, session_id: UUID | None = None) -> Caller:
    """Return the caller of an access token of a user."""
    return Caller("first-party", frozenset({Scope.ACCOUNT}), user.id, session_id)


def client_caller(*scopes: str) -> Caller:
    """Return the caller of a client token with these scopes."""
    return Caller("a client", frozenset(scopes), None)
