"""Changes to the requests that Schemathesis generates."""

import re
from typing import Any
from uuid import uuid4

import schemathesis


@schemathesis.hook
def map_headers(_: Any, headers: Any) -> Any:
    """Use each valid key once, also in two runs: a replayed response could name a deleted code."""
    key = (headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(r"[!-~]{1,255}", key):
        headers["Idempotency-Key"] = str(uuid4())
    return headers


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Make valid requests for a code succeed: one kind of expiry, replacing the active code."""
    is_valid = case.meta is not None and case.meta.generation.mode.is_positive
    if case.operation.label == "POST /api/v1/me/codes" and is_valid and isinstance(case.body, dict):
        case.body.pop("expires_at", None)
        case.body["lifetime_minutes"] = case.body.get("lifetime_minutes") or 60
        case.body["replace"] = True
