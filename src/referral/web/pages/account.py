"""The page of people who are logged in: their code, who joined with it, and the language."""

from typing import Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, Response, get, post
from litestar.response import Redirect

from referral.core.entities.clients import Caller, Scope
from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.entities.sessions import FIRST_PARTY_CLIENT_ID
from referral.core.entities.users import EmailConfirmationPolicy, Locale
from referral.core.errors import (
    ActiveCodeExists,
    CodeTaken,
    EmailAlreadyVerified,
    InvalidRequest,
    NotFound,
    ReferralError,
    Unauthenticated,
)
from referral.core.ports.system import QrCodeRenderer
from referral.core.use_cases.accounts import AccountUpdate, UpdateAccount
from referral.core.use_cases.codes import (
    CodeRenewal,
    DeactivateCode,
    IssueCode,
    RenewCode,
    ShowActiveCode,
)
from referral.core.use_cases.email_links import RequestConfirmationMail
from referral.core.use_cases.login_sessions import ShowLoggedInAccount
from referral.core.use_cases.referrals import ListReferrals
from referral.web.injection import inject
from referral.web.pages.code_forms import CODE_FIELD_ERRORS, EXPIRY_DAYS, read_expiry, read_new_code
from referral.web.pages.forms import (
    form_token,
    idempotent_form,
    new_form_id,
    read_user_form,
    refuse_other_sites,
)
from referral.web.pages.login_cookie import find_user_id, login_token
from referral.web.pages.refusals import PAGE_EXCEPTION_HANDLERS
from referral.web.pages.rendering import ACCOUNT_LINK, render_form, render_notice
from referral.web.problems import status_of
from referral.web.public_urls import ACCOUNT_PATH, PublicUrls
from referral.web.rate_limits import TOKEN_LIMITS, count_by_user

MAIL_SENT_PATH = "/account/mail-sent"
REFERRALS_PAGE_ITEMS = 50


class AccountController(Controller):
    """The page `/account` and its forms, each of which leads back to it."""

    path = ACCOUNT_PATH
    include_in_schema = False
    guards = [refuse_other_sites]
    exception_handlers = PAGE_EXCEPTION_HANDLERS

    @get("/")
    async def show(self, request: Request[Any, Any, Any]) -> Response[Any]:
        """Show the code and who joined with it."""
        return await _account_page(request)

    @post("/codes", status_code=303)
    @inject
    async def create_code(
        self, request: Request[Any, Any, Any], issue_code: FromDishka[IssueCode]
    ) -> Response[Any]:
        """Create a code."""
        user_id, fields = await _read_form(request)
        await count_by_user(request.scope, RateLimitGroup.CODES, user_id)
        try:
            idempotent = await idempotent_form(request, fields, ACCOUNT_PATH)
            await issue_code(user_id, read_new_code(fields), idempotent)
        except (ActiveCodeExists, CodeTaken, InvalidRequest) as error:
            return await _account_page(request, error, fields)
        return Redirect(ACCOUNT_PATH, status_code=303)

    @post("/renew", status_code=303)
    @inject
    async def renew_code(
        self, request: Request[Any, Any, Any], renew: FromDishka[RenewCode]
    ) -> Response[Any]:
        """Renew a code until the chosen time."""
        user_id, fields = await _read_form(request)
        try:
            await renew(user_id, _read_code_id(fields), CodeRenewal(read_expiry(fields)))
        except (InvalidRequest, NotFound) as error:
            return await _account_page(request, error, fields)
        return Redirect(ACCOUNT_PATH, status_code=303)

    @post("/deactivate", status_code=303)
    @inject
    async def deactivate_code(
        self, request: Request[Any, Any, Any], deactivate: FromDishka[DeactivateCode]
    ) -> Response[Any]:
        """Deactivate a code."""
        user_id, fields = await _read_form(request)
        try:
            await deactivate(user_id, _read_code_id(fields))
        except (InvalidRequest, NotFound) as error:
            return await _account_page(request, error)
        return Redirect(ACCOUNT_PATH, status_code=303)

    @post("/locale", status_code=303)
    @inject
    async def set_locale(
        self, request: Request[Any, Any, Any], update: FromDishka[UpdateAccount]
    ) -> Response[Any]:
        """Set the language of this page and of mails."""
        user_id, fields = await _read_form(request)
        try:
            locale = Locale(fields.get("locale", ""))
        except ValueError as error:
            raise InvalidRequest(field="locale") from error
        await update(user_id, AccountUpdate(locale, None))
        return Redirect(ACCOUNT_PATH, status_code=303)

    @post("/notifications", status_code=303)
    @inject
    async def set_notifications(
        self, request: Request[Any, Any, Any], update: FromDishka[UpdateAccount]
    ) -> Response[Any]:
        """Turn the mails about new referrals on or off."""
        user_id, fields = await _read_form(request)
        await update(user_id, AccountUpdate(None, fields.get("notify_on_referral") == "on"))
        return Redirect(ACCOUNT_PATH, status_code=303)

    @post("/confirmation-mail", status_code=303, guards=TOKEN_LIMITS)
    @inject
    async def send_confirmation_mail(
        self, request: Request[Any, Any, Any], send_mail: FromDishka[RequestConfirmationMail]
    ) -> Response[Any]:
        """Send the mail with the confirmation link again."""
        user_id, fields = await _read_form(request)
        await count_by_user(request.scope, RateLimitGroup.TOKEN, user_id)
        try:
            await send_mail(user_id, await idempotent_form(request, fields, MAIL_SENT_PATH))
        except EmailAlreadyVerified:
            return Redirect(ACCOUNT_PATH, status_code=303)
        return Redirect(MAIL_SENT_PATH, status_code=303)

    @get("/mail-sent")
    async def show_mail_sent(self, request: Request[Any, Any, Any]) -> Response[str]:
        """Tell people to look into their mailbox."""
        return render_notice(request, "mail_sent", link=ACCOUNT_LINK)

    @get("/referrals")
    @inject
    async def show_referrals(
        self,
        request: Request[Any, Any, Any],
        show_account: FromDishka[ShowLoggedInAccount],
        list_referrals: FromDishka[ListReferrals],
    ) -> Response[Any]:
        """Show everybody who joined, a page at a time."""
        user = (await show_account(_require_token(request))).user
        caller = Caller(FIRST_PARTY_CLIENT_ID, frozenset({Scope.ACCOUNT}), user.id)
        after = _read_uuid(request.query_params.get("after", ""))
        page, _ = await list_referrals(
            caller, user.id, status=None, after=after, limit=REFERRALS_PAGE_ITEMS
        )
        return render_form(
            request, "referrals", locale=user.locale, referrals=page.items, next_id=page.next_after
        )

    @get("/qr.svg")
    @inject
    async def show_qr_svg(
        self,
        request: Request[Any, Any, Any],
        show_code: FromDishka[ShowActiveCode],
        urls: FromDishka[PublicUrls],
        qr_codes: FromDishka[QrCodeRenderer],
    ) -> Response[bytes]:
        """Return the QR code of the link that the page shows."""
        code = await _active_code(request, show_code)
        return Response(qr_codes.svg(urls.share(code.text)), media_type="image/svg+xml")

    @get("/qr.png")
    @inject
    async def show_qr_png(
        self,
        request: Request[Any, Any, Any],
        show_code: FromDishka[ShowActiveCode],
        urls: FromDishka[PublicUrls],
        qr_codes: FromDishka[QrCodeRenderer],
    ) -> Response[bytes]:
        """Return the QR code as a file to download."""
        code = await _active_code(request, show_code)
        headers = {"Content-Disposition": f'attachment; filename="{code.text}.png"'}
        image = qr_codes.png(urls.share(code.text))
        return Response(image, media_type="image/png", headers=headers)


