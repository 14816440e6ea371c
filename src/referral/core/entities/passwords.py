"""Rules of passwords."""

import unicodedata
from collections.abc import Container
from typing import TypeVar

from referral.core.entities.users import Address
from referral.core.errors import WeakPassword

T = TypeVar("T")


MIN_PASSWORD_CHARACTERS = 8


MAX_PASSWORD_BYTES = 1024


def normal_password(password: str) -> str:
    """Return the password in NFC, so that every keyboard spells it the same.

    Raises `WeakPassword` for a password longer than any account can have. The length comes first:
    normalising takes time that grows with the square of the length.
    """
    _check_length(password)
    return unicodedata.normalize("NFC", password)


def accept_password(password: str, user: Address, common: Container[str], *, field: str) -> str:
    """Return a new password in NFC, or raise `WeakPassword` with the name of its field."""
    try:
        normal = normal_password(password)
        check_password(normal, user, common)
    except WeakPassword as error:
        raise WeakPassword(error.detail, field=field) from None
    return normal


def check_password(password: str, address: Address, common: Container[str]) -> None:
    """Raise `WeakPassword` for one that is too short, too long or easily guessed.

    The rules are those of OWASP's ASVS 5.0, 6.2: a length and a list, no make-up rules.
    """
    _check_length(password)
    if len(password) < MIN_PASSWORD_CHARACTERS:
        fault = f"Use at least {MIN_PASSWORD_CHARACTERS} characters."
    elif password.lower() in common:
        fault = "This password is on the lists that attackers try first. Choose another."
    elif password.lower() == address.local_part.lower():
        fault = "This password is the first part of your e-mail address. Choose another."
    else:
        return
    raise WeakPassword(fault)


def _check_length(password: str) -> None:
    if len(password.encode(errors="surrogatepass")) > MAX_PASSWORD_BYTES:
        raise WeakPassword(f"Use at most {MAX_PASSWORD_BYTES} bytes.")
