"""The pages that links in mails lead to. They have no scripts, and GET changes nothing."""

from collections.abc import Mapping
from typing import Any, Literal

from dishka import FromDishka
from litestar import Controller, Request, Response, get, post

from referral.core.entities.email_links import TokenPurpose
from referral.core.errors import TokenUnusable, WeakPassword, WrongPassword
from referral.core.use_cases.email_links import (
    ConfirmEmail,
    DisownEmail,
    InspectLink,
    ResetPassword,
)
from referral.web.injection import inject
from referral.web.pages.forms import MalformedForm, read_form_fields, refuse_other_sites
from referral.web.pages.refusals import PAGE_EXCEPTION_HANDLERS
from referral.web.pages.rendering import (
    ACCOUNT_LINK,
    FORGOT_LINK,
    LOGIN_LINK,
    render_form,
    render_notice,
)
from referral.web.rate_limits import TOKEN_LIMITS, client_ip_of


def show_unusable_link(request: Request[Any, Any, Any], _: TokenUnusable) -> Response[str]:
    """Show that the link was used before, has expired or never existed."""
    return render_notice(request, "unusable", status=422, link=LOGIN_LINK)


def show_weak_password(request: Request[Any, Any, Any], _: WeakPassword) -> Response[str]:
    """Show the reset form again, with the reason."""
    return _form(request, "reset", {"new_password": "weak_password"})


def show_wrong_password(request: Request[Any, Any, Any], _: WrongPassword) -> Response[str]:
    """Show the confirmation form again, with the reason."""
    return _form(request, "confirm", {"password": "wrong_password"})


class EmailLinkPagesController(Controller):
    """The pages that links lead to unless `REFERRAL_CONFIRM_URL` or `REFERRAL_RESET_URL` is set."""

    path = "/"
    include_in_schema = False
    guards = [refuse_other_sites]
    exception_handlers = PAGE_EXCEPTION_HANDLERS | {
        TokenUnusable: show_unusable_link,
        WeakPassword: show_weak_password,
        WrongPassword: show_wrong_password,
    }

    @get("/confirm")
    @inject
    async def show_confirm_form(
        self, request: Request[Any, Any, Any], inspect_link: FromDishka[InspectLink]
    ) -> Response[str]:
        """Show the form: mail scanners that follow every link must not confirm the address."""
        if "token" not in request.query_params:
            return render_notice(request, "confirm_link_missing", status=422, link=LOGIN_LINK)
        await _inspect(request, request.query_params, inspect_link, TokenPurpose.CONFIRM)
        return _form(request, "confirm")

    @post("/confirm", status_code=200, guards=TOKEN_LIMITS)
    @inject
    async def confirm(
        self,
        request: Request[Any, Any, Any],
        inspect_link: FromDishka[InspectLink],
        confirm_email: FromDishka[ConfirmEmail],
    ) -> Response[str]:
        """Confirm the e-mail address."""
        fields = await _read_form(request)
        token = await _inspect(request, fields, inspect_link, TokenPurpose.CONFIRM)
        password, client_ip = fields.get("password", ""), client_ip_of(request.scope)
        await confirm_email(token, caller_id=None, password=password, client_ip=client_ip)
        return render_notice(request, "confirmed", link=ACCOUNT_LINK)

    @post("/disown", status_code=200, guards=TOKEN_LIMITS)
    @inject
    async def disown(
        self, request: Request[Any, Any, Any], disown_email: FromDishka[DisownEmail]
    ) -> Response[str]:
        """Erase the unconfirmed account; the link in the mail suffices."""
        await disown_email((await _read_form(request)).get("token", ""))
        return render_notice(request, "disowned")

    @get("/reset")
    @inject
    async def show_reset_form(
        self, request: Request[Any, Any, Any], inspect_link: FromDishka[InspectLink]
    ) -> Response[str]:
        """Show the form for the new password."""
        if "token" not in request.query_params:
            return render_notice(request, "reset_link_missing", status=422, link=FORGOT_LINK)
        await _inspect(request, request.query_params, inspect_link, TokenPurpose.RESET)
        return _form(request, "reset")

    @post("/reset", status_code=200, guards=TOKEN_LIMITS)
    @inject
    async def reset(
        self,
        request: Request[Any, Any, Any],
        inspect_link: FromDishka[InspectLink],
        reset_password: FromDishka[ResetPassword],
    ) -> Response[str]:
        """Set the new password."""
        fields = await _read_form(request)
        token = await _inspect(request, fields, inspect_link, TokenPurpose.RESET)
        await reset_password(token, fields.get("new_password", ""))
        return render_notice(request, "password_set", link=LOGIN_LINK)


async def _read_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    try:
        return await read_form_fields(request)
    except MalformedForm as error:
        raise TokenUnusable from error


async def _inspect(
    request: Request[Any, Any, Any],
    fields: Mapping[str, str],
    inspect_link: InspectLink,
    purpose: TokenPurpose,
) -> str:
    """Return the valid token of the request; keep it and the e-mail address for the forms."""
    token = request.state.token = fields.get("token", "")
    request.state.email = (await inspect_link(token, purpose)).email
    return token


def _form(
    request: Request[Any, Any, Any],
    name: Literal["confirm", "reset"],
    errors: dict[str, str] | None = None,
) -> Response[str]:
    return render_form(
        request,
        name,
        status=422 if errors else 200,
        errors=errors,
        token=request.state.token,
        email=request.state.email,
    )