async def _account_page(
    request: Request[Any, Any, Any],
    error: ReferralError | None = None,
    fields: dict[str, str] | None = None,
) -> Response[Any]:
    """Show the page, after an error with the fields that were sent."""
    container = request.app.state.container
    token = _require_token(request)
    account = await (await container.get(ShowLoggedInAccount))(token)
    policy = await container.get(EmailConfirmationPolicy)
    urls = await container.get(PublicUrls)
    code = account.enabled_code
    return render_form(
        request,
        "account",
        status=status_of(type(error)) if error else 200,
        errors=dict([CODE_FIELD_ERRORS[type(error), error.field]]) if error else None,
        locale=account.user.locale,
        account=account,
        code=code,
        code_status=code.status(account.as_of) if code else None,
        code_url=urls.share(code.text) if code else None,
        expiry_days=EXPIRY_DAYS,
        fields=fields or {},
        form_id=new_form_id(),
        form_token=form_token(token),
        is_confirmed=policy.is_satisfied_by(account.user),
    )


async def _read_form(request: Request[Any, Any, Any]) -> tuple[UUID, dict[str, str]]:
    """Return the user who is logged in, and the fields; raises `Unauthenticated`."""
    user_id = await find_user_id(request)
    if user_id is None:
        raise Unauthenticated
    return user_id, await read_user_form(request)


async def _active_code(request: Request[Any, Any, Any], show_code: ShowActiveCode) -> Code:
    user_id = await find_user_id(request)
    if user_id is None:
        raise Unauthenticated
    code, _ = await show_code(user_id)
    return code


def _require_token(request: Request[Any, Any, Any]) -> str:
    token = login_token(request)
    if token is None:
        raise Unauthenticated
    return token


def _read_code_id(fields: dict[str, str]) -> UUID:
    code_id = _read_uuid(fields.get("code_id", ""))
    if code_id is None:
        raise InvalidRequest(field="code_id")
    return code_id


def _read_uuid(text: str) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        return None
