"""The pages that links in mails lead to. They have no scripts, and opening them changes nothing."""

from base64 import b64encode
from hashlib import sha256
from html import escape
from math import ceil
from typing import Any
from urllib.parse import parse_qsl

from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, get, post

from referral.core.entities.email_links import TokenPurpose
from referral.core.entities.users import Locale
from referral.core.errors import (
    TokenUnusable,
    TooManyRequests,
    Unavailable,
    WeakPassword,
    WrongPassword,
)
from referral.core.use_cases.email_links import (
    ConfirmEmail,
    DisownEmail,
    InspectLink,
    ResetPassword,
)
from referral.web.injection import inject
from referral.web.oauth_forms import MAX_FORM_FIELDS
from referral.web.problems import UNAVAILABLE_RETRY_AFTER_SECONDS
from referral.web.rate_limits import TOKEN_LIMITS, client_ip_of

STYLE = """
:root { color-scheme: light dark }
body { max-width: 28rem; margin: 4rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif }
main { overflow-wrap: anywhere }
h1 { font-size: 1.4rem }
input, button { box-sizing: border-box; width: 100%; padding: .6rem; font: inherit }
label, button { display: block; margin-top: 1rem }
hr { margin: 3rem 0 1rem; border: 0; border-top: 1px solid }
.fault { color: #c0261c }
"""
STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()

PAGE_HEADERS = {
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{STYLE_HASH}'; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
}

PAGE = """\
<!doctype html>
<html lang="{locale}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="robots" content="noindex">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{content}
</main>
</body>
</html>
"""

OK = 200

MAX_ACCEPT_LANGUAGE_CHARACTERS = 1024
"""Characters of `Accept-Language` that are read; browsers send some dozens."""

FORM = """\
<form method="post" action="{action}">
<input type="hidden" name="token" value="{token}">
{fields}<button>{button}</button>
</form>
"""
RESET_FIELDS = """\
<p>{explanation}</p>
<input type="email" name="username" value="{email}" autocomplete="username" hidden>
<label for="password">{label}</label>
<input type="password" id="password" name="new_password" autocomplete="new-password"
 minlength="8" required autofocus>
"""
CONFIRM_FIELDS = """\
<p>{explanation}</p>
<input type="email" name="username" value="{email}" autocomplete="username" hidden>
<label for="password">{label}</label>
<input type="password" id="password" name="password" autocomplete="current-password"
 required autofocus>
"""

TEXTS = {
    Locale.EN: {
        "confirm": "Confirm your e-mail address",
        "confirm explanation": "Enter the password that you chose for the account of {email}.",
        "confirm label": "Password",
        "confirm button": "Confirm",
        "wrong": "This is not the password of the account.",
        "disown question": "You did not make this account? Deleting it cannot be undone.",
        "disown button": "That was not me: delete the account",
        "disowned": "The account is deleted",
        "disowned explanation": "You will get no more mail about it.",
        "confirmed": "Your e-mail address is confirmed",
        "reset": "Choose a new password",
        "reset explanation": "It is for the account of {email}.",
        "reset label": "New password, at least 8 characters",
        "reset button": "Set the password",
        "reset done": "Your password is set",
        "log in": "You can log in now. All other sessions have ended.",
        "close": "You can close this page.",
        "unusable": "This link cannot be used",
        "ask again": "It was used before, or has expired. If you have confirmed your address or "
        "set your password with it, nothing is left to do. Otherwise ask for a new one.",
        "too many": "Too many requests",
        "later": "Try again in {seconds} seconds. Your link is still good.",
        "weak": "This password is too short, too long, too common, or the first part of your "
        "e-mail address. Choose another.",
        "unavailable": "This does not work at the moment",
        "unavailable explanation": "Try again in a few seconds. Your link is still good.",
    },
    Locale.RU: {
        "confirm": "Подтвердите адрес электронной почты",
        "confirm explanation": "Введите пароль, который вы выбрали для учётной записи {email}.",
        "confirm label": "Пароль",
        "confirm button": "Подтвердить",
        "wrong": "Это не пароль этой учётной записи.",
        "disown question": "Вы не создавали эту учётную запись? Удаление нельзя отменить.",
        "disown button": "Это не я: удалить учётную запись",
        "disowned": "Учётная запись удалена",
        "disowned explanation": "Писем о ней больше не будет.",
        "confirmed": "Адрес электронной почты подтверждён",
        "reset": "Выберите новый пароль",
        "reset explanation": "Он нужен для учётной записи {email}.",
        "reset label": "Новый пароль, не короче 8 символов",
        "reset button": "Сохранить пароль",
        "reset done": "Пароль изменён",
        "log in": "Теперь можно войти. Все остальные сеансы завершены.",
        "close": "Эту страницу можно закрыть.",
        "unusable": "Эта ссылка не действует",
        "ask again": "Она уже использована или устарела. Если вы уже подтвердили адрес или "
        "сменили пароль, больше ничего делать не нужно. Иначе запросите новую.",
        "too many": "Слишком много запросов",
        "later": "Попробуйте ещё раз через {seconds} с. Ссылка ещё действует.",
        "weak": "Пароль слишком короткий, длинный, распространённый или совпадает с началом "
        "вашего адреса. Выберите другой.",
        "unavailable": "Сейчас это не работает",
        "unavailable explanation": "Попробуйте ещё раз через несколько секунд. Ссылка действует.",
    },
}


