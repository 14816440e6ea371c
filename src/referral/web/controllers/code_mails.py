"""Mails that one asks for or ends, and pictures of share links."""

from typing import Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, MediaType, Request, Response, get, post
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from referral.core import errors
from referral.core.ports.system import QrCodeRenderer
from referral.core.use_cases.codes import ShowCode
from referral.core.use_cases.notifications import RequestCodeMail, Unsubscribe
from referral.web.accepted import MAIL_ACCEPTED, respond_accepted
from referral.web.auth import SECURITY_REQUIREMENTS, authenticate_user
from referral.web.controllers.codes import IDEMPOTENCY_ERRORS, READ_ONE_ERRORS, WRITE_ERRORS, CodeId
from referral.web.idempotency import IdempotencyKey, replay_stored_user_response
from referral.web.injection import inject
from referral.web.links import PublicUrls
from referral.web.parsing import require_user
from referral.web.problems import problem_responses
from referral.web.rate_limits import TOKEN_LIMITS_BY_ACCOUNT

SVG_MEDIA_TYPE = "image/svg+xml"
PNG_MEDIA_TYPE = "image/png"

PAGE_HTML = """\
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

QUESTION_HTML = """
<p>Get no more mails about new referrals?</p>
<p lang="ru">Больше не получать письма о новых рефералах?</p>
<form method="post"><button>Yes · Да</button></form>
"""

DONE_HTML = """
<p>You will get no more mails about new referrals.</p>
<p lang="ru">Письма о новых рефералах больше приходить не будут.</p>
"""

CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
)


def _image_response(media_type: str) -> dict[int, ResponseSpec]:
    answer = ResponseSpec(
        bytes, description="The picture.", media_type=media_type, generate_examples=False
    )
    return {200: answer}


class CodeSharingController(Controller):
    """Getting one's own code by mail, and as a picture."""

    path = "/api/v1/me/codes"
    tags = ("My codes",)
    security = SECURITY_REQUIREMENTS
    before_request = staticmethod(require_user)
    dependencies = {"user_id": Provide(authenticate_user)}

    @post(
        "/active/email",
        summary="Mail me my active code",
        status_code=202,
        guards=TOKEN_LIMITS_BY_ACCOUNT,
        before_request=replay_stored_user_response,
        responses=problem_responses(
            *WRITE_ERRORS, *IDEMPOTENCY_ERRORS,
            errors.NoActiveCode, errors.TooManyRequests, errors.InvalidRequest,
        )
        | MAIL_ACCEPTED,
    )  # fmt: skip
    @inject
    async def mail_active(
        self,
        request: Request[Any, Any, Any],
        user_id: NamedDependency[UUID],
        mail_active_code: FromDishka[RequestCodeMail],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[str]:
        """Mail the code in force to its owner, with its end, its link and a QR code."""
        return await respond_accepted(mail_active_code, user_id, request, idempotency_key)

    @get(
        "/{code_id:uuid}/qr.svg",
        summary="Show a QR code as SVG",
        media_type=SVG_MEDIA_TYPE,
        responses=problem_responses(*READ_ONE_ERRORS) | _image_response(SVG_MEDIA_TYPE),
    )
    @inject
    async def show_svg(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        show_code: FromDishka[ShowCode],
        urls: FromDishka[PublicUrls],
        qr_codes: FromDishka[QrCodeRenderer],
    ) -> Response[bytes]:
        """Show the share link of a code as a QR code, to print at any size."""
        code, _ = await show_code(user_id, code_id)
        return Response(qr_codes.svg(urls.share(code.text)), media_type=SVG_MEDIA_TYPE)

    @get(
        "/{code_id:uuid}/qr.png",
        summary="Show a QR code as PNG",
        media_type=PNG_MEDIA_TYPE,
        responses=problem_responses(*READ_ONE_ERRORS) | _image_response(PNG_MEDIA_TYPE),
    )
    @inject
    async def show_png(
        self,
        user_id: NamedDependency[UUID],
        code_id: CodeId,
        show_code: FromDishka[ShowCode],
        urls: FromDishka[PublicUrls],
        qr_codes: FromDishka[QrCodeRenderer],
    ) -> Response[bytes]:
        """Show the share link of a code as a QR code."""
        code, _ = await show_code(user_id, code_id)
        return Response(qr_codes.png(urls.share(code.text)), media_type=PNG_MEDIA_TYPE)


class UnsubscribeController(Controller):
    """Where `List-Unsubscribe` leads (RFC 8058)."""

    path = "/unsubscribe"
    include_in_schema = False

    @get("/{token:str}", media_type=MediaType.HTML)
    async def ask(self, token: FromPath[str]) -> Response[str]:  # noqa: ARG002 - the form posts here
        """Ask; programs that follow every link of a mail change nothing."""
        return _page(QUESTION_HTML)

    @post("/{token:str}", media_type=MediaType.HTML, status_code=200)
    @inject
    async def unsubscribe(
        self,
        request: Request[Any, Any, Any],
        token: FromPath[str],
        unsubscribe: FromDishka[Unsubscribe],
    ) -> Response[str]:
        """End the notifications, asked by the page's form or by a mail program."""
        await request.body()
        await unsubscribe(token)
        return _page(DONE_HTML)


def _page(content: str) -> Response[str]:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY}
    return Response(PAGE_HTML.format(content=content), media_type=MediaType.HTML, headers=headers)
