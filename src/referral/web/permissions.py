"""Who may what, of the routes for admins and clients."""

from typing import Any

from litestar.connection import ASGIConnection

from referral.core.entities.clients import Scope
from referral.core.errors import InsufficientScope
from referral.web.auth import authenticate, client_security, require_scope

REQUIRED_SCOPES: dict[str, Scope] = {
    "blockUser": Scope.ADMIN,
    "confirmReferral": Scope.REFERRALS_WRITE,
    "createClient": Scope.ADMIN,
    "createWebhook": Scope.WEBHOOKS,
    "deactivateAnyCode": Scope.ADMIN,
    "deleteClient": Scope.ADMIN,
    "deleteUser": Scope.USERS_WRITE,
    "deleteWebhook": Scope.WEBHOOKS,
    "exportReferrals": Scope.REFERRALS_READ,
    "getExternalUser": Scope.USERS_READ,
    "getStatistics": Scope.REFERRALS_READ,
    "getStatisticsSvg": Scope.REFERRALS_READ,
    "getUser": Scope.USERS_READ,
    "getWebhook": Scope.WEBHOOKS,
    "listAllCodes": Scope.ADMIN,
    "listAuditRecords": Scope.ADMIN,
    "listClients": Scope.ADMIN,
    "listDeliveries": Scope.WEBHOOKS,
    "listEvents": Scope.EVENTS_READ,
    "listReferrals": Scope.REFERRALS_READ,
    "listReferrers": Scope.REFERRALS_READ,
    "listUsers": Scope.USERS_READ,
    "listWebhooks": Scope.WEBHOOKS,
    "putExternalUser": Scope.USERS_WRITE,
    "rejectReferral": Scope.REFERRALS_WRITE,
    "replayEvents": Scope.WEBHOOKS,
    "retryDelivery": Scope.WEBHOOKS,
    "rotateClientSecret": Scope.ADMIN,
    "rotateWebhookSecret": Scope.WEBHOOKS,
    "setUserReferrer": Scope.REFERRALS_WRITE,
    "sendTestEvent": Scope.WEBHOOKS,
    "unblockUser": Scope.ADMIN,
    "updateWebhook": Scope.WEBHOOKS,
}
"""The client scope that opens each operation; admins and clients with `admin` may call them all."""

CONDITIONAL_SCOPES: dict[str, Scope] = {
    "introspectToken": Scope.USERS_READ,
    "issueToken": Scope.USERS_ACT,
    "listUserReferrals": Scope.REFERRALS_READ,
    "lookUpCode": Scope.CODES_READ,
    "lookUpCodePrivately": Scope.CODES_READ,
}
"""The scope that opens an operation, or a part of it, to clients, in addition to other callers.

docs/administration.md says what it opens. The use cases require it, except for the look-ups.
"""

LOOKUP_SCOPE = CONDITIONAL_SCOPES["lookUpCode"]
LOOKUP_SECURITY = [{}, *client_security(LOOKUP_SCOPE)]
"""The documented security of look-ups."""


def permitted(operation_id: str) -> dict[str, Any]:
    """Return the operation id, the guard and the documented security of a route.

    Pass them to the decorator: `@get(…, **permitted("listClients"))`.
    """
    return {"operation_id": operation_id, **require_scope(REQUIRED_SCOPES[operation_id])}


async def check_lookup_access(request: ASGIConnection[Any, Any, Any, Any], _: object) -> None:
    """Allow lookups to everyone, or to users and clients with the scope, as configured."""
    if request.app.state.public_lookups:
        return
    caller = await authenticate(request)
    if caller.user_id is None and not caller.is_client_with(LOOKUP_SCOPE):
        raise InsufficientScope
