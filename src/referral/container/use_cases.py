"""The use cases. They keep no state between calls, so the container creates each only once."""

from datetime import UTC, datetime, timedelta

from dishka import Provider, Scope, provide, provide_all

from referral.core.entities.clients import NO_SECRET, Client
from referral.core.entities.referrals import ReferralVisibility
from referral.core.entities.risk import HoldPolicy, RiskLevel
from referral.core.entities.users import EmailConfirmationPolicy
from referral.core.policies.account_removal import RemoveAccount
from referral.core.policies.attribution import CreditReferrer, ResolveReferral
from referral.core.policies.audit_recording import RecordAudit
from referral.core.policies.authorization import Authorize, CheckActingClient
from referral.core.policies.client_identification import (
    DOCS_CLIENT_ID,
    DocsClient,
    FindClient,
    IdentifyPublicClient,
)
from referral.core.policies.email_confirmation import MarkEmailConfirmed
from referral.core.policies.email_deliverability import VerifyEmail, VerifyEmailAtSignup
from referral.core.policies.event_recording import RecordEvents
from referral.core.policies.external_accounts import (
    ChangeEmail,
    CreateExternalAccount,
    EnqueueAddressJobs,
    ReleaseEmail,
)
from referral.core.policies.idempotency import FindStoredResponse
from referral.core.policies.login_throttle import LoginThrottle
from referral.core.policies.lookup_invalidation import InvalidateLookup, RetryLookupInvalidation
from referral.core.policies.mail_quota import MailRate, ReserveSlotInBatch, ReserveSlotInTransaction
from referral.core.policies.password_login import PasswordLogin
from referral.core.policies.reauthentication import Reauthenticate
from referral.core.policies.risk_assessment import AssessRisk, ReassessAddress, RecordNetwork
from referral.core.policies.session_tokens import BeginSession, SessionLifetime
from referral.core.policies.webhook_attempts import DisableWebhook, RecordAttempts
from referral.core.policies.webhook_fanout import FanOutEvents
from referral.core.use_cases import (
    accounts,
    audit,
    authorization_codes,
    clients,
    code_administration,
    codes,
    email_links,
    enrichment,
    erasure,
    events,
    exports,
    external_users,
    imports,
    job_dispatch,
    login_sessions,
    lookups,
    notifications,
    passwords,
    referral_review,
    referrals,
    retention,
    secret_reencryption,
    sessions,
    signing_keys,
    statistics,
    token_exchange,
    users,
    webhook_deliveries,
    webhook_sending,
    webhooks,
)
from referral.settings import Settings


