"""Who may what, of the routes for admins and clients."""

from typing import Any

from referral.core.entities.clients import Scope
from referral.web.auth import require_scope

REQUIRED_SCOPES: dict[str, Scope] = {
    "blockUser": Scope.ADMIN,
    "confirmReferral": Scope.REFERRALS_WRITE,
    "createClient": Scope.ADMIN,
    "createWebhook": Scope.WEBHOOKS,
    "deactivateAnyCode": Scope.ADMIN,
    "deleteClient": Scope.ADMIN,
    "deleteUser": Scope.USERS_WRITE,
    "deleteWebhook": Scope.WEBHOOKS,
    "getExternalUser": Scope.USERS_READ,
    "getUser": Scope.USERS_READ,
    "getWebhook": Scope.WEBHOOKS,
    "listAllCodes": Scope.ADMIN,
    "listAuditRecords": Scope.ADMIN,
    "listClients": Scope.ADMIN,
    "listDeliveries": Scope.WEBHOOKS,
    "listEvents": Scope.EVENTS_READ,
    "listReferrals": Scope.REFERRALS_READ,
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


def permitted(operation_id: str) -> dict[str, Any]:
    """Return the operation id, the guard and the documented security of a route.

    Pass them to the decorator: `@get(…, **permitted("listClients"))`.
    """
    return {"operation_id": operation_id, **require_scope(REQUIRED_SCOPES[operation_id])}
