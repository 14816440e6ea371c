"""Example values of fields, schemas and parameters in the OpenAPI document.

They tell one story: Ann, whom Eve referred, shares a code, and Bob registers with it.
"""

from typing import Any

from referral.core.entities.clients import Scope
from referral.core.entities.risk import RiskSignal
from referral.core.entities.subject_tokens import ACCESS_TOKEN_TYPE, TOKEN_EXCHANGE_GRANT
from referral.web.openapi_schemas import Node, resolve_schema, without_null
from referral.web.problem_types import EXAMPLE_PUBLIC_URL, REQUEST_ID_EXAMPLE

ANN_ID = "01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41"
BOB_ID = "01938f6b-51d0-7e0a-8a3c-94f7d2b6e105"
EVE_ID = "01938f11-08be-7c44-b6d1-2f5a9c7e3d80"
CODE_ID = "01938f60-2b9d-7f13-a5c8-7d1e4f0b6c92"
AUDIT_RECORD_ID = "01938f70-3f4e-7d21-9a6b-1c8e5d2f7a40"
CLIENT_ID = "01938f12-77a0-7b3c-8d5e-4f2a1b9c6d80"
REASON = "Reported by three users."
REFERRAL_ID = "01938f6b-51d1-7c9a-b2e4-60a8f3d7c519"
WEBHOOK_ID = "01938f72-4d1e-7c35-8b9a-2e6f1d0c5a84"
DELIVERY_ID = "01938f73-91b2-7d48-a7c6-3f5e2b1d0c96"
EVENT_ID = "01938f73-8e04-7a51-b2d9-6c4f3e2a1b07"
EVENT_CURSOR = "AAAAAAAAAAAAAAAAAAAAKhG1UGCMGadk"
SESSION_ID = "01938f5f-93a4-7d26-8e5b-6c0f2a1d7b38"

FIELD_EXAMPLES: dict[str, Any] = {
    "active": True,
    "aud": EXAMPLE_PUBLIC_URL,
    "blocked": False,
    "blocked_at": None,
    "client_id": "first-party",
    "confirm_by": None,
    "deliverability": "valid",
    "enabled": True,
    "exp": 1_796_116_800,
    "exported_at": "2026-12-03T08:00:00Z",
    "iat": 1_796_116_200,
    "issued_token_type": ACCESS_TOKEN_TYPE,
    "iss": EXAMPLE_PUBLIC_URL,
    "jti": "5f1d7a84-2b0c-4e57-9f0a-6c1d3e8b7a92",
    "sub": ANN_ID,
    "username": "ann@example.com",
    "access_token": "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl",
    "avatar_url": "https://example.com/ann.png",
    "code": "ANN-2026",
    "company": "Example Ltd",
    "country": "GB",
    "created_at": "2026-12-01T09:30:00Z",
    "domain": "example.com",
    "email": "ann@example.com",
    "email_key": "ann@example.com",
    "email_verified": True,
    "external_id": "shop-1234",
    "expires_at": "2026-12-31T23:59:59Z",
    "expires_in": 600,
    "id": ANN_ID,
    "joined_at": "2026-12-02T17:05:00Z",
    "seen_at": "2026-12-03T07:58:00Z",
    "registered_at": None,
    "max_uses": 100,
    "name": "Ann Example",
    "next_cursor": None,
    "notify_on_referral": True,
    "referral_count": 1,
    "refresh_token": "mF_9.B5f-4.1JqM-h3xJ0Qk2Zr8uYw6Tt7Ls1Vb4Nc5Xd",
    "role": "member",
    "scope": "account",
    "status": "active",
    "title": "Engineer",
    "token_type": "Bearer",
    "url": f"{EXAMPLE_PUBLIC_URL}/r/ANN-2026",
    "timestamp": "2026-12-01T09:30:00Z",
    "type": "code.created",
    "uses": 1,
    "valid": True,
}
"""Examples of fields by name. A field can also have an example in its own type."""

CLIENT: Node = {
    "id": CLIENT_ID,
    "name": "shop",
    "scopes": ["referrals:read"],
    "created_at": FIELD_EXAMPLES["created_at"],
}
RISK_SIGNAL: Node = {
    "code": RiskSignal.NETWORK_OF_REFERRER.code,
    "detail": RiskSignal.NETWORK_OF_REFERRER.detail,
}
RISK: Node = {"level": "medium", "signals": [RISK_SIGNAL]}