class UseCases(Provider):
    """The policies and use cases, and their values that follow from the settings.

    It needs the ports and `Settings` alone, so the tests of the core use it over their fakes.
    """

    scope = Scope.APP
    policies = provide_all(
        AssessRisk,
        Authorize,
        CheckActingClient,
        BeginSession,
        ChangeEmail,
        CreateExternalAccount,
        CreditReferrer,
        EnqueueAddressJobs,
        DisableWebhook,
        FanOutEvents,
        FindClient,
        FindStoredResponse,
        IdentifyPublicClient,
        InvalidateLookup,
        LoginThrottle,
        MarkEmailConfirmed,
        PasswordLogin,
        Reauthenticate,
        ReassessAddress,
        RecordAudit,
        RecordEvents,
        RecordNetwork,
        RecordAttempts,
        RemoveAccount,
        ReleaseEmail,
        ReserveSlotInBatch,
        ReserveSlotInTransaction,
        ResolveReferral,
        RetryLookupInvalidation,
        VerifyEmail,
        VerifyEmailAtSignup,
    )
    use_cases = provide_all(
        accounts.BlockAccount,
        accounts.FindAccount,
        accounts.Register,
        accounts.ShowAccount,
        accounts.InspectUnsubscribeToken,
        accounts.Unsubscribe,
        accounts.UpdateAccount,
        audit.ListAuditRecords,
        authorization_codes.ExchangeAuthorizationCode,
        authorization_codes.IssueAuthorizationCode,
        clients.AuthenticateClient,
        clients.CreateClient,
        clients.CreatePublicClient,
        clients.IntrospectToken,
        clients.IssueClientToken,
        clients.ListClients,
        clients.RemoveClient,
        clients.RotateClientSecret,
        code_administration.DeactivateAnyCode,
        code_administration.ListAllCodes,
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
        events.ListEvents,
        events.PublishEvents,
        events.ReportExpiredCodes,
        exports.ExportAccount,
        exports.RecordExport,
        external_users.PutExternalUser,
        imports.ImportLines,
        job_dispatch.DispatchJob,
        login_sessions.BeginLoginSession,
        login_sessions.EndLoginSession,
        login_sessions.FindLoginSession,
        login_sessions.ShowLoggedInAccount,
        lookups.CheckCode,
        lookups.LookUpCode,
        notifications.NotifyReferrer,
        notifications.RequestCodeMail,
        notifications.SendCodeMail,
        notifications.SendConfirmationMail,
        notifications.SendPasswordResetMail,
        notifications.SendWelcomeMail,
        passwords.ChangePassword,
        referral_review.DecideReferral,
        referral_review.ExportReferrals,
        referral_review.ListAllReferrals,
        referral_review.SetReferrerByHand,
        referrals.ListReferrals,
        referrals.SetReferrer,
        retention.ExpireUnconfirmed,
        retention.Prune,
        secret_reencryption.ReencryptSecrets,
        sessions.CheckSession,
        sessions.LogIn,
        sessions.RefreshSession,
        sessions.RevokeSession,
        signing_keys.RecordKeyChanges,
        statistics.AddStatisticsChanges,
        statistics.ListReferrers,
        statistics.ShowStatistics,
        statistics.ShowUserStatistics,
        token_exchange.ExchangeToken,
        token_exchange.FindIdentityUser,
        users.EraseUser,
        users.ListUsers,
        users.ShowUser,
        webhook_deliveries.DeleteDeliveries,
        webhook_deliveries.FailPendingDeliveries,
        webhook_deliveries.ListDeliveries,
        webhook_deliveries.CreateReplayDeliveries,
        webhook_deliveries.ReplayEvents,
        webhook_deliveries.RetryDelivery,
        webhook_sending.DeliverWebhook,
        webhook_sending.EnqueueDueWebhooks,
        webhooks.CreateWebhook,
        webhooks.DeleteWebhook,
        webhooks.ListWebhooks,
        webhooks.RotateWebhookSecret,
        webhooks.ShowWebhook,
        webhooks.SendTestEvent,
        webhooks.UpdateWebhook,
    )

    @provide
    def confirmation_policy(self, settings: Settings) -> EmailConfirmationPolicy:
        return EmailConfirmationPolicy(required=settings.requires_confirmed_email)

    @provide
    def hold_policy(self, settings: Settings) -> HoldPolicy:
        return HoldPolicy(None if settings.risk_hold == "off" else RiskLevel(settings.risk_hold))

    @provide
    def referral_visibility(self, settings: Settings) -> ReferralVisibility:
        return settings.referrals_visibility

    @provide
    def docs_client(self, settings: Settings) -> DocsClient:
        client = Client(
            id=DOCS_CLIENT_ID,
            name="API documentation",
            secret_digest=NO_SECRET,
            scopes=frozenset(),
            created_at=datetime.fromtimestamp(0, UTC),
            redirect_uris=(f"{settings.public_url}/docs/oauth2-redirect",),
        )
        return DocsClient(client)

    @provide
    def session_lifetime(self, settings: Settings) -> SessionLifetime:
        return SessionLifetime(timedelta(days=settings.refresh_token_days))

    @provide
    def audit_retention(self, settings: Settings) -> retention.AuditRetention:
        return retention.AuditRetention(timedelta(days=settings.audit_days))

    @provide
    def mail_rate(self, settings: Settings) -> MailRate:
        return MailRate(settings.limit_mail)
