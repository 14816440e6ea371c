"""Mails that one asks for or ends, and pictures of share links."""

from typing import Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from referral.core import errors
from referral.core.ports.system import QrCodes
from referral.core.use_cases.codes import ShowCode
from referral.core.use_cases.notifications import MailActiveCode, Unsubscribe
from referral.web.accepted import ON_ITS_WAY, queue_mail
from referral.web.auth import SECURITY, identify_user
from referral.web.controllers.codes import CHANGE, ONE, REPEATED, CodeId
from referral.web.idempotency import IdempotencyKey, recall_user
from referral.web.injection import inject
from referral.web.links import Links
from referral.web.parsing import check_user
from referral.web.problems import problems
from referral.web.rate_limits import COSTLY_OF_ACCOUNT

SVG = "image/svg+xml"
PNG = "image/png"

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<title>Referral</title>
<style>
body {{
  max-width: 30rem; margin: 4rem auto; padding: 0 1rem; font: 1rem/1.5 system-ui, sans-serif;
}}
button {{ padding: .6rem 1rem; font: inherit }}
</style>
</head>
<body>{content}</body>
</html>
"""

QUESTION = """
<p>Get no more mails about new referrals?</p>
<p lang="ru">Больше не получать письма о новых рефералах?</p>
<form method="post"><button>Yes · Да</button></form>
"""

DONE = """
<p>You will get no more mails about new referrals.</p>
<p lang="ru">Письма о новых рефералах больше приходить не будут.</p>
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"


def _picture(media_type: str) -> dict[int, ResponseSpec]:
    answer = ResponseSpec(
        bytes, description="The picture.", media_type=media_type, generate_examples=False
    )
    return {200: answer}


class CodeMails(Controller):
    """Getting one's own code by mail, and as a picture."""

    path = "/api/v1/me/codes"
    tags = ("My codes",)
    security = SECURITY
    before_request = staticmethod(check_user)
    dependencies = {"user_id": Provide(identify_user)}

    @post(
        "/active/email",
        summary="Mail me my active code",
        status_code=202,
        guards=COSTLY_OF_ACCOUNT,
        before_request=recall_user,
        responses=problems(
            *CHANGE, *REPEATED,
            errors.NoActiveCode, errors.TooManyRequests, errors.InvalidRequest,
        )
        | ON_ITS_WAY,
    )  # fmt: skip
    @inject
    async def mail_active(
        self,
        request: Request[Any, Any, Any],
        user_id: NamedDependency[UUID],
        use: FromDishka[MailActiveCode],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[str]:
        """Mail the code in force to its owner, with its end, its link and a QR code."""
        return await queue_mail(use, user_id, request, idempotency_key)

    @get(
        "/{code_id:uuid}/qr.svg",
        summary="Show a QR code as SVG",
        media_type=SVG,
        responses=problems(*ONE) | _picture(SVG),
    )
    @inject
    async def show_svg(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        use: FromDishka[ShowCode],
        links: FromDishka[Links],
        qr_codes: FromDishka[QrCodes],
    ) -> Response[bytes]:
        """Show the share link of a code as a QR code, to print at any size."""
        code, _ = await use(user_id, code_id)
        return Response(qr_codes.svg(links.share(code.text)), media_type=SVG)

    @get(
        "/{code_id:uuid}/qr.png",
        summary="Show a QR code as PNG",
        media_type=PNG,
        responses=problems(*ONE) | _picture(PNG),
    )
    @inject
    async def show_png(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        use: FromDishka[ShowCode],
        links: FromDishka[Links],
        qr_codes: FromDishka[QrCodes],
    ) -> Response[bytes]:
        """Show the share link of a code as a QR code."""
        code, _ = await use(user_id, code_id)
        return Response(qr_codes.png(links.share(code.text)), media_type=PNG)


class Unsubscribing(Controller):
    """Where `List-Unsubscribe` leads (RFC 8058)."""

    path = "/unsubscribe"
    include_in_schema = False

    @get("/{token:str}", media_type=MediaType.HTML)
    async def ask(self, token: FromPath[str]) -> Response[str]:  # noqa: ARG002 - the form posts here
        """Ask; programs that follow every link of a mail change nothing."""
        return _page(QUESTION)

    @post("/{token:str}", media_type=MediaType.HTML, status_code=200)
    @inject
    async def end(
        self, request: Request[Any, Any, Any], token: FromPath[str], use: FromDishka[Unsubscribe]
    ) -> Response[str]:
        """End the notifications, asked by the page's form or by a mail program."""
        await request.body()
        await use(token)
        return _page(DONE)


def _page(content: str) -> Response[str]:
    headers = {"Content-Security-Policy": POLICY}
    return Response(PAGE.format(content=content), media_type=MediaType.HTML, headers=headers)
