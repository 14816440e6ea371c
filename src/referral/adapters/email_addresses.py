"""E-mail address parsing by email-validator."""

import unicodedata
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from referral.core.entities.users import EmailAddress
from referral.core.errors import InvalidRequest

PARSED_CACHE_SIZE = 2_000

MAX_EMAIL_CHARACTERS = 254
"""RFC 5321, section 4.5.3.1.3: 256 octets, less the angle brackets."""

MAX_LOCAL_PART_BYTES = 64
"""RFC 5321, section 4.5.3.1.1."""


class ValidatingEmailParser:
    """Parses e-mail addresses, and rejects spellings that programs or people may misread."""

    def __init__(self) -> None:
        """Cache parsed addresses: parsing one takes longer than looking up its code."""
        self.parse = lru_cache(PARSED_CACHE_SIZE)(self._parse)

    def _parse(self, text: str) -> EmailAddress:
        if len(text) > MAX_EMAIL_CHARACTERS:  # first, since parsing time grows with the length
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
            # Mail programs decode an encoded word; people read a fullwidth letter as a plain one.
            detail = (
                "Send a valid e-mail address, without encoded words or look-alike letters, "
                f"and with at most {MAX_LOCAL_PART_BYTES} bytes before the @-sign."
            )
            raise InvalidRequest(detail, field="email")
        canonical = unicodedata.normalize("NFC", local_part.casefold())
        return EmailAddress(text, f"{canonical}@{(parsed.ascii_domain or '').lower()}")


def _has_lookalikes(text: str) -> bool:
    """Return whether the text has compatibility characters, such as fullwidth letters."""
    return unicodedata.normalize("NFKC", text) != unicodedata.normalize("NFC", text)
