"""The texts of the pages: one catalogue of messages per locale, in the folder `messages`."""

import tomllib
from datetime import UTC, datetime

from referral.core.entities.users import Locale
from referral.package_files import package_folder

MESSAGES_FOLDER = package_folder("referral") / "web/pages/messages"

LANGUAGE_NAMES = {Locale.EN: "English", Locale.RU: "Русский"}

TEXTS: dict[Locale, dict[str, str]] = {
    locale: tomllib.loads((MESSAGES_FOLDER / f"{locale}.toml").read_text(encoding="utf-8"))
    for locale in Locale
}


MONTHS = {locale: ("", *texts["months"].split()) for locale, texts in TEXTS.items()}
"""The names of the months by number, from 1."""


def format_date(time: datetime, locale: Locale) -> str:
    """Return a date in words, in UTC."""
    day = time.astimezone(UTC)
    return f"{day.day} {MONTHS[locale][day.month]} {day.year}"


def format_time(time: datetime, locale: Locale) -> str:
    """Return a date and a time in words, in UTC."""
    return f"{format_date(time, locale)}, {time.astimezone(UTC):%H:%M} UTC"
