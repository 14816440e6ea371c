"""The HTTP request of a delivery, as Standard Webhooks defines it."""

import hmac
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from uuid import UUID


def encode_event(
    event_id: UUID, event_type: str, occurred_at: datetime, data: Mapping[str, object]
) -> bytes:
    """Return the body: the event as compact JSON, the same bytes at every attempt."""
    timestamp = occurred_at.astimezone(UTC).isoformat().replace("+00:00", "Z")
    event = {"id": str(event_id), "type": event_type, "timestamp": timestamp, "data": dict(data)}
    return json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()


def signature_headers(
    event_id: UUID, now: datetime, body: bytes, secrets: Iterable[bytes]
) -> dict[str, str]:
    """Return the headers by which the receiver verifies the body, with a signature per secret."""
    seconds = int(now.timestamp())
    signed = f"{event_id}.{seconds}.".encode() + body
    signatures = (b64encode(hmac.digest(secret, signed, "sha256")).decode() for secret in secrets)
    return {
        "webhook-id": str(event_id),
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
