"""What the name of an error says."""

import pytest

from referral.core.errors import EmailTaken, NoActiveCode, NotFound, ReferralError, WeakPassword


@pytest.mark.parametrize(
    ("kind", "slug", "title"),
    [
        (EmailTaken, "email-taken", "Email taken"),
        (NoActiveCode, "no-active-code", "No active code"),
        (NotFound, "not-found", "Not found"),
    ],
)
def test_the_class_names_the_problem(kind: type[ReferralError], slug: str, title: str) -> None:
    """The slug and the title are the name of the class."""
    assert (kind.slug(), kind.title()) == (slug, title)


def test_an_error_says_what_is_wrong_and_where() -> None:
    """A detail of its own comes before that of the class; the pointer names the field."""
    assert str(EmailTaken()) == EmailTaken().detail == EmailTaken.default
    own = WeakPassword("Too short.", pointer="/password")
    assert (str(own), own.detail, own.pointer) == ("Too short.", "Too short.", "/password")
