"""E-mail address parsing by email-validator."""

import re
import unicodedata
from functools import lru_cache

from email_validator import EmailNotValidError, validate_email

from referral.core.entities.users import EmailAddress
from referral.core.errors import InvalidRequest

PARSED_CACHE_SIZE = 2_000
DOMAIN_CACHE_SIZE = 10_000

MAX_EMAIL_CHARACTERS = 254
"""RFC 5321, section 4.5.3.1.3: 256 octets, less the angle brackets."""

MAX_LOCAL_PART_BYTES = 64
"""RFC 5321, section 4.5.3.1.1."""

PLAIN_EMAIL = re.compile(
    r"([a-z0-9_!#$%&'*+\-/=?^`{|}~]+(?:\.[a-z0-9_!#$%&'*+\-/=?^`{|}~]+)*)@([a-z0-9.-]+)",
    re.ASCII | re.IGNORECASE,
)
"""A local part of ASCII letters that needs no quotes. Its domain is validated on its own."""


class ValidatingEmailParser:
    """Parses e-mail addresses, and rejects spellings that programs or people may misread."""

    def __init__(self) -> None:
        """Cache parsed addresses: parsing one takes longer than looking up its code."""
        self.parse = lru_cache(PARSED_CACHE_SIZE)(self._parse)
        self._is_plain_domain = lru_cache(DOMAIN_CACHE_SIZE)(_is_plain_domain)

    def _parse(self, text: str) -> EmailAddress:
        if len(text) > MAX_EMAIL_CHARACTERS:  # first, since parsing time grows with the length
            detail = f"Send a valid e-mail address, of at most {MAX_EMAIL_CHARACTERS} characters."
            raise InvalidRequest(detail, field="email")
        if self._is_plain(text):  # takes 2 µs, the rest 100
            return EmailAddress(text, text.lower())
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

    def _is_plain(self, text: str) -> bool:
        """Return whether lower case is the canonical form of a valid address."""
        match = PLAIN_EMAIL.fullmatch(text)
        return (
            match is not None
            and len(match[1]) <= MAX_LOCAL_PART_BYTES
            and "=?" not in text
            and self._is_plain_domain(match[2].lower())
        )


def _is_plain_domain(domain: str) -> bool:
    """Return whether an ASCII domain is valid, and is no IDN, whose length has two measures."""
    try:
        parsed = validate_email(
            f"a@{domain}", check_deliverability=False, strict=True, test_environment=True
        )
    except (EmailNotValidError, UnicodeError):
        return False
    return "xn--" not in domain and parsed.ascii_domain == domain


def _has_lookalikes(text: str) -> bool:
    """Return whether the text has compatibility characters, such as fullwidth letters."""
    return unicodedata.normalize("NFKC", text) != unicodedata.normalize("NFC", text)
