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


def format_date(time: datetime, locale: Locale) -> str:
    """Return a date in words, in UTC."""
    month = TEXTS[locale]["months"].split()[time.astimezone(UTC).month - 1]
    return f"{time.astimezone(UTC).day} {month} {time.astimezone(UTC).year}"


def format_time(time: datetime, locale: Locale) -> str:
    """Return a date and a time in words, in UTC."""
    return f"{format_date(time, locale)}, {time.astimezone(UTC):%H:%M} UTC"
