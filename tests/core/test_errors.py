"""The details of errors."""

from referral.core.errors import EmailTaken, NoActiveCode, NotFound, WeakPassword


def test_error_has_a_detail_and_a_field() -> None:
    """An error without arguments has a default detail; an explicit detail and a field are kept."""
    for error in (EmailTaken(), NoActiveCode(), NotFound()):
        assert str(error) == error.detail
        assert error.detail.endswith(".")
        assert error.field is None
    explicit = WeakPassword("Too short.", field="password")
    assert (str(explicit), explicit.detail, explicit.field) == (
        "Too short.",
        "Too short.",
        "password",
    )
