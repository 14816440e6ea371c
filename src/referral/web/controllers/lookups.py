"""Public routes for codes: look-up by the referrer's e-mail address, validity, share links."""

from typing import Annotated, Any

from dishka import FromDishka
from litestar import Controller, Request, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from litestar.response import Redirect
from msgspec import Struct

from referral.core import errors
from referral.core.entities.codes import Code
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.use_cases.lookups import CheckCode, LookUpCode
from referral.web.field_types import Email, Timestamp
from referral.web.injection import inject
from referral.web.middleware.lookup_response_cache import LOOKUP_RESULT_KEY, LookupResponseCache
from referral.web.permissions import LOOKUP_SECURITY, check_lookup_access
from referral.web.problem_types import problem_responses
from referral.web.public_urls import PublicUrls
from referral.web.rate_limits import limit_by_ip

CodeParameter = Annotated[str, PathParameter(description="The code, in upper or lower case.")]

LOOKUP_ERRORS = (
    errors.Unauthenticated, errors.NoActiveCode, errors.InvalidRequest, errors.TooManyRequests,
    errors.Unavailable,
)  # fmt: skip


class LookupRequest(Struct, forbid_unknown_fields=True):
    """The e-mail address of the referrer."""

    email: Email


class LookupResponse(Struct):
    """A referrer's active code."""

    code: str
    expires_at: Timestamp
    url: str


class CodeValidityResponse(Struct):
    """Whether a user can register with a code, and its expiry."""

    valid: bool
    expires_at: Timestamp | None


class LookupController(Controller):
    """Routes for look-ups of a referrer's active code."""

    path = "/api/v1/codes"
    tags = ("Look-ups",)
    security = LOOKUP_SECURITY

    @get(
        "/lookup",
        operation_id="lookUpCode",
        summary="Look up a code",
        middleware=[LookupResponseCache],
        responses=problem_responses(414, *LOOKUP_ERRORS),
    )
    @inject
    async def look_up(
        self,
        request: Request[Any, Any, Any],
        email: Annotated[
            str, QueryParameter(description="The referrer's e-mail address.", format="email")
        ],
        look_up_code: FromDishka[LookUpCode],
        urls: FromDishka[PublicUrls],
    ) -> LookupResponse:
        """Return the active code of the user with an e-mail address."""
        code = await look_up_code(email)
        request.scope["state"][LOOKUP_RESULT_KEY] = (email, code)
        return _lookup_response(code, urls)

    @post(
        "/lookup",
        operation_id="lookUpCodePrivately",
        summary="Look up a code privately",
        guards=[limit_by_ip(RateLimitGroup.LOOKUP), check_lookup_access],
        status_code=200,
        responses=problem_responses(400, 408, 413, 415, *LOOKUP_ERRORS),
    )
    @inject
    async def look_up_privately(
        self,
        data: JSONBody[LookupRequest],
        look_up_code: FromDishka[LookUpCode],
        urls: FromDishka[PublicUrls],
    ) -> LookupResponse:
        """Return the active code; the e-mail address is in the body, and so in no URL or log."""
        return _lookup_response(await look_up_code(data.email), urls)


class CodeValidityController(Controller):
    """Route for the validity of a code."""

    path = "/api/v1/codes"
    tags = ("Look-ups",)

    @get(
        "/{code:str}/validity",
        operation_id="getCodeValidity",
        summary="Check whether a code is valid",
        guards=[limit_by_ip(RateLimitGroup.LOOKUP)],
        responses=problem_responses(errors.TooManyRequests, errors.Unavailable),
    )
    @inject
    async def check(
        self, code: CodeParameter, check_code: FromDishka[CheckCode]
    ) -> CodeValidityResponse:
        """Return whether a user can register with a code, without data about its owner."""
        usable = await check_code(code)
        return CodeValidityResponse(usable is not None, usable.expires_at if usable else None)


class ShareLinkController(Controller):
    """Route for share links."""

    path = "/r"
    tags = ("Look-ups",)

    @get(
        "/{code:str}",
        operation_id="followShareLink",
        summary="Follow a share link",
        status_code=302,
        response_description="The landing page.",
        guards=[limit_by_ip(RateLimitGroup.LOOKUP)],
        responses=problem_responses(errors.TooManyRequests, errors.Unavailable),
    )
    @inject
    async def follow(
        self, code: CodeParameter, check_code: FromDishka[CheckCode], urls: FromDishka[PublicUrls]
    ) -> Redirect:
        """Redirect to the landing page, with `?ref=` if the code is active."""
        usable = await check_code(code)
        return Redirect(urls.landing(usable.text if usable else None), status_code=302)


def _lookup_response(code: Code, urls: PublicUrls) -> LookupResponse:
    return LookupResponse(code.text, code.expires_at, urls.share(code.text))