REFERRAL: Node = {
    "id": BOB_ID,
    "email": "bob@example.com",
    "status": "confirmed",
    "code": "ANN-2026",
    "joined_at": FIELD_EXAMPLES["joined_at"],
}
WEBHOOK: Node = {
    "id": WEBHOOK_ID,
    "url": "https://shop.example.com/hooks/referral",
    "events": ["referral.*", "user.registered"],
    "description": "Shop",
    "disabled_reason": None,
}
FIELDS_BY_SCHEMA: dict[str, Node] = {
    "CreatedWebhookResponse": WEBHOOK,
    "DeliveryResponse": {
        "id": DELIVERY_ID,
        "event_id": EVENT_ID,
        "event_type": "referral.confirmed",
        "status": "pending",
        "attempts": 1,
        "response_status": 503,
        "error": "the response was 503",
        "next_attempt_at": "2026-12-01T09:35:00Z",
    },
    "ReplayResponse": {"count": 42},
    "WebhookResponse": WEBHOOK,
    "AuthorizationServerMetadata": {
        "issuer": EXAMPLE_PUBLIC_URL,
        "authorization_endpoint": f"{EXAMPLE_PUBLIC_URL}/oauth/authorize",
        "response_modes_supported": ["query"],
        "code_challenge_methods_supported": ["S256"],
        "authorization_response_iss_parameter_supported": True,
        "token_endpoint": f"{EXAMPLE_PUBLIC_URL}/api/v1/auth/token",
        "revocation_endpoint": f"{EXAMPLE_PUBLIC_URL}/api/v1/auth/revoke",
        "introspection_endpoint": f"{EXAMPLE_PUBLIC_URL}/api/v1/auth/introspect",
        "jwks_uri": f"{EXAMPLE_PUBLIC_URL}/.well-known/jwks.json",
        "grant_types_supported": [
            "password",
            "authorization_code",
            "refresh_token",
            "client_credentials",
            TOKEN_EXCHANGE_GRANT,
        ],
        "response_types_supported": ["code"],
        "scopes_supported": [*Scope],
        "token_endpoint_auth_methods_supported": [
            *("none", "client_secret_basic", "client_secret_post")
        ],
        "revocation_endpoint_auth_methods_supported": [
            *("none", "client_secret_basic", "client_secret_post")
        ],
        "introspection_endpoint_auth_methods_supported": [
            *("client_secret_basic", "client_secret_post")
        ],
        "service_documentation": f"{EXAMPLE_PUBLIC_URL}/docs",
    },
    "AuditRecordResponse": {
        "id": AUDIT_RECORD_ID,
        "at": "2026-12-03T08:00:00Z",
        "actor": EVE_ID,
        "actor_type": "user",
        "action": "user.blocked",
        "subject": ANN_ID,
        "reason": REASON,
        "request_id": REQUEST_ID_EXAMPLE,
    },
    "ClientResponse": CLIENT,
    "ClientSecretResponse": CLIENT
    | {"client_secret": "Zr8uYw6Tt7Ls1Vb4Nc5XdmF9B5f41JqMh3xJ0Qk2abc"},
    "CodeResponse": {"id": CODE_ID},
    "StatisticsItemResponse": {
        "start": "2026-11-30T00:00:00Z",
        "registered": 120,
        "referred": 45,
        "confirmed": 38,
        "rejected": 3,
        "codes": 52,
    },
    "UserStatisticsItemResponse": {"start": "2026-11-30T00:00:00Z", "joined": 4, "confirmed": 3},
    "TopReferrerResponse": {"user_id": ANN_ID, "confirmed": 17, "pending": 2, "rejected": 1},
    "EventPageResponse": {"next_cursor": EVENT_CURSOR},
    "EventResponse": {
        "id": EVENT_ID,
        "data": {
            "code_id": CODE_ID,
            "user_id": ANN_ID,
            "code": "ANN-2026",
            "status": "active",
            "expires_at": FIELD_EXAMPLES["expires_at"],
            "uses": 0,
            "max_uses": FIELD_EXAMPLES["max_uses"],
        },
    },
    "ExportedCode": {"id": CODE_ID},
    "ExportedReferral": REFERRAL,
    "ExportedReferrer": {
        "referrer_id": EVE_ID,
        "status": "confirmed",
        "code": "EVE-2026",
        "joined_at": FIELD_EXAMPLES["created_at"],
    },
    "ExportedSession": {"id": SESSION_ID},
    "JsonWebKey": {
        "kty": "RSA",
        "kid": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        "use": "sig",
        "alg": "RS256",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1R",
        "e": "AQAB",
    },
    "LivenessResponse": {"status": "ok"},
    "RecentReferralResponse": REFERRAL,
    "OwnedCodeResponse": {"id": CODE_ID, "user_id": ANN_ID},
    "ReferralResponse": REFERRAL,
    "ReferrerResponse": {"id": EVE_ID, "email": None},
    "ReviewedReferralResponse": REFERRAL
    | {"referral_id": REFERRAL_ID, "referrer_id": ANN_ID, "held": False, "reason": REASON}
    | {"risk": RISK},
    "RiskResponse": RISK,
    "RiskSignalResponse": RISK_SIGNAL,
    "SetUserReferrerRequest": {"referrer_id": EVE_ID},
}
"""Examples of fields that differ from those of the same name in other schemas."""

