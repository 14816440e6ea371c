"""Share a referral code: by mail to its owner, or as a QR code."""

from typing import Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, Response, get, post
from litestar.di import NamedDependency, Provide

from referral.core import errors
from referral.core.ports.system import QrCodeRenderer
from referral.core.use_cases.codes import ShowCode
from referral.core.use_cases.notifications import RequestCodeMail
from referral.web.auth import SECURITY_REQUIREMENTS, authenticate_user
from referral.web.before_request import require_user
from referral.web.controllers.codes import CodeId
from referral.web.idempotency import (
    MAIL_ACCEPTED,
    IdempotencyKey,
    replay_stored_user_response,
    respond_accepted,
)
from referral.web.injection import inject
from referral.web.pictures import PNG_MEDIA_TYPE, SVG_MEDIA_TYPE, image_response
from referral.web.problem_types import (
    IDEMPOTENCY_ERRORS,
    READ_ONE_ERRORS,
    WRITE_ERRORS,
    problem_responses,
)
from referral.web.public_urls import PublicUrls
from referral.web.rate_limits import TOKEN_LIMITS_BY_ACCOUNT


class CodeSharingController(Controller):
    """Routes for a mail with the active code, and for QR codes."""

    path = "/api/v1/me/codes"
    tags = ("My codes",)
    security = SECURITY_REQUIREMENTS
    before_request = staticmethod(require_user)
    dependencies = {"user_id": Provide(authenticate_user)}

    @post(
        "/active/email",
        operation_id="mailActiveCode",
        summary="Mail my active code to me",
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
    ) -> Response[None]:
        """Send the active code to its owner by mail, with its expiry, share link and QR code."""
        return await respond_accepted(mail_active_code, user_id, request, idempotency_key)

    @get(
        "/{code_id:uuid}/qr.svg",
        operation_id="getCodeQrSvg",
        summary="Get a QR code as SVG",
        media_type=SVG_MEDIA_TYPE,
        responses=problem_responses(*READ_ONE_ERRORS) | image_response(SVG_MEDIA_TYPE),
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
        """Return a QR code of the share link, as an image that scales to any size."""
        code, _ = await show_code(user_id, code_id)
        return Response(qr_codes.svg(urls.share(code.text)), media_type=SVG_MEDIA_TYPE)

    @get(
        "/{code_id:uuid}/qr.png",
        operation_id="getCodeQrPng",
        summary="Get a QR code as PNG",
        media_type=PNG_MEDIA_TYPE,
        responses=problem_responses(*READ_ONE_ERRORS) | image_response(PNG_MEDIA_TYPE),
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
        """Return a QR code of the share link."""
        code, _ = await show_code(user_id, code_id)
        return Response(qr_codes.png(urls.share(code.text)), media_type=PNG_MEDIA_TYPE)
