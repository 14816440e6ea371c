"""What anyone may ask about codes, and where share links lead."""

from typing import Annotated, Any

from dishka import FromDishka
from litestar import Controller, Request, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from litestar.response import Redirect
from msgspec import Struct

from referral.core import errors
from referral.core.entities.codes import Code as Entity
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.use_cases.lookups import CheckCode, LookUpCode
from referral.web.auth import SECURITY_REQUIREMENTS, check_lookup_access
from referral.web.controllers.accounts import Email
from referral.web.controllers.codes import Timestamp
from referral.web.injection import inject
from referral.web.links import PublicUrls
from referral.web.middleware.lookup_response_cache import LOOKUP_RESULT_KEY, LookupResponseCache
from referral.web.problems import problem_responses
from referral.web.rate_limits import limit_by_ip

CodeParameter = Annotated[str, PathParameter(description="The code, in capitals or not.")]

LOOKUP_ERRORS = (
    errors.Unauthenticated, errors.NoActiveCode, errors.InvalidRequest, errors.TooManyRequests,
    errors.Unavailable,
)  # fmt: skip


class LookupRequest(Struct, forbid_unknown_fields=True):
    """Whose code is asked for."""

    email: Email


class LookupResponse(Struct):
    """A referrer's code in force."""

    code: str
    expires_at: Timestamp
    url: str


class CodeValidityResponse(Struct):
    """Whether one can join with a code, and until when."""

    valid: bool
    expires_at: Timestamp | None


class LookupController(Controller):
    """Finding a referrer's code, and checking one."""

    path = "/api/v1/codes"
    tags = ("Look-ups",)
    security = [{}, *SECURITY_REQUIREMENTS]

    @get(
        "/lookup",
        summary="Look a code up",
        middleware=[LookupResponseCache],
        responses=problem_responses(*LOOKUP_ERRORS),
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
        """Find the code in force of whoever has an e-mail address."""
        code = await look_up_code(email)
        request.scope["state"][LOOKUP_RESULT_KEY] = (email, code)
        return _lookup_response(code, urls)

    @post(
        "/lookup",
        summary="Look a code up, privately",
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
        """Find a code with the address in the body, which keeps it out of URLs and logs."""
        return _lookup_response(await look_up_code(data.email), urls)


class CodeValidityController(Controller):
    """Whether a code is good."""

    path = "/api/v1/codes"
    tags = ("Look-ups",)

    @get(
        "/{code:str}/validity",
        summary="Check a code",
        guards=[limit_by_ip(RateLimitGroup.LOOKUP)],
        responses=problem_responses(errors.TooManyRequests, errors.Unavailable),
    )
    @inject
    async def check(
        self, code: CodeParameter, check_code: FromDishka[CheckCode]
    ) -> CodeValidityResponse:
        """Tell whether one can join with a code; nothing about its owner."""
        found = await check_code(code)
        return CodeValidityResponse(found is not None, found.expires_at if found else None)


class ShareLinkController(Controller):
    """The links that referrers pass on."""

    path = "/r"
    tags = ("Look-ups",)

    @get(
        "/{code:str}",
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
        """Lead to the landing page, with `?ref=` where the code is in force."""
        found = await check_code(code)
        return Redirect(urls.landing(found.text if found else None), status_code=302)


def _lookup_response(code: Entity, urls: PublicUrls) -> LookupResponse:
    return LookupResponse(code.text, code.expires_at, urls.share(code.text))
