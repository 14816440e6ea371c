"""The rules of the entities."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from uuid import UUID

import pytest

from referral.core.entities.codes import (
    CODE_PATTERN,
    GENERATED_CODE_ALPHABET,
    GENERATED_CODE_CHARACTERS,
    Code,
    CodeStatus,
    Expiry,
)
from referral.core.entities.page import Page
from referral.core.entities.passwords import check_password_strength, normalize_password
from referral.core.entities.sessions import RefreshToken
from referral.core.entities.users import EmailAddress
from referral.core.errors import CodeExhausted, CodeExpired, InvalidRequest, WeakPassword

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MICROSECOND = timedelta(microseconds=1)
ID = UUID(int=1)
ANN = EmailAddress("Ann.Example@example.com", "ann.example@example.com")


def make_code(
    *, left: timedelta = SECOND, uses: int = 0, max_uses: int | None = None, enabled: bool = True
) -> Code:
    """Return a code that expires `left` after `NOW`."""
    return Code(ID, ID, "ANN-2026", NOW - SECOND, NOW + left, max_uses, uses, enabled)


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (make_code(), CodeStatus.ACTIVE),
        (make_code(uses=1, max_uses=2), CodeStatus.ACTIVE),
        (make_code(left=MICROSECOND), CodeStatus.ACTIVE),
        (make_code(enabled=False), CodeStatus.INACTIVE),
        (make_code(uses=2, max_uses=2), CodeStatus.EXHAUSTED),
        (make_code(uses=3, max_uses=2), CodeStatus.EXHAUSTED),
        (make_code(uses=2, max_uses=2, enabled=False), CodeStatus.EXHAUSTED),
        (make_code(left=timedelta(0)), CodeStatus.EXPIRED),
        (make_code(left=-SECOND), CodeStatus.EXPIRED),
        (make_code(left=-SECOND, enabled=False), CodeStatus.EXPIRED),
        (make_code(left=-SECOND, uses=2, max_uses=2), CodeStatus.EXPIRED),
        (make_code(left=-SECOND, uses=2, max_uses=2, enabled=False), CodeStatus.EXPIRED),
    ],
)
def test_code_status(code: Code, status: CodeStatus) -> None:
    """Expired precedes exhausted, and both precede inactive; `expires_at` itself is expired."""
    assert code.status(NOW) is status
    assert code.is_active(NOW) is (status is CodeStatus.ACTIVE)


def test_expired_or_exhausted_code_cannot_be_activated() -> None:
    """Each has its own error; an inactive code can be activated."""
    assert make_code(enabled=False).activated(NOW) == make_code()
    assert make_code().deactivated() == make_code(enabled=False)
    with pytest.raises(CodeExpired):
        make_code(left=-SECOND).activated(NOW)
    with pytest.raises(CodeExhausted):
        make_code(uses=1, max_uses=1).activated(NOW)


@pytest.mark.parametrize(
    ("expiry", "expires_at"),
    [
        (Expiry(lifetime_minutes=1), NOW + timedelta(minutes=1)),
        (Expiry(lifetime_minutes=525_600), NOW + timedelta(days=365)),
        (Expiry(expires_at=NOW + timedelta(seconds=55)), NOW + timedelta(seconds=55)),
        (
            Expiry(expires_at=NOW + timedelta(days=365, seconds=5)),
            NOW + timedelta(days=365, seconds=5),
        ),
    ],
)
def test_expiry_within_the_bounds(expiry: Expiry, expires_at: datetime) -> None:
    """From a minute to a year ahead, with five seconds of tolerance for clock skew."""
    assert expiry.resolve(NOW) == expires_at


@pytest.mark.parametrize(
    "expiry",
    [
        Expiry(),
        Expiry(expires_at=NOW + timedelta(days=1), lifetime_minutes=60),
        Expiry(expires_at=NOW + timedelta(seconds=55) - MICROSECOND),
        Expiry(expires_at=NOW - timedelta(days=1)),
        Expiry(expires_at=NOW + timedelta(days=365, seconds=5) + MICROSECOND),
        Expiry(expires_at=datetime.max.replace(tzinfo=UTC)),
        Expiry(expires_at=(NOW + timedelta(days=1)).replace(tzinfo=None)),
    ],
)
def test_expiry_out_of_bounds_is_rejected(expiry: Expiry) -> None:
    """As are a missing expiry, two of them, and one without a UTC offset."""
    with pytest.raises(InvalidRequest) as raised:
        expiry.resolve(NOW)
    assert raised.value.field == "expires_at"


@pytest.mark.parametrize("minutes", [-1, 0, 525_601, 10**7, 10**26])
def test_lifetime_out_of_bounds_is_rejected(minutes: int) -> None:
    """A code lives from a minute to a year."""
    with pytest.raises(InvalidRequest) as raised:
        Expiry(lifetime_minutes=minutes).resolve(NOW)
    assert raised.value.field == "lifetime_minutes"
    assert raised.value.detail == "Send a number of minutes from 1 to 525,600."


@pytest.mark.parametrize(
    "text", ["", "An", "x" * 33, "x y", "x y\n", "Ann-2026\n", "Ann\u00e9", "An\u0660", "a\0b"]
)
def test_invalid_code_text_is_rejected(text: str) -> None:
    """A code is 3 to 32 ASCII letters, digits and hyphens."""
    with pytest.raises(InvalidRequest) as raised:
        replace(make_code(), text=text).validated()
    assert raised.value.field == "code"
    detail = "A code has 3 to 32 characters: letters A to Z, digits and hyphens."
    assert raised.value.detail == detail


@pytest.mark.parametrize("text", ["Ann", "a-1", "x" * 32, "---"])
@pytest.mark.parametrize("max_uses", [None, 1, 2_147_483_647])
def test_text_and_maximum_within_the_bounds(text: str, max_uses: int | None) -> None:
    """The bounds are inclusive."""
    code = replace(make_code(), text=text, max_uses=max_uses)
    assert code.validated() == code


@pytest.mark.parametrize("max_uses", [-1, 0, 2_147_483_648, 10**26])
def test_maximum_out_of_bounds_is_rejected(max_uses: int) -> None:
    """A maximum is at least 1 and at most the largest 32-bit integer."""
    with pytest.raises(InvalidRequest) as raised:
        replace(make_code(), max_uses=max_uses).validated()
    assert raised.value.field == "max_uses"
    assert raised.value.detail == "Send a number from 1 to 2,147,483,647."


def test_expiry_is_converted_to_utc() -> None:
    """An expiry with another offset is the same instant in UTC."""
    other_offset = (NOW + timedelta(hours=1)).astimezone(timezone(timedelta(hours=5)))
    expires_at = Expiry(expires_at=other_offset).resolve(NOW)
    assert (expires_at, expires_at.tzinfo) == (NOW + timedelta(hours=1), UTC)


@pytest.mark.parametrize(
    "password",
    [
        "12345678",
        "x" * 1024,
        "ж" * 512,
        "ann.example@example.com",
        "    tab\tand\nline ",
        "пароль!!",
        "\0" * 8,
    ],
)
def test_valid_password_is_accepted(password: str) -> None:
    """From 8 characters to 1,024 bytes, of any kind."""
    check_password_strength(password, ANN, {"password1234"})


@pytest.mark.parametrize(
    ("password", "detail"),
    [
        ("1234567", "at least 8 characters"),
        ("ж" * 7, "at least 8 characters"),
        ("x" * 1025, "at most 1024 bytes"),
        ("ж" * 513, "at most 1024 bytes"),
        ("password1234", "too common"),
        ("PassWord1234", "too common"),
        ("ann.example", "your e-mail address"),
        ("ANN.EXAMPLE", "your e-mail address"),
    ],
)
def test_weak_password_is_rejected(password: str, detail: str) -> None:
    """The error names the cause: too short, too long, common, or like the e-mail address."""
    with pytest.raises(WeakPassword, match=detail):
        check_password_strength(password, ANN, {"password1234"})


def test_password_is_compared_with_the_email_in_nfc() -> None:
    """In whichever Unicode form the two are given."""
    email = EmailAddress("jose\u0301-maria@example.com", "")
    with pytest.raises(WeakPassword, match="your e-mail address"):
        check_password_strength("jos\u00e9-maria", email, ())


def test_passwords_are_compared_in_nfc() -> None:
    """Composed and decomposed letters are equal."""
    assert normalize_password("cafe\u0301") == normalize_password("caf\u00e9") == "caf\u00e9"


def test_local_part_ends_at_the_last_at_sign() -> None:
    """A quoted local part may contain an at sign."""
    assert EmailAddress('"a@b"@example.com', "").local_part == '"a@b"'


@pytest.mark.parametrize(
    ("used_at", "is_reuse"),
    [
        (None, False),
        (NOW, False),
        (NOW - timedelta(seconds=10), False),
        (NOW - timedelta(seconds=10) - MICROSECOND, True),
    ],
)
def test_refresh_token_reuse(used_at: datetime | None, *, is_reuse: bool) -> None:
    """After ten seconds, or once a successor was used, a repeat is reuse."""
    assert RefreshToken(b"", ID, used_at).is_reuse(NOW) is is_reuse
    assert RefreshToken(b"", ID, used_at, heir=b"x").is_reuse(NOW) is (used_at is not None)


@pytest.mark.parametrize(
    ("found", "items", "after"),
    [(0, [], None), (1, [9], None), (3, [9, 8, 7], None), (4, [9, 8, 7], 7), (5, [9, 8, 7], 7)],
)
def test_page_is_cut_to_its_limit(found: int, items: list[int], after: int | None) -> None:
    """A next page exists only if one more row was found; its cursor is the last item's key."""
    ids = [UUID(int=9 - index) for index in range(found)]
    page = Page.from_rows(ids, 3, lambda item: item)
    assert page.items == [UUID(int=item) for item in items]
    assert page.next_after == (None if after is None else UUID(int=after))


def test_generated_codes_are_hard_to_guess_and_easy_to_read() -> None:
    """Eight characters without look-alikes, of which all are allowed in a code."""
    assert (GENERATED_CODE_CHARACTERS, len(GENERATED_CODE_ALPHABET)) == (8, 31)
    assert set(GENERATED_CODE_ALPHABET).isdisjoint("0O1IL")
    assert CODE_PATTERN.fullmatch(GENERATED_CODE_ALPHABET)


@pytest.mark.parametrize(
    ("expiry", "detail"),
    [
        (Expiry(), "Send exactly one of 'expires_at' and 'lifetime_minutes'."),
        (Expiry(NOW, 1), "Send exactly one of 'expires_at' and 'lifetime_minutes'."),
        (Expiry(NOW), "Send a time between 1 minute and 365 days from now."),
        (Expiry(NOW.replace(tzinfo=None)), "Send a time with a UTC offset."),
    ],
)
def test_rejected_expiry_tells_what_to_send(expiry: Expiry, detail: str) -> None:
    """Each cause has its own advice."""
    with pytest.raises(InvalidRequest) as raised:
        expiry.resolve(NOW)
    assert raised.value.detail == detail
