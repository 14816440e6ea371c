"""The body and the headers of a delivery, verified by the library of Standard Webhooks."""

import json
from base64 import b64encode
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from referral.core.policies.webhook_requests import encode_event, signature_headers

EVENT_ID = UUID("019a0000-0000-7000-8000-000000000001")
SECRET, PREVIOUS_SECRET = b"s" * 32, b"p" * 32
BODY = '{"name":"Zoë \U0001f98a","slash":"</script>"}'.encode()


def verifier(secret: bytes) -> Webhook:
    """Return a receiver with this secret in the form that the API shows."""
    return Webhook("whsec_" + b64encode(secret).decode())


@pytest.mark.parametrize("secret", [SECRET, PREVIOUS_SECRET])
def test_both_secrets_verify(secret: bytes) -> None:
    """A receiver that knows either secret accepts the request, and gets the event."""
    headers = signature_headers(EVENT_ID, datetime.now(UTC), BODY, [SECRET, PREVIOUS_SECRET])
    assert headers["webhook-id"] == str(EVENT_ID)
    assert verifier(secret).verify(BODY, headers) == json.loads(BODY)


def test_other_bodies_ids_times_and_secrets_do_not_verify() -> None:
    """The signature covers the id, the time of the attempt and every byte of the body."""
    now = datetime.now(UTC)
    headers = signature_headers(EVENT_ID, now, BODY, [SECRET])
    changed = [
        (BODY + b" ", headers),
        (BODY, headers | {"webhook-id": str(UUID(int=1))}),
        (BODY, headers | {"webhook-timestamp": str(int(now.timestamp()) - 1)}),
        (BODY, signature_headers(EVENT_ID, now, BODY, [PREVIOUS_SECRET])),
        (BODY, signature_headers(EVENT_ID, now - timedelta(minutes=6), BODY, [SECRET])),
    ]
    for body, changed_headers in changed:
        with pytest.raises(WebhookVerificationError):
            verifier(SECRET).verify(body, changed_headers)


def test_body() -> None:
    """The body is the event as compact JSON; the time is in UTC."""
    occurred_at = datetime(2026, 11, 22, 3, 0, 0, 5, tzinfo=timezone(timedelta(hours=3)))
    body = encode_event(
        EVENT_ID, "user.registered", occurred_at, {"code": "ÄB", "referrer_id": None}
    )
    assert body.decode() == (
        f'{{"id":"{EVENT_ID}","type":"user.registered","timestamp":"2026-11-22T00:00:00.000005Z",'
        '"data":{"code":"ÄB","referrer_id":null}}'
    )
