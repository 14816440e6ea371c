"""Client input is checked for its length before it is decoded."""

import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from litestar.testing import RequestFactory

from referral.adapters.observability.redaction import REDACTED, redact
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security import unsubscribe_tokens
from referral.adapters.security.keys import KeyRing
from referral.adapters.system import RandomTokenGenerator, SystemIdGenerator
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.errors import InvalidClient, NotFound
from referral.core.use_cases.clients import ClientCredentials
from referral.web import oauth, pagination
from referral.web.pagination import PageRequest
from referral.web.problems import ValidationFailed
from tests.support.api_client import join

LONG_TEXT = "A" * 30_000

MAX_SECONDS = 0.5
"""Maximum CPU time in seconds, a hundred times the usual one."""


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The texts that were decoded from Base64."""
    texts: list[object] = []

    def record(text: object, **_: Any) -> bytes:
        texts.append(text)
        return b""

    for module in (unsubscribe_tokens, pagination):
        monkeypatch.setattr(module, "urlsafe_b64decode", record)
    monkeypatch.setattr(oauth, "b64decode", record)
    return texts


def test_long_cursor_is_not_decoded(decoded: list[object]) -> None:
    """All cursors have the same length."""
    with pytest.raises(ValidationFailed):
        PageRequest(20, LONG_TEXT).after()
    assert decoded == []


def test_long_unsubscribe_token_is_not_decoded(decoded: list[object], key_file: Path) -> None:
    """All tokens of `List-Unsubscribe` have the same length."""
    with pytest.raises(NotFound):
        unsubscribe_tokens.SignedUnsubscribeTokens(KeyRing([key_file])).verify(LONG_TEXT)
    assert decoded == []


def test_long_client_credentials_are_not_decoded(decoded: list[object]) -> None:
    """Client ids and secrets are short."""
    request = RequestFactory().post(headers={"Authorization": f"Basic {LONG_TEXT}"})
    with pytest.raises(InvalidClient):
        oauth.find_client_credentials(request, {})
    assert decoded == []


async def test_long_accept_language_is_truncated(client: httpx.AsyncClient) -> None:
    """Only the first 1,024 characters select the language."""
    for number, locale in [(0, "ru"), (5_000, "en")]:
        headers = {"Accept-Language": "," * number + "ru"}
        page = await client.get("/confirm", headers=headers)
        assert f'<html lang="{locale}">' in page.text


async def test_form_with_too_many_fields_is_rejected(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """A page's form has the limit of fields of the token endpoint."""
    secrets, ann = RandomTokenGenerator(), await join(client)
    token, expires_at = secrets.new(), datetime.now(UTC) + timedelta(hours=1)
    one_time_token = OneTimeToken(
        secrets.digest(token), UUID(ann.id), TokenPurpose.RESET, expires_at
    )
    async with database.begin() as repositories:
        await repositories.one_time_tokens.add(one_time_token)
    form = {"token": token, "new_password": "staple battery horse"}
    for fields, status in [(500, 422), (oauth.MAX_FORM_FIELDS, 200)]:
        extra = {f"f{number}": "1" for number in range(fields - len(form))}
        assert (await client.post("/reset", data=form | extra)).status_code == status


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("ann@example.com", REDACTED),
        ("Key (ann@example.com)", f"Key ({REDACTED})"),
        ("to=ann@example.com,bob@example.com;", f"to={REDACTED},{REDACTED};"),
        ("a@b@example.com", f"{REDACTED}@example.com"),
        ("nobody", "nobody"),
    ],
)
def test_emails_are_redacted_in_logs(text: str, cleaned: str) -> None:
    """Each e-mail is replaced, and the text around it stays."""
    assert redact(None, "", {"cause": text})["cause"] == cleaned


def test_redaction_of_a_long_word_is_linear() -> None:
    """A quadratic search would take seconds for 60 KB."""
    began = time.thread_time()
    assert redact(None, "", {"cause": "a" * 60_000})["cause"] == REDACTED
    assert time.thread_time() - began < MAX_SECONDS


def test_fully_encoded_client_credentials_are_accepted() -> None:
    """RFC 6749 has clients form-encode both; some encode every character."""
    sent = ClientCredentials(str(SystemIdGenerator().new()), RandomTokenGenerator().new())
    encoded = [percent_encode_all(text) for text in (sent.client_id, sent.secret)]
    basic = b64encode(":".join(encoded).encode()).decode()
    request = RequestFactory().post(headers={"Authorization": f"Basic {basic}"})
    assert oauth.find_client_credentials(request, {}) == sent


def percent_encode_all(text: str) -> str:
    """Percent-encode every character."""
    return "".join(f"%{ord(letter):02X}" for letter in text)
