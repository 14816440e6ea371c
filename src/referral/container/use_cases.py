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
from referral.adapters.redis.client import RedisClient
from referral.core.entities.users import EmailConfirmationPolicy
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import CreditReferrer, ResolveReferral
from referral.core.policies.email_confirmation import MarkEmailConfirmed
from referral.core.policies.email_deliverability import VerifyEmail, VerifyEmailAtSignup
from referral.core.policies.idempotency import FindStoredResponse
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.policies.lookup_invalidation import InvalidateLookup, RetryLookupInvalidation
from referral.core.policies.reauthentication import Reauthenticate
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, ReadModel
from referral.core.ports.security import (
    AccessTokenIssuer,
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
from referral.core.use_cases.enrichment import EnrichProfile
from referral.core.use_cases.health import CheckHealth, CheckParts
from referral.settings import Settings
from referral.web.controllers.tokens import SupportedGrants


class UseCases(Provider):
    """The use cases, and the few values among what they need."""

    scope = Scope.APP
    use_cases = all_of(
        accounts.BlockAccount,
        accounts.Register,
        clients.AuthenticateClient,
        clients.CreateClient,
        clients.IntrospectToken,
        clients.IssueClientToken,
        erasure.EraseAccount,
        erasure.ExportAccount,
        passwords.ChangePassword,
        LoginThrottle,
        FindStoredResponse,
        InvalidateLookup,
        RetryLookupInvalidation,
        MarkEmailConfirmed,
        CreditReferrer,
        EnrichProfile,
        Reauthenticate,
        RemoveAccount,
        VerifyEmailAtSignup,
        ResolveReferral,
        VerifyEmail,
        proofs.RequestConfirmationMail,
        proofs.ConfirmEmail,
        proofs.DisownEmail,
        proofs.RequestPasswordReset,
        proofs.InspectLink,
        proofs.ResetPassword,
        proofs.SendConfirmationMail,
        proofs.SendPasswordResetMail,
        referrals.SetReferrer,
        accounts.UpdateAccount,
        sessions.CheckSession,
        sessions.RefreshSession,
        sessions.RevokeSession,
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
        mail.RequestCodeMail,
        mail.Unsubscribe,
        mail.SendCodeMail,
        mail.SendWelcomeMail,
        mail.NotifyReferrer,
        upkeep.ExpireUnconfirmed,
        upkeep.Prune,
        work.DispatchJob,
    )

    @provide
    def verification(self, settings: Settings) -> EmailConfirmationPolicy:
        return EmailConfirmationPolicy(required=settings.requires_confirmed_email)

    @provide
    def log_in(
        self,
        access_tokens: AccessTokenIssuer,
        email_parser: EmailParser,
        login_throttle: LoginThrottle,
        clock: Clock,
        database: Database,
        id_generator: IdGenerator,
        password_hasher: PasswordHasher,
        token_generator: TokenGenerator,
        settings: Settings,
    ) -> sessions.LogIn:
        lifetime = timedelta(days=settings.refresh_token_days)
        return sessions.LogIn(
            access_tokens,
            email_parser,
            login_throttle,
            clock,
            database,
            id_generator,
            password_hasher,
            token_generator,
            lifetime,
        )

    @provide
    def list_referrals(self, database: Database, settings: Settings) -> referrals.ListReferrals:
        return referrals.ListReferrals(database, settings.referrals_visibility)

    @provide
    def show_account(
        self, clock: Clock, read_model: ReadModel, settings: Settings
    ) -> accounts.ShowAccount:
        return accounts.ShowAccount(clock, read_model, settings.referrals_visibility)

    @provide
    def grants(self, settings: Settings) -> SupportedGrants:
        return SupportedGrants(password=settings.allows_password_grant)

    @provide
    def mail_limit(self, settings: Settings) -> mail.MailLimit:
        return mail.MailLimit(settings.limit_mail.limit, settings.limit_mail.window)

    @provide
    def check_health(self, database: PostgresDatabase, redis: RedisClient | None) -> CheckHealth:
        return CheckHealth(database, (redis,) if redis else ())

    @provide
    def check_parts(
        self,
        database: PostgresDatabase,
        redis: RedisClient | None,
        smtp_mailer: SmtpMailer | None,
        third_parties: tuple[HealthProbe, ...],
    ) -> CheckParts:
        own_probes: tuple[HealthProbe | None, ...] = (database, redis, smtp_mailer)
        return CheckParts((*(part for part in own_probes if part is not None), *third_parties))
