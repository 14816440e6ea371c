"""The details of errors."""

from datetime import timedelta

from referral.core.errors import (
    EmailTaken,
    NoActiveCode,
    NotFound,
    RescheduleJob,
    TooManyRequests,
    WeakPassword,
)


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


def test_exceeded_limit_tells_when_to_retry() -> None:
    """With the default detail or one of its own."""
    minute = timedelta(minutes=1)
    error = TooManyRequests(retry_after=minute)
    assert (error.detail, error.retry_after) == ("Too many requests. Try again later.", minute)
    assert TooManyRequests("Too many mails.", retry_after=minute).detail == "Too many mails."


def test_rescheduled_job_is_logged_with_its_delay() -> None:
    """The text is shown in the log of the worker."""
    assert str(RescheduleJob(timedelta(minutes=1))) == "rescheduled in 0:01:00"
