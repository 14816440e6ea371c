"""A service in memory: the use cases over fakes, with shortcuts for the set-up of tests."""

from collections.abc import Awaitable, Callable, Container
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

import dishka
import msgspec

from referral.container.use_cases import UseCases
from referral.core.entities.audit import OPERATOR
from referral.core.entities.clients import Caller, Scope
from referral.core.entities.codes import Code, Expiry
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.entities.events import Event
from referral.core.entities.jobs import Job
from referral.core.entities.users import Locale, Role, User
from referral.core.ports.caching import LookupCache, RateLimiter
from referral.core.ports.delivery import Mailer, MailReservations
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.imports import ImportStore
from referral.core.ports.repositories import Database, ReadModel
from referral.core.ports.risk import DisposableDomains
from referral.core.ports.security import (
    AccessTokenIssuer,
    Fingerprinter,
    PasswordHasher,
    SecretCipher,
    TokenGenerator,
    UnsubscribeTokens,
)
from referral.core.ports.subject_tokens import SubjectTokenVerifier
from referral.core.ports.system import Clock, CodeGenerator, IdGenerator, LinkBuilder, SecurityLog
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from referral.core.ports.webhooks import UrlPolicy, WebhookSender
from referral.core.use_cases.accounts import (
    BlockAccount,
    FindAccount,
    NewAccount,
    Register,
    ShowAccount,
)
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
from referral.core.use_cases.email_links import ConfirmEmail, DisownEmail, ResetPassword
from referral.core.use_cases.erasure import EraseAccount
from referral.core.use_cases.lookups import CheckCode, LookUpCode
from referral.core.use_cases.passwords import ChangePassword
from referral.core.use_cases.retention import ExpireUnconfirmed
from referral.core.use_cases.sessions import LogIn, RefreshSession
from referral.settings import Settings
from tests.support.fakes.caching import FakeLookupCache, FakeRateLimiter
from tests.support.fakes.database import FakeDatabase, FakeMailReservations, FakeReadModel
from tests.support.fakes.email_addresses import FakeEmailParser
from tests.support.fakes.imports import FakeImportStore
from tests.support.fakes.mail import FakeMailer
from tests.support.fakes.risk import FakeDisposableDomains
from tests.support.fakes.security import (
    FakeAccessTokenIssuer,
    FakeFingerprinter,
    FakePasswordHasher,
    FakeSecretCipher,
    FakeTokenGenerator,
    FakeUnsubscribeTokens,
)
from tests.support.fakes.subject_tokens import FakeSubjectTokenVerifier
from tests.support.fakes.system import (
    FakeClock,
    FakeCodeGenerator,
    FakeIdGenerator,
    FakeLinkBuilder,
    FakeSecurityLog,
)
from tests.support.fakes.webhooks import FakeUrlPolicy, FakeWebhookSender

CLIENT_IP = "192.0.2.1"
PASSWORD = "correct horse battery"
COMMON_PASSWORD = "password1234"
SESSION_LIFETIME = timedelta(days=30)
P = ParamSpec("P")
T = TypeVar("T")


