"""E-mail addresses by email-validator."""

import unicodedata
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from referral.core.entities.users import EmailAddress
from referral.core.errors import InvalidRequest

PARSED_CACHE_SIZE = 2_000

MAX_EMAIL_CHARACTERS = 254
"""RFC 5321, 4.5.3.1.3, less the angle brackets."""

MAX_LOCAL_PART_BYTES = 64
"""RFC 5321, 4.5.3.1.1."""


class ValidatingEmailParser:
    """Addresses that one can write to, in any spelling that has one meaning."""

    def __init__(self) -> None:
        """Remember the latest, as reading one takes longer than looking its code up."""
        self.parse = lru_cache(PARSED_CACHE_SIZE)(self._parse)

    def _parse(self, text: str) -> EmailAddress:
        """See the port. The length comes first, as parsing time grows with it."""
        if len(text) > MAX_EMAIL_CHARACTERS:
            detail = f"Send a valid e-mail address, of at most {MAX_EMAIL_CHARACTERS} characters."
            raise InvalidRequest(detail, field="email")
        try:
            parsed = validate_email(
                text, check_deliverability=False, strict=True, test_environment=True
            )
        except (EmailNotValidError, UnicodeError) as error:
            detail = f"Send a valid e-mail address. {error}"
            raise InvalidRequest(detail, field="email") from error
        local_part = parsed.local_part
        if (
            "=?" in local_part
            or _has_lookalikes(text)
            or len(local_part.encode()) > MAX_LOCAL_PART_BYTES
        ):
            # An encoded word is read as other text by mail programs, a fullwidth letter by people.
            detail = (
                "Send a valid e-mail address, without encoded words or look-alike letters, "
                "and with at most 64 bytes before the @-sign."
            )
            raise InvalidRequest(detail, field="email")
        canonical = unicodedata.normalize("NFC", local_part.casefold())
        return EmailAddress(text, f"{canonical}@{(parsed.ascii_domain or '').lower()}")


def _has_lookalikes(text: str) -> bool:
    """Tell whether the text has letters that are another spelling of plain ones."""
    return unicodedata.normalize("NFKC", text) != unicodedata.normalize("NFC", text)
