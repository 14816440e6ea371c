"""Profiles out of what Clearbit, and others in its form, answer; whatever they send is cleaned."""

import re
import unicodedata
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from typing import Literal
from urllib.parse import urlsplit

from referral.adapters.observability.samples import Sample
from referral.adapters.third_parties.guarded_client import GuardedClient, SendRequest, TakePermit
from referral.adapters.third_parties.http_response import HttpResponse, InvalidResponse
from referral.core.entities.users import Profile
from referral.core.errors import Unavailable

MAX_TEXT_CHARACTERS = 200
MAX_URL_CHARACTERS = 2000
DOMAIN_PATTERN = re.compile(r"(?=.{3,253}\Z)[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+")

JOINERS = "\u200c\u200d"
"""Invisible as they are, some languages and all families of emoji need them."""

OK = 200
IN_PROGRESS_STATUS = 202
NO_PROFILE_STATUSES = frozenset({400, 404, 422, 451})
"""Nothing is known, can be known or may be told of an address."""


class NotYet(Enum):
    """That the service is still looking."""

    NOT_YET = "not yet"


NOT_YET: Literal[NotYet.NOT_YET] = NotYet.NOT_YET


class HttpEnrichment:
    """See the port `Enrichment`."""

    def __init__(self, service: str, send: SendRequest, take_permit: TakePermit) -> None:
        """Take how to ask, and what takes places in the budget."""
        self._service = service
        self._client = GuardedClient(service, send, parse_profile, take_permit)

    async def find(self, email: str, time_limit: timedelta) -> Profile | None:
        """See the port."""
        profile = await self._client.request(email, time_limit)
        if profile is NOT_YET:
            raise Unavailable(f"{self._service} is still looking")
        return profile

    def samples(self) -> Iterator[Sample]:
        """See `Measured`."""
        return self._client.samples()

    async def close(self) -> None:
        """Give up what nobody waits for."""
        await self._client.close()


def parse_profile(response: HttpResponse) -> Profile | NotYet | None:
    """Parse a response about a person and their company, or raise `InvalidResponse`."""
    if response.status == IN_PROGRESS_STATUS:
        return NOT_YET
    if response.status in NO_PROFILE_STATUSES:
        return None
    content = response.content
    if response.status != OK:
        raise InvalidResponse(f"status {response.status}")
    if not isinstance(content, dict):
        raise InvalidResponse("an answer in another form")
    # EmailHunter has an envelope around it.
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
    """Return the first text there is: one line of what can be seen, and not too long."""
    for path in paths:
        value = _value_at(tree, path)
        if isinstance(value, str):
            # Cut before cleaning, which takes time, and after it.
            words = "".join(map(_visible_character, value[: 4 * MAX_TEXT_CHARACTERS])).split()
            if text := " ".join(words)[:MAX_TEXT_CHARACTERS].strip():
                return text
    return None


def _domain(tree: object, *paths: str) -> str | None:
    text = _text(tree, *paths)
    return text.lower() if text and DOMAIN_PATTERN.fullmatch(text.lower()) else None


def _url(tree: object, path: str) -> str | None:
    """Return an address of a picture that a page may load, whole or not at all."""
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
