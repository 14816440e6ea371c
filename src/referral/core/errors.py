"""Errors of the core, in six families.

Class names and docstrings are part of the API: the web layer derives the slug and the title of a
problem document from the name (`EmailTaken` is `email-taken`), its description from the docstring.
"""

from datetime import timedelta
from typing import ClassVar


class ReferralError(Exception):
    """The base of all errors that are reported to the caller."""

    default_detail: ClassVar[str] = ""

    def __init__(self, detail: str = "", *, field: str | None = None) -> None:
        """Take the message for the caller, and the name of the invalid request field."""
        super().__init__(detail or self.default_detail)
        self.detail = detail or self.default_detail
        self.field = field


class NotFound(ReferralError):
    """The resource does not exist, or the caller may not see it."""

    default_detail = "The resource does not exist, or you may not see it."


class Conflict(ReferralError):
    """The request is valid, but conflicts with the current state."""


class Invalid(ReferralError):
    """The request is well-formed, but breaks a rule."""


class Denied(ReferralError):
    """The caller is not authenticated or not authorized."""


class Unavailable(ReferralError):
    """A required component is unavailable. Retry the same request later."""

    default_detail = "A component of the service is unavailable. Try again in a few seconds."


class TooManyRequests(ReferralError):
    """A rate limit is exceeded. Wait and retry."""

    default_detail = "Too many requests. Try again later."

    def __init__(self, detail: str = "", *, retry_after: timedelta) -> None:
        """Take the message for the caller, and the time to wait."""
        super().__init__(detail)
        self.retry_after = retry_after


class Unauthenticated(Denied):
    """The request has no valid access token. Log in first."""

    default_detail = "A valid access token is required."


class InsufficientScope(Denied):
    """The access token is valid, but its scope does not cover this request."""

    default_detail = "The scope of this access token does not cover this request."

    def __init__(self, detail: str = "", *, scope: str | None = None) -> None:
        """Take the message, or the scope that a client needs."""
        if scope is not None:
            detail = f"This requires an admin, or a client with the scope '{scope}'."
        super().__init__(detail)
        self.scope = scope


class AccountBlocked(Denied):
    """The operator has blocked this account: it cannot be used, changed or erased."""

    default_detail = "This account is blocked."


class InvalidRequest(Invalid):
    """The request body or a parameter is invalid; `errors` lists each invalid value."""


class NoActiveCode(NotFound):
    """The user has no active referral code."""

    default_detail = "There is no active referral code."


class EmailTaken(Conflict):
    """An account with this e-mail address exists, in this or another spelling."""

    default_detail = "This e-mail address has an account already. Log in, or use another address."


class ExternalIdTaken(Conflict):
    """Another account has this external id."""

    default_detail = "Another account has this external id."


class ActiveCodeExists(Conflict):
    """The user has an active referral code already, and at most one code may be active."""

    default_detail = (
        "You have an active code already. Deactivate it first, or send 'replace': true to retire "
        "it, or 'activate': false to create an inactive code."
    )


class CodeTaken(Conflict):
    """Another code has or had this text. Texts are never reused, not even after deletion."""

    default_detail = "This code is or was in use. Choose another one."


class ClientNameTaken(Conflict):
    """Another client has this name."""

    default_detail = "A client with this name exists already. Choose another name."


class TooManyWebhooks(Conflict):
    """The service has as many webhooks as it can deliver to without delays."""

    default_detail = "There are 50 webhooks already, the maximum. Delete one that is not needed."


class ReferralDecided(Conflict):
    """An admin has decided on this referral already."""

    default_detail = "An admin has decided on this referral already."


class CodeExpired(Conflict):
    """The code has expired. Renew it first."""

    default_detail = "This code has expired. Renew it first."


class CodeExhausted(Conflict):
    """The code has reached its maximum number of uses. Increase `max_uses` first."""

    default_detail = "This code has reached its maximum number of uses. Increase 'max_uses' first."


class ReferralCodeUnusable(Invalid):
    """The referral code is unknown, expired, inactive, exhausted, deleted, or the caller's own."""

    default_detail = "This referral code cannot be used. Use another one, or register without it."


class EmailUndeliverable(Invalid):
    """The e-mail address is undeliverable or disposable. Use another address."""

    default_detail = "This e-mail address is undeliverable or disposable. Use another address."


class WeakPassword(Invalid):
    """The password is too short, too long, common, or equal to the e-mail's local part."""


class AlreadyReferred(Conflict):
    """The user has a referrer already. A user has at most one, and it never changes."""

    default_detail = "You have a referrer already. It cannot be changed."


class ClaimWindowClosed(Conflict):
    """The period for setting a referrer, 7 days from registration, has ended."""

    default_detail = "A referrer can be set within 7 days of registration only."


class WebhookDisabled(Conflict):
    """The webhook is disabled, and receives nothing. Enable it first."""

    default_detail = "This webhook is disabled. Enable it first."


class IdempotencyKeyInUse(Conflict):
    """Another request with this idempotency key is in progress. Retry in a moment."""

    default_detail = (
        "Another request with this idempotency key is in progress. Try again in a moment."
    )


class IdempotencyKeyReused(Invalid):
    """The idempotency key was used with a different body. Use a new key for each request."""

    default_detail = "This idempotency key was used with a different request. Use a new key."


class TokenUnusable(Invalid):
    """The link is unknown, expired or already used. Request a new one."""

    default_detail = "This link is invalid, expired or already used. Request a new one."


class EmailAlreadyVerified(Conflict):
    """The e-mail address is already confirmed."""

    default_detail = "This e-mail address is already confirmed."


class WrongPassword(Invalid):
    """The password in the request is not the account's current password."""

    default_detail = "The password is wrong. Send the current password."


class InvalidClient(Denied):
    """The client is unknown, or its secret is wrong (RFC 6749, section 5.2)."""

    default_detail = "The client is unknown, or its secret is wrong."


class InvalidScope(Denied):
    """The requested scope is unknown or not granted to the client (RFC 6749, section 5.2)."""

    default_detail = "The requested scope is unknown, or not granted to this client."


class InvalidGrant(Denied):
    """The credentials or the refresh token are invalid (RFC 6749, section 5.2)."""

    default_detail = "The credentials are invalid."


class UnauthorizedClient(Denied):
    """The client may not use this grant (RFC 6749, section 5.2)."""

    default_detail = "The client may not use this grant: it needs the scope 'users:act'."


class InvalidSubjectToken(Denied):
    """The subject token is invalid or unacceptable (RFC 8693, section 2.2.2)."""

    default_detail = "The subject token is not valid."


class RescheduleJob(Exception):
    """The job must run again after a delay. This does not count as a failure."""

    def __init__(self, delay: timedelta, counter: str | None = None) -> None:
        """Take the delay, and the name of the job counter to increment, if any."""
        super().__init__(f"rescheduled in {delay}")
        self.delay = delay
        self.counter = counter


class MailRefused(Exception):
    """The mail server rejected a mail permanently; a retry cannot succeed."""
