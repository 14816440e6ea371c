"""Password rules."""

import unicodedata
from collections.abc import Container

from referral.core.entities.users import EmailAddress
from referral.core.errors import WeakPassword

MIN_PASSWORD_CHARACTERS = 8
MAX_PASSWORD_BYTES = 1024


def normalize_password(password: str) -> str:
    """Return the password in NFC, so that all keyboards enter the same password.

    Raises `WeakPassword` for a password that is too long. The length is checked first, because
    the time for normalization grows with the square of the length.
    """
    _check_length(password)
    return unicodedata.normalize("NFC", password)


def password_forms(password: str) -> tuple[str, ...]:
    """Return the forms to verify: in NFC and, if that is another one, as typed.

    This service hashes passwords in NFC; imported hashes were made of passwords as typed. Raises
    `WeakPassword` for a password that is too long.
    """
    return tuple(dict.fromkeys((normalize_password(password), password)))


def validate_new_password(
    password: str, email: EmailAddress, common_passwords: Container[str], *, field: str
) -> str:
    """Return a new password in NFC, or raise `WeakPassword` with the name of the request field."""
    try:
        normal = normalize_password(password)
        check_password_strength(normal, email, common_passwords)
    except WeakPassword as error:
        raise WeakPassword(error.detail, field=field) from None
    return normal


def check_password_strength(
    password: str, email: EmailAddress, common_passwords: Container[str]
) -> None:
    """Raise `WeakPassword` for a password that is too short, too long or easy to guess.

    The rules follow OWASP ASVS 5.0, section 6.2: length and a list, no composition rules.
    """
    _check_length(password)
    if len(password) < MIN_PASSWORD_CHARACTERS:
        detail = f"Use at least {MIN_PASSWORD_CHARACTERS} characters."
    elif password.lower() in common_passwords:
        detail = "This password is too common. Choose another one."
    elif password.lower() == email.local_part.lower():
        detail = "Your password must not be the name in your e-mail address. Choose another one."
    else:
        return
    raise WeakPassword(detail)


def _check_length(password: str) -> None:
    if len(password.encode(errors="surrogatepass")) > MAX_PASSWORD_BYTES:
        raise WeakPassword(f"Use at most {MAX_PASSWORD_BYTES} bytes.")
