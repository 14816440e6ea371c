"""What can go wrong, in six families.

The class is the contract: the web layer makes the slug and the title of the problem document from
its name (`EmailTaken` is `email-taken`), and the description from its docstring.
"""

from datetime import timedelta
from typing import ClassVar


class ReferralError(Exception):
    """Something that the caller can understand and act upon."""

    default_detail: ClassVar[str] = ""

    def __init__(self, detail: str = "", *, field: str | None = None) -> None:
        """Take what to tell the caller, and the name of the field that is at fault."""
        super().__init__(detail or self.default_detail)
        self.detail = detail or self.default_detail
        self.field = field


class NotFound(ReferralError):
    """There is nothing here, or nothing that the caller may see."""

    default_detail = "There is nothing here, or nothing that you may see."


class Conflict(ReferralError):
    """The request is in order, and the present state does not allow it."""


class Invalid(ReferralError):
    """The request was understood and breaks a rule."""


class Denied(ReferralError):
    """The caller is known and may not do this."""


class Unavailable(ReferralError):
    """A part that is needed does not answer at the moment; the same request may work later."""

    default_detail = (
        "A part of the service does not answer at the moment. Try again in a few seconds."
    )


class TooManyRequests(ReferralError):
    """Too much was asked for in a time. Wait, and try again."""

    default_detail = "This was asked for too often. Try again later."

    def __init__(self, detail: str = "", *, retry_after: timedelta) -> None:
        """Take how long to wait."""
        super().__init__(detail)
        self.retry_after = retry_after


class Unauthenticated(Denied):
    """No valid access token came with the request. Log in first."""

    default_detail = "A valid access token is needed."


class InsufficientScope(Denied):
    """The access token is valid, and its scope does not cover this request."""

    default_detail = "The scope of this access token does not cover this request."


class AccountBlocked(Denied):
    """The operator has blocked this account: it can be neither used, changed nor erased."""

    default_detail = "This account is blocked."


class InvalidRequest(Invalid):
    """The body or a parameter breaks the rules; `errors` names each place."""


class NoActiveCode(NotFound):
    """There is no referral code in force for what was asked."""

    default_detail = "There is no active referral code for this."


class EmailTaken(Conflict):
    """The e-mail address, however it is spelt, belongs to an account already."""

    default_detail = "This e-mail address has an account already. Log in, or use another address."


class ActiveCodeExists(Conflict):
    """A user has one active referral code at a time."""

    default_detail = (
        "You have an active code already. Deactivate it first, or send 'replace': true to retire "
        "it, or 'activate': false to make this one for later."
    )


class CodeTaken(Conflict):
    """A code's text is given out once and never again, deleted or not."""

    default_detail = "This code was given out before. Choose another wording."


class CodeExpired(Conflict):
    """The code has run out in time. Renew it first."""

    default_detail = "This code has expired. Renew it first."


class CodeExhausted(Conflict):
    """The code has been used as often as it may. Raise `max_uses` first."""

    default_detail = "This code is used up. Raise 'max_uses' first."


class ReferralCodeUnusable(Invalid):
    """The referral code is unknown, expired, inactive, used up or deleted; all look the same."""

    default_detail = "This referral code cannot be used. Ask for a new one, or register without it."


class EmailUndeliverable(Invalid):
    """No mail would arrive at the address, or it is one to throw away. Use another address."""

    default_detail = "No mail would arrive at this address, or it is a disposable one. Use another."


class WeakPassword(Invalid):
    """The password is too short, too long, common, or the same as the address' local part."""


class AlreadyReferred(Conflict):
    """One has at most one referrer, and it never changes."""

    default_detail = "You have a referrer already, and it never changes."


class ClaimWindowClosed(Conflict):
    """A referrer can be named within 7 days of joining."""

    default_detail = "A referrer can be named within 7 days of joining."


class IdempotencyKeyInUse(Conflict):
    """A request with this idempotency key is still being worked on. Try again in a moment."""

    default_detail = (
        "A request with this idempotency key is still being worked on. Try again in a moment."
    )


class IdempotencyKeyReused(Invalid):
    """The idempotency key came with another body before. Make a new one for each request."""

    default_detail = "This idempotency key came with another request before. Use a new one."


class TokenUnusable(Invalid):
    """The link was used before, is too old, or is none of this service's."""

    default_detail = "This link was used before or has expired. Ask for a new one."


class EmailAlreadyVerified(Conflict):
    """The e-mail address was confirmed before."""

    default_detail = "This e-mail address was confirmed before."


class WrongPassword(Invalid):
    """The current password that was sent is not right."""

    default_detail = "This is not your current password."


class InvalidClient(Denied):
    """The client is unknown, or its secret is wrong (RFC 6749, section 5.2)."""

    default_detail = "The client is unknown, or its secret is wrong."


class InvalidScope(Denied):
    """The scope asked for is more than the client has (RFC 6749, section 5.2)."""

    default_detail = "The scope asked for is unknown, or more than the client has."


class InvalidGrant(Denied):
    """The credentials, or the refresh token, are not valid (RFC 6749, section 5.2)."""

    default_detail = "The credentials are not valid."


class RescheduleJob(Exception):
    """A job has to wait for a while; that is no failure."""

    def __init__(self, delay: timedelta, counter: str | None = None) -> None:
        """Take how long, and the counter of the job that goes up by one, if any."""
        super().__init__(f"has to wait for {delay}")
        self.delay = delay
        self.counter = counter


class MailRefused(Exception):
    """A mail was refused for good: no other attempt will do better."""
