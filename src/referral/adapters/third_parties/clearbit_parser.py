"""Enrichment by responses in Clearbit's format, whose texts are sanitized."""

import re
import unicodedata
from datetime import timedelta
from urllib.parse import urlsplit

from referral.adapters.third_parties.guarded_client import GuardedClient, SendRequest, TakePermit
from referral.adapters.third_parties.http_response import (
    HttpResponse,
    InvalidResponse,
    StillRunning,
)
from referral.core.entities.users import Profile

MAX_TEXT_CHARACTERS = 200
MAX_URL_CHARACTERS = 2000
DOMAIN_PATTERN = re.compile(r"(?=.{3,253}\Z)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+")

JOINERS = "\u200c\u200d"
"""Zero-width joiners: invisible, but part of some languages and of emoji sequences."""

OK = 200
IN_PROGRESS_STATUS = 202
NO_PROFILE_STATUSES = frozenset({400, 404, 422, 451})
"""The address is malformed (400, 422) or unknown (404), or its data is withheld (451)."""


class ClearbitFormatEnrichment(GuardedClient[Profile | None]):
    """Looks up profiles with a third party that responds in Clearbit's format."""

    def __init__(self, service: str, send: SendRequest, take_permit: TakePermit) -> None:
        """`send` sends the request; `take_permit` takes a permit from the rate budget."""
        super().__init__(service, send, parse_profile, take_permit)

    async def find(self, email: str, time_limit: timedelta) -> Profile | None:
        """Return the profile, None when there is none, or raise `Unavailable`."""
        return await self.request(email, time_limit)


def parse_profile(response: HttpResponse) -> Profile | None:
    """Parse a response about a person and a company.

    Raises `StillRunning` or `InvalidResponse`.
    """
    if response.status == IN_PROGRESS_STATUS:
        raise StillRunning
    if response.status in NO_PROFILE_STATUSES:
        return None
    content = response.content
    if response.status != OK:
        raise InvalidResponse(f"status {response.status}")
    if not isinstance(content, dict):
        raise InvalidResponse("response of an unknown format")
    # EmailHunter wraps the data in an object.
    profile = _profile(content["data"] if isinstance(content.get("data"), dict) else content)
    return None if profile == Profile() else profile


def _profile(tree: object) -> Profile:
    return Profile(
        name=_text(tree, "person.name.fullName"),
        title=_text(tree, "person.employment.title"),
        company=_text(tree, "company.name", "person.employment.name"),
        domain=_domain(tree, "company.domain", "person.employment.domain"),
        country=_text(tree, "person.geo.country", "company.geo.country"),
        avatar_url=_url(tree, "person.avatar"),
    )


def _text(tree: object, *paths: str) -> str | None:
    """Return the first text found, as one line of visible characters, truncated."""
    for path in paths:
        value = _value_at(tree, path)
        if isinstance(value, str):
            # Truncated before sanitizing, which takes time, and after it.
            words = "".join(map(_visible_character, value[: 4 * MAX_TEXT_CHARACTERS])).split()
            if text := " ".join(words)[:MAX_TEXT_CHARACTERS].strip():
                return text
    return None


def _domain(tree: object, *paths: str) -> str | None:
    text = _text(tree, *paths)
    return text.lower() if text and DOMAIN_PATTERN.fullmatch(text.lower()) else None


def _url(tree: object, path: str) -> str | None:
    """Return the URL of an image if a page may safely load it."""
    value = _value_at(tree, path)
    if not isinstance(value, str) or len(value) > MAX_URL_CHARACTERS or not value.isascii():
        return None
    if not value.isprintable() or any(character in value for character in " \"'<>\\`"):
        return None
    try:
        parts = urlsplit(value)
        is_safe = parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in value
    except ValueError:
        return None
    return value if is_safe else None


def _visible_character(character: str) -> str:
    if character.isspace():
        return " "
    is_hidden = unicodedata.category(character)[0] == "C" and character not in JOINERS
    return "" if is_hidden else character


def _value_at(tree: object, path: str) -> object:
    for name in path.split("."):
        tree = tree.get(name) if isinstance(tree, dict) else None
    return tree