def show_unusable_link(request: Request[Any, Any, Any], _: TokenUnusable) -> Response[str]:
    """Show that the link is good for nothing."""
    texts = TEXTS[_locale(request)]
    return _page(request, texts["unusable"], f"<p>{texts['ask again']}</p>", 422)


def show_too_many_requests(
    request: Request[Any, Any, Any], error: TooManyRequests
) -> Response[str]:
    """Show that the form was sent too often, and when to come again."""
    texts, seconds = TEXTS[_locale(request)], ceil(error.retry_after.total_seconds())
    later = texts["later"].format(seconds=seconds)
    page = _page(request, texts["too many"], f"<p>{later}</p>", 429)
    page.headers["Retry-After"] = str(seconds)
    return page


def show_weak_password(request: Request[Any, Any, Any], _: WeakPassword) -> Response[str]:
    """Show the form again, and what was wrong."""
    return _reset_form(request, request.state.token, request.state.email, 422)


def show_unavailable(request: Request[Any, Any, Any], _: Unavailable) -> Response[str]:
    """Show that a part of the service does not answer; a link is not used up by that."""
    texts = TEXTS[_locale(request)]
    page = _page(request, texts["unavailable"], f"<p>{texts['unavailable explanation']}</p>", 503)
    page.headers["Retry-After"] = UNAVAILABLE_RETRY_AFTER_SECONDS
    return page


def show_wrong_password(request: Request[Any, Any, Any], _: WrongPassword) -> Response[str]:
    """Show the form again, and that the password was wrong."""
    return _confirm_form(request, request.state.token, request.state.email, 422)


