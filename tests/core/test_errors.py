"""What an error says."""

from referral.core.errors import EmailTaken, NoActiveCode, NotFound, WeakPassword


def test_an_error_says_what_is_wrong_and_where() -> None:
    """Raised without a word it has a sentence all the same; a word of one's own comes before it,
    and the field is named.
    """
    for error in (EmailTaken(), NoActiveCode(), NotFound()):
        assert str(error) == error.detail
        assert error.detail.endswith(".")
        assert error.field is None
    own = WeakPassword("Too short.", field="password")
    assert (str(own), own.detail, own.field) == ("Too short.", "Too short.", "password")
