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