class InMemoryService:
    """The use cases, wired as in the service; every port is a fake."""

    def __init__(self, **settings: Any) -> None:
        self.access_tokens = FakeAccessTokenIssuer()
        self.cache = FakeLookupCache()
        self.cipher = FakeSecretCipher()
        self.clock = FakeClock()
        self.code_generator = FakeCodeGenerator()
        self.database = FakeDatabase()
        self.fingerprints = FakeFingerprinter()
        self.id_generator = FakeIdGenerator()
        self.limits = FakeRateLimiter()
        self.mailer = FakeMailer()
        self.password_hasher = FakePasswordHasher()
        self.security_log = FakeSecurityLog()
        self.subject_tokens = FakeSubjectTokenVerifier()
        self.token_generator = FakeTokenGenerator()
        self._context: dict[Any, Any] = {
            AccessTokenIssuer: self.access_tokens,
            Clock: self.clock,
            CodeGenerator: self.code_generator,
            Container[str]: {COMMON_PASSWORD},
            Database: self.database,
            DisposableDomains: FakeDisposableDomains(),
            EmailParser: FakeEmailParser(),
            EmailVerifier | None: None,
            Enrichment | None: None,
            Fingerprinter: self.fingerprints,
            IdGenerator: self.id_generator,
            ImportStore: FakeImportStore(self.database),
            LinkBuilder: FakeLinkBuilder(),
            LookupCache: self.cache,
            Mailer: self.mailer,
            MailReservations: FakeMailReservations(self.database),
            PasswordHasher: self.password_hasher,
            RateLimiter: self.limits,
            ReadModel: FakeReadModel(self.database),
            SecurityLog: self.security_log,
            Settings: Settings(),
            SubjectTokenVerifier: self.subject_tokens,
            TokenGenerator: self.token_generator,
            SecretCipher: self.cipher,
            UnsubscribeTokens: FakeUnsubscribeTokens(),
            UrlPolicy: FakeUrlPolicy(),
            WebhookSender: FakeWebhookSender(),
        }
        self.configure(**settings)

    def configure(self, **settings: Any) -> None:
        """Change settings; stored data stays."""
        self.override(Settings, msgspec.structs.replace(self._context[Settings], **settings))

    def override(self, dependency: Any, replacement: object) -> None:
        """Replace a fake, or a policy's value, and wire the use cases again; stored data stays."""
        self._context[dependency] = replacement
        wiring = _wiring(frozenset(self._context))
        self._container = wiring(self._context).__enter__()
        self.activate_code = _without_time(self.get(ActivateCode))
        self.change_password = self.get(ChangePassword)
        self.check_code = self.get(CheckCode)
        self.confirm_email = self.get(ConfirmEmail)
        self.deactivate_code = _without_time(self.get(DeactivateCode))
        self.delete_code = self.get(DeleteCode)
        self.disown_email = self.get(DisownEmail)
        self.erase_account = self.get(EraseAccount)
        self.expire_unconfirmed = self.get(ExpireUnconfirmed)
        self.issue_code = self.get(IssueCode)
        self.list_codes = self.get(ListCodes)
        self.log_in = self.get(LogIn)
        self.look_up_code = self.get(LookUpCode)
        self.refresh = self.get(RefreshSession)
        self.register = self.get(Register)
        self.renew_code = _without_time(self.get(RenewCode))
        self.reset_password = self.get(ResetPassword)
        self.show_account = self.get(ShowAccount)
        self.show_active_code = _without_time(self.get(ShowActiveCode))
        self.show_code = _without_time(self.get(ShowCode))

    def get(self, use_case: type[T]) -> T:
        """Return a use case or policy, wired as in the service."""
        return self._container.get(use_case)

    async def create_account(
        self,
        email: str,
        *,
        referral_code: str | None = None,
        password: str = PASSWORD,
        locale: Locale = Locale.EN,
    ) -> User:
        """Register an account."""
        return await self.register(NewAccount(email, password, referral_code, locale))

    async def block_account(self, email: str, *, undo: bool = False) -> User:
        """Block or unblock an account, as the operator does."""
        user = await self.get(FindAccount)(email)
        return await self.get(BlockAccount)(user.id, OPERATOR, undo=undo)

    async def jobs(self) -> list[Job]:
        """Return all queued jobs."""
        async with self.database.read() as repositories:
            return list(repositories.tables.jobs.values())

    async def events(self) -> list[Event]:
        """Return the events that are not published yet, and publish them."""
        async with self.database.begin() as repositories:
            return await repositories.events.publish(1000, wait=False)

    async def create_mail_token(
        self, user: User, purpose: TokenPurpose = TokenPurpose.CONFIRM
    ) -> str:
        """Store and return the token of a link that expires after 1,000 days."""
        token, expires_at = self.token_generator.new(), self.clock.now() + timedelta(days=1000)
        async with self.database.begin() as repositories:
            await repositories.one_time_tokens.add(
                OneTimeToken(self.token_generator.digest(token), user.id, purpose, expires_at)
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


@cache
def _wiring(dependencies: frozenset[Any]) -> dishka.Container:
    """Build the graph of the use cases once for all tests; each test passes its own fakes."""
    fakes = dishka.Provider(scope=dishka.Scope.REQUEST)
    for dependency in dependencies:
        fakes.from_context(dependency)
    return dishka.make_container(UseCases(scope=dishka.Scope.REQUEST), fakes)


def _without_time(
    use_case: Callable[P, Awaitable[tuple[Code, datetime]]],
) -> Callable[P, Awaitable[Code]]:
    """Drop the time from the result, which few tests need."""

    async def drop_time(*args: P.args, **kwargs: P.kwargs) -> Code:
        code, _ = await use_case(*args, **kwargs)
        return code

    return drop_time


def user_caller(user: User, session_id: UUID | None = None) -> Caller:
    """Return the caller of an access token of a user."""
    return Caller("first-party", frozenset({Scope.ACCOUNT}), user.id, session_id)


def client_caller(*scopes: str) -> Caller:
    """Return the caller of a client token with these scopes."""
    return Caller("a client", frozenset(scopes), None)
