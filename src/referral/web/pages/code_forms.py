"""The fields of a referral code in forms."""

from datetime import datetime

from referral.core.entities.codes import Expiry
from referral.core.errors import (
    ActiveCodeExists,
    CodeTaken,
    InvalidRequest,
    NotFound,
    ReferralError,
)
from referral.core.use_cases.codes import NewCode

EXPIRY_DAYS = (7, 30, 90, 365)
"""The periods that a form offers. It sends the time at which one ends, so that a form that is sent
twice has the same effect as once.
"""

WHOLE_PAGE = "page"
"""In place of a field: the page has changed since it was shown, as in another tab."""

CODE_FIELD_ERRORS: dict[tuple[type[ReferralError], str | None], tuple[str, str]] = {
    (ActiveCodeExists, None): (WHOLE_PAGE, "code_exists"),
    (CodeTaken, None): ("code", "code_text_taken"),
    (CodeTaken, "code"): ("code", "code_text_taken"),
    (InvalidRequest, "code"): ("code", "code_text_invalid"),
    (InvalidRequest, "code_id"): (WHOLE_PAGE, "code_gone"),
    (InvalidRequest, "expires_at"): ("expires_at", "code_expiry_invalid"),
    (InvalidRequest, "max_uses"): ("max_uses", "code_max_uses_invalid"),
    (NotFound, None): (WHOLE_PAGE, "code_gone"),
}
"""The field and the text of each error, by class and field."""

MAX_NUMBER_CHARACTERS = 12


def read_new_code(fields: dict[str, str]) -> NewCode:
    """Return the code to create; raises `InvalidRequest`."""
    text = fields.get("code", "").strip()
    return NewCode(read_expiry(fields), text or None, _read_max_uses(fields))


def read_expiry(fields: dict[str, str]) -> Expiry:
    """Return the chosen time; raises `InvalidRequest`."""
    try:
        return Expiry(expires_at=datetime.fromisoformat(fields.get("expires_at", "")))
    except ValueError as error:
        raise InvalidRequest(field="expires_at") from error


def _read_max_uses(fields: dict[str, str]) -> int | None:
    text = fields.get("max_uses", "").strip()
    if not text:
        return None
    if len(text) > MAX_NUMBER_CHARACTERS or not (text.isascii() and text.isdigit()):
        raise InvalidRequest(field="max_uses")
    return int(text)
