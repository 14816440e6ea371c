"""The use cases. They keep no state between calls, so each lives as long as the app."""

from datetime import timedelta

from dishka import (
    Provider,
    Scope,
    provide,
)
from dishka import provide_all as all_of

from referral.adapters.mail.smtp import SmtpMailer
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.redis.client import RedisServer
from referral.core.entities.users import Verification
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import CreditReferrer, SettleReferral
from referral.core.policies.confirmation import Confirm
from referral.core.policies.email_deliverability import Verify, VerifyEmailAtSignup
from referral.core.policies.idempotency import RecallAnswer
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.policies.lookup_invalidation import InvalidateLookup, InvalidateLookupLater
from referral.core.policies.reauthentication import Reauthenticate
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, ReadModel
from referral.core.ports.security import (
    AccessTokens,
    PasswordHasher,
    TokenGenerator,
)
from referral.core.ports.system import (
    Clock,
    HealthProbe,
    IdGenerator,
)
from referral.core.use_cases import (
    accounts,
    clients,
    codes,
    erasure,
    lookups,
    passwords,
    referrals,
    sessions,
)
from referral.core.use_cases import email_links as proofs
from referral.core.use_cases import job_dispatch as work
from referral.core.use_cases import notifications as mail
from referral.core.use_cases import retention as upkeep
from referral.core.use_cases.enrichment import Enrich
from referral.core.use_cases.health import CheckHealth, CheckParts
from referral.settings import Settings
from referral.web.controllers.tokens import Grants


class UseCases(Provider):
    """The use cases, and the few values among what they need."""

    scope = Scope.APP
    plain = all_of(
        accounts.BlockAccount,
        accounts.Register,
        clients.AuthenticateClient,
        clients.CreateClient,
        clients.Introspect,
        clients.IssueClientToken,
        erasure.EraseAccount,
        erasure.ExportAccount,
        passwords.ChangePassword,
        LoginThrottle,
        RecallAnswer,
        InvalidateLookup,
        InvalidateLookupLater,
        Confirm,
        CreditReferrer,
        Enrich,
        Reauthenticate,
        RemoveAccount,
        VerifyEmailAtSignup,
        SettleReferral,
        Verify,
        proofs.AskForConfirmation,
        proofs.ConfirmEmail,
        proofs.DisownEmail,
        proofs.ForgotPassword,
        proofs.InspectLink,
        proofs.ResetPassword,
        proofs.SendConfirmation,
        proofs.SendReset,
        referrals.ClaimReferrer,
        accounts.UpdateAccount,
        sessions.CheckSession,
        sessions.Refresh,
        sessions.Revoke,
        codes.IssueCode,
        codes.ListCodes,
        codes.ShowCode,
        codes.ShowActiveCode,
        codes.RenewCode,
        codes.ActivateCode,
        codes.DeactivateCode,
        codes.DeleteCode,
        lookups.LookUpCode,
        lookups.CheckCode,
        mail.MailActiveCode,
        mail.Unsubscribe,
        mail.SendCode,
        mail.SendWelcome,
        mail.TellReferrer,
        upkeep.ExpireUnconfirmed,
        upkeep.Prune,
        work.DispatchJob,
    )

    @provide
    def verification(self, settings: Settings) -> Verification:
        return Verification(required=settings.verifies_addresses)

    @provide
    def log_in(
        self,
        access_tokens: AccessTokens,
        addresses: EmailParser,
        login_throttle: LoginThrottle,
        clock: Clock,
        database: Database,
        ids: IdGenerator,
        passwords: PasswordHasher,
        secrets: TokenGenerator,
        settings: Settings,
    ) -> sessions.LogIn:
        lifetime = timedelta(days=settings.refresh_token_days)
        return sessions.LogIn(
            access_tokens,
            addresses,
            login_throttle,
            clock,
            database,
            ids,
            passwords,
            secrets,
            lifetime,
        )

    @provide
    def list_referrals(self, database: Database, settings: Settings) -> referrals.ListReferrals:
        return referrals.ListReferrals(database, settings.referrals_visibility)

    @provide
    def show_account(
        self, clock: Clock, reads: ReadModel, settings: Settings
    ) -> accounts.ShowAccount:
        return accounts.ShowAccount(clock, reads, settings.referrals_visibility)

    @provide
    def grants(self, settings: Settings) -> Grants:
        return Grants(password=settings.allows_passwords)

    @provide
    def mail_limit(self, settings: Settings) -> mail.MailLimit:
        return mail.MailLimit(settings.limit_mail.number, settings.limit_mail.within)

    @provide
    def check_health(self, database: PostgresDatabase, redis: RedisServer | None) -> CheckHealth:
        return CheckHealth(database, (redis,) if redis else ())

    @provide
    def check_parts(
        self,
        database: PostgresDatabase,
        redis: RedisServer | None,
        smtp: SmtpMailer | None,
        asked: tuple[HealthProbe, ...],
    ) -> CheckParts:
        own: tuple[HealthProbe | None, ...] = (database, redis, smtp)
        return CheckParts((*(part for part in own if part is not None), *asked))
