"""What admins change of users."""

from uuid import UUID

from dishka import FromDishka
from litestar import Controller, post, put
from litestar.di import NamedDependency, Provide
from litestar.params import JSONBody
from msgspec import Struct

from referral.core import errors
from referral.core.entities.clients import Caller
from referral.core.use_cases.accounts import BlockAccount
from referral.core.use_cases.referral_review import SetReferrerByHand
from referral.core.use_cases.users import ShowUser
from referral.web.auth import authenticate
from referral.web.controllers.all_codes import ReasonRequest
from referral.web.controllers.users import UserDetailsResponse, UserId
from referral.web.field_types import Reason
from referral.web.injection import inject
from referral.web.permissions import permitted
from referral.web.problem_types import BODY_ERRORS, READ_ONE_ERRORS, problem_responses


class SetUserReferrerRequest(Struct, forbid_unknown_fields=True):
    """The referrer, and why, for the audit log."""

    referrer_id: UUID
    reason: Reason


class UserAdministrationController(Controller):
    """Routes that change users, for admins."""

    path = "/api/v1/users"
    tags = ("Administration",)
    dependencies = {"caller": Provide(authenticate)}

    @post(
        "/{user_id:uuid}/block",
        summary="Block a user",
        status_code=200,
        responses=problem_responses(*READ_ONE_ERRORS, *BODY_ERRORS),
        **permitted("blockUser"),
    )
    @inject
    async def block(
        self,
        user_id: UserId,
        caller: NamedDependency[Caller],
        data: JSONBody[ReasonRequest],
        block_account: FromDishka[BlockAccount],
        show_user: FromDishka[ShowUser],
    ) -> UserDetailsResponse:
        """Block a user: every session ends, and the codes are neither found nor usable."""
        await block_account(user_id, caller.actor, data.reason)
        return UserDetailsResponse.from_details(await show_user(user_id))

    @post(
        "/{user_id:uuid}/unblock",
        summary="Unblock a user",
        status_code=200,
        responses=problem_responses(*READ_ONE_ERRORS, *BODY_ERRORS),
        **permitted("unblockUser"),
    )
    @inject
    async def unblock(
        self,
        user_id: UserId,
        caller: NamedDependency[Caller],
        data: JSONBody[ReasonRequest],
        block_account: FromDishka[BlockAccount],
        show_user: FromDishka[ShowUser],
    ) -> UserDetailsResponse:
        """Unblock a user, who can log in again."""
        await block_account(user_id, caller.actor, data.reason, undo=True)
        return UserDetailsResponse.from_details(await show_user(user_id))

    @put(
        "/{user_id:uuid}/referrer",
        summary="Set a user's referrer",
        responses=problem_responses(*READ_ONE_ERRORS, *BODY_ERRORS, errors.AlreadyReferred),
        **permitted("setUserReferrer"),
    )
    @inject
    async def set_referrer(
        self,
        user_id: UserId,
        caller: NamedDependency[Caller],
        data: JSONBody[SetUserReferrerRequest],
        set_referrer: FromDishka[SetReferrerByHand],
        show_user: FromDishka[ShowUser],
    ) -> UserDetailsResponse:
        """Set the referrer of a user who has none, without a code and at any time. The referral
        is pending until the user's address is confirmed.
        """
        await set_referrer(user_id, data.referrer_id, caller.actor, data.reason)
        return UserDetailsResponse.from_details(await show_user(user_id))
