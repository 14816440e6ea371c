"""Users, for admins and for services that have users already."""

from typing import Annotated, Any
from uuid import UUID

from dishka import FromDishka
from litestar import Controller, Request, Response, delete, get, put
from litestar.di import NamedDependency, Provide
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter, QueryParameter
from msgspec import UNSET, Meta, Struct, UnsetType

from referral.core import errors
from referral.core.entities.account_view import UserDetails, UserFilter
from referral.core.entities.clients import Caller
from referral.core.entities.rate_limits import RateLimitGroup
from referral.core.entities.users import Locale, Role
from referral.core.use_cases.external_users import ExternalUserData, PutExternalUser
from referral.core.use_cases.users import EraseUser, ListUsers, ShowUser
from referral.web.auth import authenticate
from referral.web.controllers.current_user import ReferrerResponse
from referral.web.controllers.registration import UserResponse, user_fields
from referral.web.external_ids import EXTERNAL_USERS_PATH, ExternalId, decode_external_id
from referral.web.field_types import Email
from referral.web.injection import inject
from referral.web.pagination import PageRequest, make_cursor, provide_page_request
from referral.web.permissions import permitted
from referral.web.problem_types import (
    BODY_ERRORS,
    READ_ERRORS,
    READ_ONE_ERRORS,
    WRITE_ERRORS,
    WRITE_ONE_ERRORS,
    problem_responses,
)
from referral.web.rate_limits import count_by_account, count_by_ip

UserId = Annotated[UUID, PathParameter(description="The id of the user.")]
EmailFilter = Annotated[
    str | None, QueryParameter(description="Only the user with this e-mail address.")
]
RoleFilter = Annotated[Role | None, QueryParameter(description="Only users of this role.")]
BlockedFilter = Annotated[
    bool | None, QueryParameter(description="Only blocked users, or only others.")
]
VerifiedFilter = Annotated[
    bool | None, QueryParameter(description="Only users with a confirmed address, or only others.")
]


class PutExternalUserRequest(Struct, forbid_unknown_fields=True):
    """What the product tells about its user."""

    email: Email
    email_verified: Annotated[
        bool,
        Meta(
            description="Whether the product has confirmed the address, which then counts as "
            "confirmed here. False takes nothing back."
        ),
    ] = False
    locale: (
        Annotated[Locale, Meta(description="The language of mails; `en` for a new user.")]
        | UnsetType
    ) = UNSET
    referral_code: Annotated[
        str | None,
        Meta(
            description="A code of the referrer; it counts only if the user is new.",
            examples=["EVE-2026"],
        ),
    ] = None


class UserDetailsResponse(UserResponse):
    """A user, as admins and clients see it."""

    external_id: Annotated[
        str | None, Meta(description="The user's id in the product.", examples=["shop-1234"])
    ]
    blocked: bool
    referrer: ReferrerResponse | None
    referral_count: int

    @classmethod
    def from_details(cls, details: UserDetails) -> "UserDetailsResponse":
        """Encode a user."""
        user, referrer = details.user, details.referrer
        return cls(
            **user_fields(user),
            external_id=user.external_id,
            blocked=user.blocked_at is not None,
            referrer=ReferrerResponse(referrer.id, referrer.email) if referrer else None,
            referral_count=details.referral_count,
        )


class UserPageResponse(Struct):
    """A page of users, newest first."""

    items: list[UserDetailsResponse]
    next_cursor: str | None


