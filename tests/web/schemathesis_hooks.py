"""What is changed about the requests that Schemathesis makes up."""

import itertools
import re
from typing import Any

import schemathesis

_numbers = itertools.count()


@schemathesis.hook
def map_headers(_: Any, headers: Any) -> Any:
    """Never use a good key twice: the second request would be told of a code deleted since."""
    key = (headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and re.fullmatch(r"[!-~]{1,255}", key):
        headers["Idempotency-Key"] = f"key-{next(_numbers)}"
    return headers


@schemathesis.hook
def before_call(_: Any, case: Any, __: Any) -> None:
    """Let a good request for a code make one: with one of two ends, and in place of the last."""
    is_good = case.meta is not None and case.meta.generation.mode.is_positive
    if case.operation.label == "POST /api/v1/me/codes" and is_good and isinstance(case.body, dict):
        case.body.pop("expires_at", None)
        case.body["lifetime_minutes"] = case.body.get("lifetime_minutes") or 60
        case.body["replace"] = True
