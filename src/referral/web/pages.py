"""The pages that links in mails lead to. They have no scripts, and opening them changes nothing."""

from base64 import b64encode
from hashlib import sha256
from html import escape
from math import ceil
from typing import Any
from urllib.parse import parse_qsl

from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, get, post

from referral.core.errors import TokenUnusable, TooManyRequests, WeakPassword, WrongPassword
from referral.core.model import Locale
from referral.core.proofs import ConfirmEmail, DisownEmail, InspectConfirmation, ResetPassword
from referral.web.forms import MAX_FIELDS
from referral.web.limits import COSTLY, client_address
from referral.web.wiring import inject

STYLE = """
:root { color-scheme: light dark }
body { max-width: 28rem; margin: 4rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif }
h1 { font-size: 1.4rem }
input, button { box-sizing: border-box; width: 100%; padding: .6rem; font: inherit }
label, button { display: block; margin-top: 1rem }
.fault { color: #c0261c }
"""
STYLE_HASH = b64encode(sha256(STYLE.encode()).digest()).decode()

HEADERS = {
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

MAX_LANGUAGES = 1024
"""Characters of `Accept-Language` that are read; browsers send some dozens."""

FORM = """\
<form method="post" action="{action}">
<input type="hidden" name="token" value="{token}">
{fields}<button>{button}</button>
</form>
"""
RESET_FIELDS = """\
<input type="email" name="username" autocomplete="username" hidden>
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
        "disown question": "You did not make this account?",
        "disown button": "That was not me: delete the account",
        "disowned": "The account is deleted",
        "disowned explanation": "You will get no more mail about it.",
        "confirmed": "Your e-mail address is confirmed",
        "reset": "Choose a new password",
        "reset label": "New password, at least 8 characters",
        "reset button": "Set the password",
        "reset done": "Your password is set",
        "log in": "You can log in now. All other sessions have ended.",
        "close": "You can close this page.",
        "unusable": "This link cannot be used",
        "ask again": "It was used before, or has expired. Ask for a new one.",
        "too many": "Too many requests",
        "later": "Try again later.",
        "weak": "This password is too short, too long or too common. Choose another.",
    },
    Locale.RU: {
        "confirm": "Подтвердите адрес электронной почты",
        "confirm explanation": "Введите пароль, который вы выбрали для учётной записи {email}.",
        "confirm label": "Пароль",
        "confirm button": "Подтвердить",
        "wrong": "Это не пароль этой учётной записи.",
        "disown question": "Вы не создавали эту учётную запись?",
        "disown button": "Это не я: удалить учётную запись",
        "disowned": "Учётная запись удалена",
        "disowned explanation": "Писем о ней больше не будет.",
        "confirmed": "Адрес электронной почты подтверждён",
        "reset": "Выберите новый пароль",
        "reset label": "Новый пароль, не короче 8 символов",
        "reset button": "Сохранить пароль",
        "reset done": "Пароль изменён",
        "log in": "Теперь можно войти. Все остальные сеансы завершены.",
        "close": "Эту страницу можно закрыть.",
        "unusable": "Эта ссылка не действует",
        "ask again": "Она уже использована или устарела. Запросите новую.",
        "too many": "Слишком много запросов",
        "later": "Попробуйте ещё раз позже.",
        "weak": "Пароль слишком короткий, длинный или распространённый. Выберите другой.",
    },
}


def show_unusable(request: Request[Any, Any, Any], _: TokenUnusable) -> Response[str]:
    """Show that the link is good for nothing."""
    texts = TEXTS[_locale(request)]
    return _page(request, texts["unusable"], f"<p>{texts['ask again']}</p>", 422)


def show_too_many(request: Request[Any, Any, Any], error: TooManyRequests) -> Response[str]:
    """Show that the form was sent too often, and when to come again."""
    texts, seconds = TEXTS[_locale(request)], ceil(error.retry_after.total_seconds())
    page = _page(request, texts["too many"], f"<p>{texts['later']}</p>", 429)
    page.headers["Retry-After"] = str(seconds)
    return page


def show_weak(request: Request[Any, Any, Any], _: WeakPassword) -> Response[str]:
    """Show the form again, and what was wrong."""
    return _reset_form(request, request.state.token, 422)


def show_wrong(request: Request[Any, Any, Any], _: WrongPassword) -> Response[str]:
    """Show the form again, and that the password was wrong."""
    return _confirm_form(request, request.state.token, request.state.email, 422)


class Pages(Controller):
    """The pages for `REFERRAL_CONFIRM_URL` and `REFERRAL_RESET_URL` where they are not set."""

    path = "/"
    include_in_schema = False
    exception_handlers = {
        TokenUnusable: show_unusable,
        TooManyRequests: show_too_many,
        WeakPassword: show_weak,
        WrongPassword: show_wrong,
    }

    @get("/confirm")
    @inject
    async def ask(
        self, request: Request[Any, Any, Any], inspect: FromDishka[InspectConfirmation]
    ) -> Response[str]:
        """Ask for the password: programs that follow every link of a mail confirm nothing."""
        token = request.query_params.get("token", "")
        return _confirm_form(request, token, (await inspect(token)).email)

    @post("/confirm", status_code=200, guards=COSTLY)
    @inject
    async def confirm(
        self,
        request: Request[Any, Any, Any],
        inspect: FromDishka[InspectConfirmation],
        use: FromDishka[ConfirmEmail],
    ) -> Response[str]:
        """Confirm the address."""
        fields = await _read(request)
        token = request.state.token = fields.get("token", "")
        request.state.email = (await inspect(token)).email
        password, address = fields.get("password", ""), client_address(request.scope)
        await use(token, caller=None, password=password, address=address)
        texts = TEXTS[_locale(request)]
        return _page(request, texts["confirmed"], f"<p>{texts['close']}</p>")

    @post("/disown", status_code=200, guards=COSTLY)
    @inject
    async def disown(
        self, request: Request[Any, Any, Any], use: FromDishka[DisownEmail]
    ) -> Response[str]:
        """Erase the unconfirmed account for whoever got its mail."""
        await use((await _read(request)).get("token", ""))
        texts = TEXTS[_locale(request)]
        return _page(request, texts["disowned"], f"<p>{texts['disowned explanation']}</p>")

    @get("/reset")
    async def ask_password(self, request: Request[Any, Any, Any]) -> Response[str]:
        """Ask for the new password."""
        return _reset_form(request, request.query_params.get("token", ""))

    @post("/reset", status_code=200, guards=COSTLY)
    @inject
    async def reset(
        self, request: Request[Any, Any, Any], use: FromDishka[ResetPassword]
    ) -> Response[str]:
        """Set the password."""
        fields = await _read(request)
        request.state.token = fields.get("token", "")
        await use(request.state.token, fields.get("new_password", ""))
        texts = TEXTS[_locale(request)]
        return _page(request, texts["reset done"], f"<p>{texts['log in']}</p>")


async def _read(request: Request[Any, Any, Any]) -> dict[str, str]:
    try:
        text = (await request.body()).decode()
        return dict(parse_qsl(text, errors="strict", max_num_fields=MAX_FIELDS))
    except ValueError as error:
        raise TokenUnusable from error


def _locale(request: Request[Any, Any, Any]) -> Locale:
    """Return the first language that the browser asks for and there is."""
    sent = request.headers.get("accept-language", "")[:MAX_LANGUAGES]
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
    question = f"<p>{texts['disown question']}</p>\n"
    disown = _form("/disown", token, texts["disown button"])
    return _page(request, texts["confirm"], form + question + disown, status)


def _reset_form(request: Request[Any, Any, Any], token: str, status: int = OK) -> Response[str]:
    texts = TEXTS[_locale(request)]
    fields = _fault(texts["weak"], status) + RESET_FIELDS.format(label=texts["reset label"])
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
    return Response(html, status_code=status, media_type=MediaType.HTML, headers=HEADERS)