class UsersController(Controller):
    """Routes for users, by their ids."""

    path = "/api/v1/users"
    tags = ("Users",)

    @get(
        summary="List users",
        dependencies={"page": Provide(provide_page_request, sync_to_thread=False)},
        responses=problem_responses(414, *READ_ERRORS, errors.InvalidRequest),
        **permitted("listUsers"),
    )
    @inject
    async def list_all(
        self,
        page: NamedDependency[PageRequest],
        list_users: FromDishka[ListUsers],
        email: EmailFilter = None,
        role: RoleFilter = None,
        blocked: BlockedFilter = None,
        verified: VerifiedFilter = None,
    ) -> UserPageResponse:
        """List the users that match all filters, newest first."""
        user_filter = UserFilter(role=role, blocked=blocked, verified=verified)
        list_key = ("users", email, role, blocked, verified)
        users = await list_users(user_filter, email, after=page.after(*list_key), limit=page.limit)
        items = [UserDetailsResponse.from_details(details) for details in users.items]
        return UserPageResponse(items, make_cursor(users.next_after, *list_key))

    @get(
        "/{user_id:uuid}",
        summary="Get a user",
        responses=problem_responses(*READ_ONE_ERRORS),
        **permitted("getUser"),
    )
    @inject
    async def show(self, user_id: UserId, show_user: FromDishka[ShowUser]) -> UserDetailsResponse:
        """Return a user."""
        return UserDetailsResponse.from_details(await show_user(user_id))

    @delete(
        "/{user_id:uuid}",
        summary="Delete a user",
        dependencies={"caller": Provide(authenticate)},
        responses=problem_responses(*WRITE_ONE_ERRORS),
        **permitted("deleteUser"),
    )
    @inject
    async def erase(
        self,
        user_id: UserId,
        caller: NamedDependency[Caller],
        erase_user: FromDishka[EraseUser],
    ) -> None:
        """Erase an account permanently, as its owner can by `DELETE /me`. The account of an admin
        or of a blocked user requires the scope `admin`.
        """
        await erase_user(caller, user_id)


class ExternalUsersController(Controller):
    """Routes for the users of a product, by the product's own ids."""

    path = EXTERNAL_USERS_PATH
    tags = ("Users",)

    @get(
        "/{external_id:str}",
        summary="Get a user by external id",
        responses=problem_responses(*READ_ONE_ERRORS),
        **permitted("getExternalUser"),
    )
    @inject
    async def show(
        self, external_id: ExternalId, show_user: FromDishka[ShowUser]
    ) -> UserDetailsResponse:
        """Return the user with an id of the product."""
        details = await show_user.by_external_id(decode_external_id(external_id))
        return UserDetailsResponse.from_details(details)

    @put(
        "/{external_id:str}",
        summary="Create or change a user by external id",
        status_code=200,
        dependencies={"caller": Provide(authenticate)},
        responses=problem_responses(
            *WRITE_ERRORS, *BODY_ERRORS, errors.EmailTaken, errors.EmailUndeliverable,
            errors.ExternalIdTaken, errors.ReferralCodeUnusable, errors.TooManyRequests,
        )
        | {
            201: ResponseSpec(
                UserDetailsResponse, generate_examples=False, description="The user is new."
            )
        },
        **permitted("putExternalUser"),
    )  # fmt: skip
    @inject
    async def put(
        self,
        request: Request[Any, Any, Any],
        external_id: ExternalId,
        data: JSONBody[PutExternalUserRequest],
        caller: NamedDependency[Caller],
        put_user: FromDishka[PutExternalUser],
    ) -> Response[UserDetailsResponse]:
        """Create the user with an id of the product, or change what the request names. A new
        address is unconfirmed unless the product vouches for it; with the old address the password
        and all sessions end. The user has no password, and can set one by
        `POST /auth/password/forgot`. To change an admin or a blocked user requires the scope
        `admin`.
        """
        if not data.email_verified:
            # Such a request may send a mail.
            await count_by_account(request, RateLimitGroup.TOKEN)
            await count_by_ip(request.scope, RateLimitGroup.TOKEN)
        locale = None if data.locale is UNSET else data.locale
        details, is_new = await put_user(
            caller,
            decode_external_id(external_id),
            ExternalUserData(data.email, data.email_verified, locale, data.referral_code),
        )
        response = UserDetailsResponse.from_details(details)
        if not is_new:
            return Response(response)
        location = f"{UsersController.path}/{response.id}"
        return Response(response, status_code=201, headers={"Location": location})
