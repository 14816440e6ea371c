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
    """Raised without a word it has a sentence all the same; a word of one's own comes before it,
    and the pointer names the field.
    """
    for error in (EmailTaken(), NoActiveCode(), NotFound()):
        assert str(error) == error.detail
        assert error.detail.endswith(".")
        assert error.pointer is None
    own = WeakPassword("Too short.", pointer="/password")
    assert (str(own), own.detail, own.pointer) == ("Too short.", "Too short.", "/password")