SCHEMA_EXAMPLES: dict[str, Node] = {
    "CreateWebhookRequest": {
        "url": "https://shop.example.com/hooks/referral",
        "events": ["referral.*", "user.registered"],
        "description": "Shop",
    },
    "CreateCodeRequest": {"lifetime_minutes": 10_080, "code": "ANN-2026", "max_uses": 100},
    # The examples run in the order of the document: the password was changed before.
    "DeleteAccountRequest": {"password": "staple battery horse"},
    "RegisterRequest": {
        "email": "ann@example.com",
        "password": "correct horse battery",
        "locale": "en",
    },
    "PutExternalUserRequest": {
        "email": "ann@example.com",
        "email_verified": True,
        "locale": "en",
    },
    "ReplayEventsRequest": {"since": "2026-11-25T00:00:00Z"},
    "UpdateWebhookRequest": {"events": ["*"], "enabled": True},
    "RenewCodeRequest": {"lifetime_minutes": 20_160},
}
"""Examples of schemas that have only some of the fields, or other values."""

PARAMETER_EXAMPLES = {
    "code": "ANN-2026",
    "email": "ann@example.com",
    "external_id": "shop-1234",
    "from": "2026-11-01",
    "interval": "day",
    "to": "2026-12-01",
}
"""Examples of path and query parameters; ids have none, because they would not exist."""

PATH_EXAMPLES = {
    "code": "ANN-2026",
    "client_id": CLIENT_ID,
    "code_id": CODE_ID,
    "delivery_id": DELIVERY_ID,
    "external_id": "shop-1234",
    "referral_id": REFERRAL_ID,
    "user_id": BOB_ID,
    "webhook_id": WEBHOOK_ID,
}

LOCATION_EXAMPLES = {
    "createClient": f"/api/v1/clients/{CLIENT_ID}",
    "putExternalUser": f"/api/v1/users/{ANN_ID}",
    "registerUser": "/api/v1/me",
    "createWebhook": f"/api/v1/webhooks/{WEBHOOK_ID}",
    "createCode": f"/api/v1/me/codes/{CODE_ID}",
    "followShareLink": f"{EXAMPLE_PUBLIC_URL}/join?ref=ANN-2026",
}
"""Values of the Location header, by operation id."""


def make_example(schema: Node, schemas: Node) -> Any:  # noqa: ANN401 - any JSON value
    """Return an example of a schema."""
    schema = resolve_schema(schema, schemas)
    title = schema.get("title", "")
    if title in SCHEMA_EXAMPLES:
        return SCHEMA_EXAMPLES[title]
    if "examples" in schema:
        return schema["examples"][0]
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "array":
        return [make_example(schema["items"], schemas)]
    examples = FIELD_EXAMPLES | FIELDS_BY_SCHEMA.get(title, {})
    return {
        name: examples[name] if name in examples else make_example(without_null(field), schemas)
        for name, field in schema["properties"].items()
    }
