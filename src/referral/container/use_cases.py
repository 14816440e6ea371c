"""The use cases. They keep no state between calls, so the container makes each of them once."""

from datetime import timedelta

from dishka import Provider, Scope, provide, provide_all

from referral.core.entities.users import EmailConfirmationPolicy
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import CreditReferrer, ResolveReferral
from referral.core.policies.email_confirmation import MarkEmailConfirmed
from referral.core.policies.email_deliverability import VerifyEmail, VerifyEmailAtSignup
from referral.core.policies.idempotency import FindStoredResponse
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.policies.lookup_invalidation import InvalidateLookup, RetryLookupInvalidation
from referral.core.policies.mail_quota import MailRate, ReserveMail, ReserveMailSlot
from referral.core.policies.reauthentication import Reauthenticate
from referral.core.ports.email_addresses import EmailParser
from referral.core.ports.repositories import Database, ReadModel
from referral.core.ports.security import AccessTokenIssuer, PasswordHasher, TokenGenerator
from referral.core.ports.system import Clock, IdGenerator
from referral.core.use_cases import (
    accounts,
    clients,
    codes,
    email_links,
    enrichment,
    erasure,
    exports,
    job_dispatch,
    lookups,
    notifications,
    passwords,
    referrals,
    retention,
    sessions,
)
from referral.settings import Settings


class UseCases(Provider):
    """The policies and use cases, and their values that follow from the settings.

    It needs the ports and `Settings` alone, so the tests of the core use it over their fakes.
    """

    scope = Scope.APP
    policies = provide_all(
        CreditReferrer,
        FindStoredResponse,
        InvalidateLookup,
        LoginThrottle,
        MarkEmailConfirmed,
        Reauthenticate,
        RemoveAccount,
        ReserveMail,
        ReserveMailSlot,
        ResolveReferral,
        RetryLookupInvalidation,
        VerifyEmail,
        VerifyEmailAtSignup,
    )
    use_cases = provide_all(
        accounts.BlockAccount,
        accounts.Register,
        accounts.UpdateAccount,
        clients.AuthenticateClient,
        clients.CreateClient,
        clients.IntrospectToken,
        clients.IssueClientToken,
        codes.ActivateCode,
        codes.DeactivateCode,
        codes.DeleteCode,
        codes.IssueCode,
        codes.ListCodes,
        codes.RenewCode,
        codes.ShowActiveCode,
        codes.ShowCode,
        email_links.ConfirmEmail,
        email_links.DisownEmail,
        email_links.InspectLink,
        email_links.RequestConfirmationMail,
        email_links.RequestPasswordReset,
        email_links.ResetPassword,
        enrichment.EnrichProfile,
        erasure.EraseAccount,
        exports.ExportAccount,
        job_dispatch.DispatchJob,
        lookups.CheckCode,
        lookups.LookUpCode,
        notifications.NotifyReferrer,
        notifications.RequestCodeMail,
        notifications.SendCodeMail,
        notifications.SendConfirmationMail,
        notifications.SendPasswordResetMail,
        notifications.SendWelcomeMail,
        notifications.Unsubscribe,
        passwords.ChangePassword,
        referrals.SetReferrer,
        retention.ExpireUnconfirmed,
        retention.Prune,
        sessions.CheckSession,
        sessions.RefreshSession,
        sessions.RevokeSession,
    )

    @provide
    def confirmation_policy(self, settings: Settings) -> EmailConfirmationPolicy:
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
    def mail_rate(self, settings: Settings) -> MailRate:
        return MailRate(settings.limit_mail)
