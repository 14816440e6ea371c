"""External ids in paths: percent-encoded, `%2F` included."""

import re
from typing import Annotated
from urllib.parse import unquote_to_bytes

from litestar.params import PathParameter
from litestar.types import Scope
from litestar.utils import normalize_path

from referral.core.entities.external_ids import MAX_EXTERNAL_ID_CHARACTERS

EXTERNAL_USERS_PATH = "/api/v1/users/external"

ENCODED_SEGMENT = re.compile(rb"(?:[^%/]|%[0-9A-Fa-f]{2})+")
"""A segment of a path in which every `%` begins an encoded byte."""

INVALID_EXTERNAL_ID = ""
"""In place of an id that is not percent-encoded UTF-8; no external id is empty."""

ExternalId = Annotated[
    str,
    PathParameter(
        description="The user's id in the product: 1 to 255 visible characters, case-sensitive, "
        "percent-encoded (a slash as `%2F`).",
        schema_extra={
            "minLength": 1,
            "maxLength": MAX_EXTERNAL_ID_CHARACTERS,
            "examples": ["shop-1234"],
        },
    ),
]


def keep_external_id_encoded(scope: Scope) -> bool:
    """Route a path that ends in an external id as it was sent: the id may contain slashes.

    Returns False for any other spelling of such a path, whose id would be decoded twice, and for an
    unencoded slash at the start of the id, which Litestar would drop.
    """
    path = (scope.get("raw_path") or b"").partition(b"?")[0].decode("latin-1")
    if path.startswith(f"{EXTERNAL_USERS_PATH}/"):
        scope["path"] = path
        return not path.startswith(f"{EXTERNAL_USERS_PATH}//")
    return not normalize_path(scope["path"]).startswith(f"{EXTERNAL_USERS_PATH}/")


def decode_external_id(encoded: str) -> str:
    """Return the external id of a path, or `INVALID_EXTERNAL_ID`."""
    raw = encoded.encode("latin-1")
    if not ENCODED_SEGMENT.fullmatch(raw):
        return INVALID_EXTERNAL_ID
    try:
        return unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return INVALID_EXTERNAL_ID
