"""Texts of clients are measured before they are decoded."""

import time
from base64 import b64encode
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from litestar.testing import RequestFactory

from referral.adapters.mail import unsubscribe_tokens as mute
from referral.adapters.observability.redaction import REDACTED, redact
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.security.keys import KeyRing
from referral.adapters.system import RandomTokenGenerator, SystemIdGenerator
from referral.core.entities.email_links import OneTimeToken, TokenPurpose
from referral.core.errors import InvalidClient, NotFound
from referral.core.use_cases.clients import ClientCredentials
from referral.web import oauth_forms as forms
from referral.web import parsing as requests
from referral.web.problems import ValidationFailed
from tests.support.api_client import join

LONG_TEXT = "A" * 30_000

MAX_SECONDS = 0.5
"""Of the processor's time, in seconds: a hundred times what is needed."""


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Whatever is decoded from Base64."""
    texts: list[object] = []

    def note(text: object, **_: Any) -> bytes:
        texts.append(text)
        return b""

    for module, name in ((mute, "urlsafe_b64decode"), (requests, "urlsafe_b64decode")):
        monkeypatch.setattr(module, name, note)
    monkeypatch.setattr(forms, "b64decode", note)
    return texts


def test_a_long_cursor_is_not_decoded(decoded: list[object]) -> None:
    """All cursors have the same length."""
    with pytest.raises(ValidationFailed):
        requests.PageRequest(20, LONG_TEXT).after()
    assert decoded == []


def test_a_long_token_of_a_mail_is_not_decoded(decoded: list[object], key_file: Path) -> None:
    """All tokens of `List-Unsubscribe` have the same length."""
    with pytest.raises(NotFound):
        mute.SignedUnsubscribeTokens(KeyRing([key_file])).verify(LONG_TEXT)
    assert decoded == []


def test_long_credentials_are_not_decoded(decoded: list[object]) -> None:
    """Ids and secrets of clients are short."""
    request = RequestFactory().post(headers={"Authorization": f"Basic {LONG_TEXT}"})
    with pytest.raises(InvalidClient):
        forms.require_client_credentials(request)
    assert decoded == []


async def test_a_long_list_of_languages_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    """A page is in English where the first 1,024 characters name no language that it knows."""
    for number, locale in [(0, "ru"), (5_000, "en")]:
        headers = {"Accept-Language": "," * number + "ru"}
        page = await client.get("/confirm", headers=headers)
        assert f'<html lang="{locale}">' in page.text


async def test_a_page_takes_no_more_fields_than_a_form_of_the_token_endpoint(
    client: httpx.AsyncClient, database: PostgresDatabase
) -> None:
    """What a form with 500 fields asks for is not done; with as many as may be it is."""
    secrets, ann = RandomTokenGenerator(), await join(client)
    token, ends = secrets.new(), datetime.now(UTC) + timedelta(hours=1)
    proof = OneTimeToken(secrets.digest(token), UUID(ann.id), TokenPurpose.RESET, ends)
    async with database.begin() as records:
        await records.one_time_tokens.add(proof)
    asked = {"token": token, "new_password": "staple battery horse"}
    for fields, status in [(500, 422), (forms.MAX_FORM_FIELDS, 200)]:
        more = {f"f{number}": "1" for number in range(fields - len(asked))}
        assert (await client.post("/reset", data=asked | more)).status_code == status


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
def test_addresses_are_cut_out_of_the_log(text: str, cleaned: str) -> None:
    """Each of them, and nothing around it."""
    assert redact(None, "", {"cause": text})["cause"] == cleaned


def test_the_log_searches_a_long_word_once() -> None:
    """A search that begins anew at each letter would take this thread seconds for 60 KB."""
    began = time.thread_time()
    assert redact(None, "", {"cause": "a" * 60_000})["cause"] == REDACTED
    assert time.thread_time() - began < MAX_SECONDS


def test_credentials_may_be_encoded_in_the_longest_way() -> None:
    """RFC 6749 has clients form-encode both, and some do so with every character."""
    sent = ClientCredentials(str(SystemIdGenerator().new()), RandomTokenGenerator().new())
    encoded = [quote_all(text) for text in (sent.client_id, sent.secret)]
    basic = b64encode(":".join(encoded).encode()).decode()
    request = RequestFactory().post(headers={"Authorization": f"Basic {basic}"})
    assert forms.require_client_credentials(request) == sent


def quote_all(text: str) -> str:
    """Encode each character by its number."""
    return "".join(f"%{ord(letter):02X}" for letter in text)