class EmailLinkPagesController(Controller):
    """The pages for `REFERRAL_CONFIRM_URL` and `REFERRAL_RESET_URL` where they are not set."""

    path = "/"
    include_in_schema = False
    exception_handlers = {
        TokenUnusable: show_unusable_link,
        TooManyRequests: show_too_many_requests,
        Unavailable: show_unavailable,
        WeakPassword: show_weak_password,
        WrongPassword: show_wrong_password,
    }

    @get("/confirm")
    @inject
    async def show_confirm_form(
        self, request: Request[Any, Any, Any], inspect_link: FromDishka[InspectLink]
    ) -> Response[str]:
        """Ask for the password: programs that follow every link of a mail confirm nothing."""
        token = request.query_params.get("token", "")
        return _confirm_form(
            request, token, (await inspect_link(token, TokenPurpose.CONFIRM)).email
        )

    @post("/confirm", status_code=200, guards=TOKEN_LIMITS)
    @inject
    async def confirm(
        self,
        request: Request[Any, Any, Any],
        inspect_link: FromDishka[InspectLink],
        confirm_email: FromDishka[ConfirmEmail],
    ) -> Response[str]:
        """Confirm the address."""
        fields = await _read_form(request)
        token = request.state.token = fields.get("token", "")
        request.state.email = (await inspect_link(token, TokenPurpose.CONFIRM)).email
        password, address = fields.get("password", ""), client_ip_of(request.scope)
        await confirm_email(token, caller_id=None, password=password, client_ip=address)
        texts = TEXTS[_locale(request)]
        return _page(request, texts["confirmed"], f"<p>{texts['close']}</p>")

    @post("/disown", status_code=200, guards=TOKEN_LIMITS)
    @inject
    async def disown(
        self, request: Request[Any, Any, Any], disown_email: FromDishka[DisownEmail]
    ) -> Response[str]:
        """Erase the unconfirmed account for whoever got its mail."""
        await disown_email((await _read_form(request)).get("token", ""))
        texts = TEXTS[_locale(request)]
        return _page(request, texts["disowned"], f"<p>{texts['disowned explanation']}</p>")

    @get("/reset")
    @inject
    async def show_reset_form(
        self, request: Request[Any, Any, Any], inspect_link: FromDishka[InspectLink]
    ) -> Response[str]:
        """Ask for the new password."""
        token = request.query_params.get("token", "")
        return _reset_form(request, token, (await inspect_link(token, TokenPurpose.RESET)).email)

    @post("/reset", status_code=200, guards=TOKEN_LIMITS)
    @inject
    async def reset(
        self,
        request: Request[Any, Any, Any],
        inspect_link: FromDishka[InspectLink],
        reset_password: FromDishka[ResetPassword],
    ) -> Response[str]:
        """Set the password."""
        fields = await _read_form(request)
        token = request.state.token = fields.get("token", "")
        request.state.email = (await inspect_link(token, TokenPurpose.RESET)).email
        await reset_password(token, fields.get("new_password", ""))
        texts = TEXTS[_locale(request)]
        return _page(request, texts["reset done"], f"<p>{texts['log in']}</p>")


async def _read_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    try:
        text = (await request.body()).decode()
        return dict(parse_qsl(text, errors="strict", max_num_fields=MAX_FORM_FIELDS))
    except ValueError as error:
        raise TokenUnusable from error


def _locale(request: Request[Any, Any, Any]) -> Locale:
    """Return the first language that the browser asks for and there is."""
    sent = request.headers.get("accept-language", "")[:MAX_ACCEPT_LANGUAGE_CHARACTERS]
    wanted = sent.lower().split(",")
    known = (part.strip()[:2] for part in wanted)
    return next((Locale(name) for name in known if name in set(Locale)), Locale.EN)


def _confirm_form(
    request: Request[Any, Any, Any], token: str, email: str, status: int = OK
) -> Response[str]:
    texts, shown = TEXTS[_locale(request)], f"<bdi>{escape(email)}</bdi>"
    fields = CONFIRM_FIELDS.format(
        explanation=texts["confirm explanation"].format(email=shown),
        email=escape(email),
        label=texts["confirm label"],
    )
    form = _form(
        "/confirm", token, texts["confirm button"], _fault(texts["wrong"], status) + fields
    )
    question = f"<hr>\n<p>{texts['disown question']}</p>\n"
    disown = _form("/disown", token, texts["disown button"])
    return _page(request, texts["confirm"], form + question + disown, status)


def _reset_form(
    request: Request[Any, Any, Any], token: str, email: str, status: int = OK
) -> Response[str]:
    texts, shown = TEXTS[_locale(request)], f"<bdi>{escape(email)}</bdi>"
    fields = _fault(texts["weak"], status) + RESET_FIELDS.format(
        explanation=texts["reset explanation"].format(email=shown),
        email=escape(email),
        label=texts["reset label"],
    )
    form = _form("/reset", token, texts["reset button"], fields)
    return _page(request, texts["reset"], form, status)


def _fault(text: str, status: int) -> str:
    return "" if status == OK else f'<p class="fault" role="alert">{text}</p>\n'


def _form(action: str, token: str, button: str, fields: str = "") -> str:
    return FORM.format(action=action, token=escape(token), button=button, fields=fields)


def _page(
    request: Request[Any, Any, Any], title: str, content: str, status: int = 200
) -> Response[str]:
    html = PAGE.format(locale=_locale(request), title=title, style=STYLE, content=content)
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=PAGE_HEADERS)
