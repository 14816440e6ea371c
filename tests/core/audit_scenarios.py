"""How each use case is called whose change belongs in the audit log, and which ones need none."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

from referral.core.entities.audit import OPERATOR, SERVICE, Actor, AuditAction
from referral.core.entities.authorization_codes import AuthorizationRequest, make_code_challenge
from referral.core.entities.clients import Client, Scope
from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.searches import ReferralFilter
from referral.core.entities.subject_tokens import Identity, SubjectTokenType
from referral.core.entities.users import Role, User
from referral.core.policies.session_tokens import TokenPair
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
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService, client_caller

NEW_PASSWORD = "staple battery horse"
SHOP = client_caller(Scope.USERS_WRITE)
REDIRECT_URI = "https://app.example.com/callback"
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
ACTING = Client(UUID(int=8), "shop", b"", frozenset({Scope.USERS_ACT}), datetime.now(UTC))
REASON = "Reported by three users."


@dataclass(frozen=True)
class AuditedCall:
    """A prepared call, and the record that it adds; `subject` is None if the call makes it."""

    call: Callable[[], Awaitable[object]]
    actor: Actor
    action: AuditAction
    subject: UUID | str | None
    reason: str | None = None


Prepare = Callable[[InMemoryService, Actor], Awaitable[AuditedCall]]


async def _ann(service: InMemoryService) -> User:
    return await service.create_account("ann@example.com")


async def _client(service: InMemoryService) -> UUID:
    client, _ = await service.get(clients.CreateClient)("shop", [Scope.USERS_READ], OPERATOR)
    return client.id


async def _session(service: InMemoryService, user: User) -> tuple[UUID, TokenPair]:
    tokens = await service.log_in(user.email, PASSWORD, CLIENT_IP)
    session_id = service.access_tokens.verify(tokens.access_token).caller.session_id
    assert session_id is not None
    return session_id, tokens


async def block(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Block a user."""
    ann, use = await _ann(service), service.get(accounts.BlockAccount)
    return AuditedCall(
        lambda: use(ann.id, actor, REASON), actor, AuditAction.USER_BLOCKED, ann.id, REASON
    )


