"""What anyone may ask about codes, and where share links lead."""

from typing import Annotated, Any

from dishka import FromDishka
from litestar import Controller, Request, get, post
from litestar.params import JSONBody, PathParameter, QueryParameter
from litestar.response import Redirect
from msgspec import Struct

from referral.core import errors
from referral.core.entities.codes import Code as Entity
from referral.core.entities.limits import LimitGroup
from referral.core.use_cases.lookups import CheckCode, LookUpCode
from referral.web.auth import SECURITY, check_lookup_access
from referral.web.controllers.accounts import Email
from referral.web.controllers.codes import Time
from referral.web.injection import inject
from referral.web.links import Links
from referral.web.middleware.lookup_response_cache import FOUND, LookupResponseCache
from referral.web.problems import problems
from referral.web.rate_limits import by_address

CodeText = Annotated[str, PathParameter(description="The code, in capitals or not.")]

COMMON_ERRORS = (
    errors.Unauthenticated, errors.NoActiveCode, errors.InvalidRequest, errors.TooManyRequests,
    errors.Unavailable,
)  # fmt: skip


class LookUp(Struct, forbid_unknown_fields=True):
    """Whose code is asked for."""

    email: Email


class FoundCode(Struct):
    """A referrer's code in force."""

    code: str
    expires_at: Time
    url: str


class Validity(Struct):
    """Whether one can join with a code, and until when."""

    valid: bool
    expires_at: Time | None


class LookUps(Controller):
    """Finding a referrer's code, and checking one."""

    path = "/api/v1/codes"
    tags = ("Look-ups",)
    security = [{}, *SECURITY]

    @get(
        "/lookup",
        summary="Look a code up",
        middleware=[LookupResponseCache],
        responses=problems(*COMMON_ERRORS),
    )
    @inject
    async def look_up(
        self,
        request: Request[Any, Any, Any],
        email: Annotated[
            str, QueryParameter(description="The referrer's e-mail address.", format="email")
        ],
        use: FromDishka[LookUpCode],
        links: FromDishka[Links],
    ) -> FoundCode:
        """Find the code in force of whoever has an e-mail address."""
        code = await use(email)
        request.scope["state"][FOUND] = (email, code)
        return _found(code, links)

    @post(
        "/lookup",
        summary="Look a code up, privately",
        guards=[by_address(LimitGroup.LOOKUP), check_lookup_access],
        status_code=200,
        responses=problems(400, 408, 413, 415, *COMMON_ERRORS),
    )
    @inject
    async def look_up_privately(
        self,
        data: JSONBody[LookUp],
        use: FromDishka[LookUpCode],
        links: FromDishka[Links],
    ) -> FoundCode:
        """Find a code with the address in the body, which keeps it out of URLs and logs."""
        return _found(await use(data.email), links)


class Checks(Controller):
    """Whether a code is good."""

    path = "/api/v1/codes"
    tags = ("Look-ups",)

    @get(
        "/{code:str}/validity",
        summary="Check a code",
        guards=[by_address(LimitGroup.LOOKUP)],
        responses=problems(errors.TooManyRequests, errors.Unavailable),
    )
    @inject
    async def check(self, code: CodeText, use: FromDishka[CheckCode]) -> Validity:
        """Tell whether one can join with a code; nothing about its owner."""
        found = await use(code)
        return Validity(found is not None, found.expires_at if found else None)


class ShareLinks(Controller):
    """The links that referrers pass on."""

    path = "/r"
    tags = ("Look-ups",)

    @get(
        "/{code:str}",
        summary="Follow a share link",
        status_code=302,
        response_description="The landing page.",
        guards=[by_address(LimitGroup.LOOKUP)],
        responses=problems(errors.TooManyRequests, errors.Unavailable),
    )
    @inject
    async def follow(
        self, code: CodeText, use: FromDishka[CheckCode], links: FromDishka[Links]
    ) -> Redirect:
        """Lead to the landing page, with `?ref=` where the code is in force."""
        found = await use(code)
        return Redirect(links.landing(found.text if found else None), status_code=302)


def _found(code: Entity, links: Links) -> FoundCode:
    return FoundCode(code.text, code.expires_at, links.share(code.text))
