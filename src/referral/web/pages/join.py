"""The page on which people create an account: the default landing page of share links."""

from typing import Any

from dishka import FromDishka
from litestar import Controller, Request, Response, get, post
from litestar.response import Redirect

from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.entities.users import EmailConfirmationPolicy
from referral.core.errors import (
    EmailTaken,
    EmailUndeliverable,
    InvalidRequest,
    ReferralCodeUnusable,
    ReferralError,
    WeakPassword,
)
from referral.core.use_cases.accounts import NewAccount, Register
from referral.core.use_cases.lookups import CheckCode
from referral.web.injection import inject
from referral.web.pages.forms import (
    idempotent_form,
    new_form_cookie,
    new_form_id,
    read_anonymous_form,
    refuse_other_sites,
    set_form_cookie,
)
from referral.web.pages.refusals import PAGE_EXCEPTION_HANDLERS
from referral.web.pages.rendering import LOGIN_LINK, client_locale, render_form, render_notice
from referral.web.problems import status_of
from referral.web.public_urls import JOIN_PATH
from referral.web.rate_limits import TOKEN_LIMITS, client_ip_of, count_by_ip, limit_by_ip

DONE_PATH = f"{JOIN_PATH}/done"

FIELD_ERRORS: dict[type[ReferralError], tuple[str, str]] = {
    EmailTaken: ("email", "email_taken"),
    EmailUndeliverable: ("email", "email_undeliverable"),
    InvalidRequest: ("email", "invalid_email"),
    ReferralCodeUnusable: ("referral_code", "code_unusable"),
    WeakPassword: ("password", "weak_password"),
}
"""The field and the text of each error of a registration."""


class JoinController(Controller):
    """The page `/join`. It does not tell who the owner of a code is."""

    path = JOIN_PATH
    include_in_schema = False
    guards = [refuse_other_sites]
    exception_handlers = PAGE_EXCEPTION_HANDLERS

    @get("/")
    @inject
    async def show_form(
        self, request: Request[Any, Any, Any], check_code: FromDishka[CheckCode]
    ) -> Response[Any]:
        """Show the form, and whether the code of the link is good."""
        text = request.query_params.get("ref", "").strip()
        if text:
            await count_by_ip(request.scope, RateLimitGroup.LOOKUP)
        code = await check_code(text)
        return _join_form(request, {"referral_code": code.text if code else ""}, text, code)

    @post(
        "/",
        status_code=303,
        guards=[limit_by_ip(RateLimitGroup.REGISTER), *TOKEN_LIMITS],
    )
    @inject
    async def join(
        self,
        request: Request[Any, Any, Any],
        check_code: FromDishka[CheckCode],
        register: FromDishka[Register],
    ) -> Response[Any]:
        """Create the account, or show the form again with what was typed."""
        fields = await read_anonymous_form(request)
        text = fields.get("referral_code", "").strip()
        account = NewAccount(
            fields.get("email", "").strip(),
            fields.get("password", ""),
            text or None,
            client_locale(request),
            client_ip=client_ip_of(request.scope),
        )
        try:
            await register(account, await idempotent_form(request, fields, DONE_PATH))
        except tuple(FIELD_ERRORS) as error:
            return _join_form(request, fields, text, await check_code(text), error)
        return Redirect(DONE_PATH, status_code=303)

    @get("/done")
    @inject
    async def show_done(
        self, request: Request[Any, Any, Any], policy: FromDishka[EmailConfirmationPolicy]
    ) -> Response[str]:
        """Tell people to look into their mailbox."""
        name = "joined" if policy.required else "joined_ready"
        return render_notice(request, name, link=LOGIN_LINK)


def _join_form(
    request: Request[Any, Any, Any],
    fields: dict[str, str],
    text: str,
    code: Code | None,
    error: ReferralError | None = None,
) -> Response[Any]:
    cookie, token = new_form_cookie(request)
    page = render_form(
        request,
        "join",
        status=status_of(type(error)) if error else 200,
        errors=dict([FIELD_ERRORS[type(error)]]) if error else None,
        code=code,
        has_bad_code=bool(text) and code is None and error is None,
        email=fields.get("email", ""),
        referral_code=fields.get("referral_code", ""),
        form_token=token,
        form_id=new_form_id(),
    )
    return set_form_cookie(request, page, cookie)