async def unblock(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Unblock a user."""
    ann, use = await _ann(service), service.get(accounts.BlockAccount)
    await service.block_account(ann.email)
    action = AuditAction.USER_UNBLOCKED
    return AuditedCall(lambda: use(ann.id, actor, REASON, undo=True), actor, action, ann.id, REASON)


async def create_admin(service: InMemoryService, _: Actor) -> AuditedCall:
    """Create an admin."""
    account = accounts.NewAccount("root@example.com", PASSWORD, role=Role.ADMIN)
    return AuditedCall(lambda: service.register(account), OPERATOR, AuditAction.USER_CREATED, None)


async def create_client(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Create a client."""
    use = service.get(clients.CreateClient)
    return AuditedCall(
        lambda: use("shop", [Scope.USERS_READ], actor), actor, AuditAction.CLIENT_CREATED, None
    )


async def rotate_client_secret(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Rotate the secret of a client."""
    client_id, use = await _client(service), service.get(clients.RotateClientSecret)
    action = AuditAction.CLIENT_SECRET_ROTATED
    return AuditedCall(lambda: use(str(client_id), actor), actor, action, client_id)


async def remove_client(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Remove a client."""
    client_id, use = await _client(service), service.get(clients.RemoveClient)
    action = AuditAction.CLIENT_DELETED
    return AuditedCall(lambda: use("shop", actor), actor, action, client_id)


async def add_signing_key(service: InMemoryService, _: Actor) -> AuditedCall:
    """Notice a key that no process has reported."""
    use, [key] = service.get(signing_keys.RecordKeyChanges), service.access_tokens.jwks()["keys"]
    return AuditedCall(use, SERVICE, AuditAction.SIGNING_KEY_ADDED, key["kid"])


async def export_referrals(service: InMemoryService, _: Actor) -> AuditedCall:
    """Begin an export of all referrals."""
    caller, use = client_caller(Scope.REFERRALS_READ), service.get(referral_review.ExportReferrals)
    batches = use(ReferralFilter(), caller, Scope.REFERRALS_READ)
    action = AuditAction.REFERRALS_EXPORTED
    return AuditedCall(lambda: anext(batches), caller.actor, action, referral_review.EXPORT_SUBJECT)


async def log_in(service: InMemoryService, _: Actor) -> AuditedCall:
    """Log in."""
    ann = await _ann(service)
    return AuditedCall(
        lambda: service.log_in(ann.email, PASSWORD, CLIENT_IP),
        Actor.user(ann.id),
        AuditAction.SESSION_STARTED,
        None,
    )


async def create_public_client(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Create a client without a secret."""
    use, action = service.get(clients.CreatePublicClient), AuditAction.CLIENT_CREATED
    return AuditedCall(lambda: use("app", [REDIRECT_URI], actor), actor, action, None)


async def log_in_browser(service: InMemoryService, _: Actor) -> AuditedCall:
    """Log a browser in."""
    ann, use = await _ann(service), service.get(login_sessions.BeginLoginSession)
    return AuditedCall(
        lambda: use(ann.email, PASSWORD, CLIENT_IP, None),
        Actor.user(ann.id),
        AuditAction.SESSION_STARTED,
        ann.id,
    )


async def log_out_browser(service: InMemoryService, _: Actor) -> AuditedCall:
    """Log a browser out."""
    ann, use = await _ann(service), service.get(login_sessions.EndLoginSession)
    begin = service.get(login_sessions.BeginLoginSession)
    token = await begin(ann.email, PASSWORD, CLIENT_IP, None)
    action = AuditAction.SESSION_ENDED
    return AuditedCall(lambda: use(token), Actor.user(ann.id), action, ann.id)


async def _code(service: InMemoryService) -> tuple[User, Client, str]:
    ann = await _ann(service)
    create = service.get(clients.CreatePublicClient)
    app = await create("app", [REDIRECT_URI], OPERATOR)
    begin = service.get(login_sessions.BeginLoginSession)
    token = await begin(ann.email, PASSWORD, CLIENT_IP, None)
    request = AuthorizationRequest(app.id, REDIRECT_URI, make_code_challenge(VERIFIER))
    code = await service.get(authorization_codes.IssueAuthorizationCode)(token, request)
    assert code is not None
    return ann, app, code


async def exchange_code(service: InMemoryService, _: Actor) -> AuditedCall:
    """Exchange an authorization code."""
    ann, app, code = await _code(service)
    use = service.get(authorization_codes.ExchangeAuthorizationCode)
    return AuditedCall(
        lambda: use(app, code, REDIRECT_URI, VERIFIER),
        Actor.user(ann.id),
        AuditAction.SESSION_STARTED,
        None,
    )


async def exchange_token(service: InMemoryService, _: Actor) -> AuditedCall:
    """Exchange a user's id for a token."""
    ann, use = await _ann(service), service.get(token_exchange.ExchangeToken)
    return AuditedCall(
        lambda: use(ACTING, SubjectTokenType.USER_ID, str(ann.id)),
        ACTING.actor,
        AuditAction.TOKEN_EXCHANGED,
        ann.id,
    )


async def reuse_code(service: InMemoryService, _: Actor) -> AuditedCall:
    """Exchange an authorization code again."""
    ann, app, code = await _code(service)
    use = service.get(authorization_codes.ExchangeAuthorizationCode)
    tokens = await use(app, code, REDIRECT_URI, VERIFIER)
    session_id = service.access_tokens.verify(tokens.access_token).caller.session_id
    return AuditedCall(
        lambda: use(app, code, REDIRECT_URI, VERIFIER),
        Actor.user(ann.id),
        AuditAction.SESSION_REUSED,
        session_id,
    )


async def reuse_refresh_token(service: InMemoryService, _: Actor) -> AuditedCall:
    """Use a refresh token again, after the heir of it was used."""
    ann = await _ann(service)
    session_id, tokens = await _session(service, ann)
    heir = await service.refresh(tokens.refresh_token)
    await service.refresh(heir.refresh_token)
    service.clock.advance(minutes=1)
    action = AuditAction.SESSION_REUSED
    return AuditedCall(
        lambda: service.refresh(tokens.refresh_token), Actor.user(ann.id), action, session_id
    )


async def log_out(service: InMemoryService, _: Actor) -> AuditedCall:
    """Revoke a session by its refresh token."""
    ann, use = await _ann(service), service.get(sessions.RevokeSession)
    session_id, tokens = await _session(service, ann)
    action = AuditAction.SESSION_ENDED
    return AuditedCall(lambda: use(tokens.refresh_token), Actor.user(ann.id), action, session_id)


async def log_out_by_access_token(service: InMemoryService, _: Actor) -> AuditedCall:
    """Revoke a session by an access token."""
    ann, use = await _ann(service), service.get(sessions.RevokeSession)
    session_id, tokens = await _session(service, ann)
    action = AuditAction.SESSION_ENDED
    return AuditedCall(lambda: use(tokens.access_token), Actor.user(ann.id), action, session_id)


async def change_password(service: InMemoryService, _: Actor) -> AuditedCall:
    """Change the password."""
    ann = await _ann(service)
    return AuditedCall(
        lambda: service.change_password(ann.id, None, PASSWORD, NEW_PASSWORD),
        Actor.user(ann.id),
        AuditAction.PASSWORD_CHANGED,
        ann.id,
    )


async def reset_password(service: InMemoryService, _: Actor) -> AuditedCall:
    """Reset the password by a link."""
    ann = await _ann(service)
    token, action = await service.create_mail_token(ann, TokenPurpose.RESET), AuditAction
    return AuditedCall(
        lambda: service.reset_password(token, NEW_PASSWORD),
        Actor.user(ann.id),
        action.PASSWORD_RESET,
        ann.id,
    )


async def erase(service: InMemoryService, _: Actor) -> AuditedCall:
    """Erase the own account."""
    ann = await _ann(service)
    return AuditedCall(
        lambda: service.erase_account(ann.id, PASSWORD),
        Actor.user(ann.id),
        AuditAction.USER_ERASED,
        ann.id,
    )


async def disown(service: InMemoryService, _: Actor) -> AuditedCall:
    """Erase an account that somebody else made."""
    ann = await _ann(service)
    token = await service.create_mail_token(ann)
    return AuditedCall(
        lambda: service.disown_email(token), Actor.user(ann.id), AuditAction.USER_ERASED, ann.id
    )


async def expire(service: InMemoryService, _: Actor) -> AuditedCall:
    """Erase an account that was not confirmed in time."""
    service.configure(email_verification="on")
    ann = await _ann(service)
    service.clock.advance(days=31)
    return AuditedCall(service.expire_unconfirmed, SERVICE, AuditAction.USER_ERASED, ann.id)


async def _put_external_user(service: InMemoryService, email: str) -> User:
    put = service.get(external_users.PutExternalUser)
    details, _ = await put(SHOP, "shop-1", external_users.ExternalUserData(email))
    return details.user


async def create_external_user(service: InMemoryService, _: Actor) -> AuditedCall:
    """Create the user of a product."""
    action = AuditAction.USER_CREATED
    return AuditedCall(
        lambda: _put_external_user(service, "ann@example.com"), SHOP.actor, action, None
    )


async def change_external_user(service: InMemoryService, _: Actor) -> AuditedCall:
    """Change the address of a product's user."""
    ann, action = await _put_external_user(service, "ann@example.com"), AuditAction.USER_CHANGED
    return AuditedCall(
        lambda: _put_external_user(service, "new@example.com"), SHOP.actor, action, ann.id
    )


async def erase_user(service: InMemoryService, _: Actor) -> AuditedCall:
    """Erase a user as a client."""
    ann, use = await _ann(service), service.get(users.EraseUser)
    return AuditedCall(lambda: use(SHOP, ann.id), SHOP.actor, AuditAction.USER_ERASED, ann.id)


async def create_webhook(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Create a webhook."""
    use = service.get(webhooks.CreateWebhook)
    new = webhooks.NewWebhook("https://shop.example/", ["*"])
    return AuditedCall(lambda: use(actor, new), actor, AuditAction.WEBHOOK_CREATED, None)


async def _webhook(service: InMemoryService, *, enabled: bool = True) -> UUID:
    new = webhooks.NewWebhook("https://shop.example/", ["*"])
    webhook, _ = await service.get(webhooks.CreateWebhook)(OPERATOR, new)
    if not enabled:
        changes = webhooks.WebhookChanges(enabled=False)
        await service.get(webhooks.UpdateWebhook)(OPERATOR, webhook.id, changes)
    return webhook.id


def update_webhook(
    changes: webhooks.WebhookChanges, action: AuditAction, *, enabled: bool = True
) -> Prepare:
    """Change, enable or disable a webhook."""

    async def prepare(service: InMemoryService, actor: Actor) -> AuditedCall:
        webhook_id, use = (
            await _webhook(service, enabled=enabled),
            service.get(webhooks.UpdateWebhook),
        )
        return AuditedCall(lambda: use(actor, webhook_id, changes), actor, action, webhook_id)

    return prepare


async def deactivate_code(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Deactivate somebody's code."""
    code = await service.create_code(await _ann(service))
    use = service.get(code_administration.DeactivateAnyCode)
    return AuditedCall(
        lambda: use(code.id, actor, REASON), actor, AuditAction.CODE_DEACTIVATED, code.id, REASON
    )


def decide(status: ReferralStatus, action: AuditAction) -> Prepare:
    """Decide on a referral."""

    async def prepare(service: InMemoryService, actor: Actor) -> AuditedCall:
        code = await service.create_code(await _ann(service))
        await service.create_account("bob@example.com", referral_code=code.text)
        async with service.database.read() as repositories:
            [referral_id] = repositories.tables.referrals
        use = service.get(referral_review.DecideReferral)
        call = lambda: use(referral_id, status, actor, REASON)  # noqa: E731 - as in the others
        return AuditedCall(call, actor, action, referral_id, REASON)

    return prepare


def change_webhook(
    use_case: type[webhooks.DeleteWebhook | webhooks.RotateWebhookSecret | webhooks.SendTestEvent],
    action: AuditAction,
) -> Prepare:
    """Call a use case that needs nothing but the webhook."""

    async def prepare(service: InMemoryService, actor: Actor) -> AuditedCall:
        webhook_id, use = await _webhook(service), service.get(use_case)
        return AuditedCall(lambda: use(actor, webhook_id), actor, action, webhook_id)

    return prepare


async def replay_events(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Deliver past events again."""
    webhook_id, use = await _webhook(service), service.get(webhook_deliveries.ReplayEvents)
    since, action = service.clock.now() - timedelta(days=1), AuditAction.WEBHOOK_REPLAYED
    return AuditedCall(lambda: use(actor, webhook_id, since), actor, action, webhook_id)


async def retry_delivery(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Attempt a delivery once more."""
    webhook_id, use = await _webhook(service), service.get(webhook_deliveries.RetryDelivery)
    await service.get(webhooks.SendTestEvent)(OPERATOR, webhook_id)
    async with service.database.read() as repositories:
        [delivery_id] = repositories.tables.deliveries
    action = AuditAction.DELIVERY_RETRIED
    return AuditedCall(lambda: use(actor, webhook_id, delivery_id), actor, action, delivery_id)


async def set_referrer(service: InMemoryService, actor: Actor) -> AuditedCall:
    """Set a user's referrer."""
    ann, bob = await _ann(service), await service.create_account("bob@example.com")
    use, action = service.get(referral_review.SetReferrerByHand), AuditAction.USER_REFERRER_SET
    return AuditedCall(lambda: use(bob.id, ann.id, actor, REASON), actor, action, bob.id, REASON)


async def _find_identity_user(service: InMemoryService) -> User:
    identity = Identity("https://id.example", "ann", "ann@example.com")
    return await service.get(token_exchange.FindIdentityUser)(ACTING, identity)


async def create_at_first_sight(service: InMemoryService, _: Actor) -> AuditedCall:
    """Create the user of a trusted issuer."""
    return AuditedCall(
        lambda: _find_identity_user(service), ACTING.actor, AuditAction.USER_CREATED, None
    )


async def join_identity(service: InMemoryService, _: Actor) -> AuditedCall:
    """Join an identity to the confirmed account of its address."""
    ann = await _ann(service)
    async with service.database.begin() as repositories:
        await repositories.users.save(replace(ann, email_verified=True))
    return AuditedCall(
        lambda: _find_identity_user(service), ACTING.actor, AuditAction.USER_CHANGED, ann.id
    )


AUDITED: dict[type, tuple[Prepare, ...]] = {
    accounts.BlockAccount: (block, unblock),
    accounts.Register: (create_admin,),
    clients.CreateClient: (create_client,),
    clients.RemoveClient: (remove_client,),
    clients.RotateClientSecret: (rotate_client_secret,),
    code_administration.DeactivateAnyCode: (deactivate_code,),
    email_links.DisownEmail: (disown,),
    email_links.ResetPassword: (reset_password,),
    erasure.EraseAccount: (erase,),
    external_users.PutExternalUser: (create_external_user, change_external_user),
    passwords.ChangePassword: (change_password,),
    referral_review.DecideReferral: (
        decide(ReferralStatus.CONFIRMED, AuditAction.REFERRAL_CONFIRMED),
        decide(ReferralStatus.REJECTED, AuditAction.REFERRAL_REJECTED),
    ),
    referral_review.ExportReferrals: (export_referrals,),
    referral_review.SetReferrerByHand: (set_referrer,),
    retention.ExpireUnconfirmed: (expire,),
    authorization_codes.ExchangeAuthorizationCode: (exchange_code, reuse_code),
    clients.CreatePublicClient: (create_public_client,),
    login_sessions.BeginLoginSession: (log_in_browser,),
    login_sessions.EndLoginSession: (log_out_browser,),
    sessions.LogIn: (log_in,),
    sessions.RefreshSession: (reuse_refresh_token,),
    sessions.RevokeSession: (log_out, log_out_by_access_token),
    signing_keys.RecordKeyChanges: (add_signing_key,),
    token_exchange.ExchangeToken: (exchange_token,),
    token_exchange.FindIdentityUser: (create_at_first_sight, join_identity),
    users.EraseUser: (erase_user,),
    webhook_deliveries.ReplayEvents: (replay_events,),
    webhook_deliveries.RetryDelivery: (retry_delivery,),
    webhooks.CreateWebhook: (create_webhook,),
    webhooks.DeleteWebhook: (change_webhook(webhooks.DeleteWebhook, AuditAction.WEBHOOK_DELETED),),
    webhooks.RotateWebhookSecret: (
        change_webhook(webhooks.RotateWebhookSecret, AuditAction.WEBHOOK_SECRET_ROTATED),
    ),
    webhooks.SendTestEvent: (change_webhook(webhooks.SendTestEvent, AuditAction.WEBHOOK_TESTED),),
    webhooks.UpdateWebhook: (
        update_webhook(webhooks.WebhookChanges(description="Shop"), AuditAction.WEBHOOK_CHANGED),
        update_webhook(webhooks.WebhookChanges(enabled=False), AuditAction.WEBHOOK_DISABLED),
        update_webhook(
            webhooks.WebhookChanges(enabled=True), AuditAction.WEBHOOK_ENABLED, enabled=False
        ),
    ),
}
"""The use cases that add a record, and how to call them."""

SELF_SERVICE: set[type] = {
    accounts.Unsubscribe,
    accounts.UpdateAccount,
    authorization_codes.IssueAuthorizationCode,
    codes.ActivateCode,
    codes.DeactivateCode,
    codes.DeleteCode,
    codes.IssueCode,
    codes.RenewCode,
    email_links.ConfirmEmail,
    email_links.RequestConfirmationMail,
    email_links.RequestPasswordReset,
    notifications.RequestCodeMail,
    referrals.SetReferrer,
}
"""Changes by users of what is theirs, which do not concern security."""

IN_BATCHES: set[type] = {exports.RecordExport, imports.ImportLines}
"""With a record at the start and one at the end: see `test_exports` and `test_imports`."""

JOBS: set[type] = {
    enrichment.EnrichProfile,
    job_dispatch.DispatchJob,
    notifications.NotifyReferrer,
    notifications.SendCodeMail,
    notifications.SendConfirmationMail,
    notifications.SendPasswordResetMail,
    notifications.SendWelcomeMail,
    events.PublishEvents,
    events.ReportExpiredCodes,
    retention.Prune,
    secret_reencryption.ReencryptSecrets,
    statistics.AddStatisticsChanges,
    webhook_deliveries.DeleteDeliveries,
    webhook_deliveries.FailPendingDeliveries,
    webhook_deliveries.CreateReplayDeliveries,
    webhook_sending.DeliverWebhook,
    webhook_sending.EnqueueDueWebhooks,
}
"""Work of the service itself."""

READS: tuple[type, ...] = (
    accounts.FindAccount,
    accounts.InspectUnsubscribeToken,
    accounts.ShowAccount,
    audit.ListAuditRecords,
    clients.AuthenticateClient,
    clients.IntrospectToken,
    clients.IssueClientToken,
    clients.ListClients,
    code_administration.ListAllCodes,
    codes.ListCodes,
    codes.ShowActiveCode,
    codes.ShowCode,
    email_links.InspectLink,
    events.ListEvents,
    exports.ExportAccount,
    login_sessions.FindLoginSession,
    login_sessions.ShowLoggedInAccount,
    lookups.CheckCode,
    lookups.LookUpCode,
    referral_review.ListAllReferrals,
    referrals.ListReferrals,
    sessions.CheckSession,
    statistics.ListReferrers,
    statistics.ShowStatistics,
    statistics.ShowUserStatistics,
    users.ListUsers,
    users.ShowUser,
    webhook_deliveries.ListDeliveries,
    webhooks.ListWebhooks,
    webhooks.ShowWebhook,
)
"""Use cases that begin no transaction."""
