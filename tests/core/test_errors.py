"""What an error says."""

from referral.core.errors import EmailTaken, WeakPassword


def test_an_error_says_what_is_wrong_and_where() -> None:
    """A detail of its own comes before that of the class, and the field is named."""
    assert str(EmailTaken()) == EmailTaken().detail == EmailTaken.default
    own = WeakPassword("Too short.", field="password")
    assert (str(own), own.detail, own.field) == ("Too short.", "Too short.", "password")
