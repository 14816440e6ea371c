"""Texts of clients are measured before they are decoded."""

from base64 import b64encode
from pathlib import Path
from typing import Any

import httpx
import pytest
from litestar.testing import RequestFactory

from referral.adapters import mute
from referral.adapters.keys import KeyRing
from referral.adapters.redaction import CUT, redact
from referral.core.errors import InvalidClient, NotFound
from referral.web import forms, requests
from referral.web.problems import Misfit

LONG = "A" * 30_000


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
    with pytest.raises(Misfit):
        requests.PageRequest(20, LONG).after()
    assert decoded == []


def test_a_long_token_of_a_mail_is_not_decoded(decoded: list[object], key_file: Path) -> None:
    """All tokens of `List-Unsubscribe` have the same length."""
    with pytest.raises(NotFound):
        mute.SignedMuteTokens(KeyRing([key_file])).read(LONG)
    assert decoded == []


def test_long_credentials_are_not_decoded(decoded: list[object]) -> None:
    """Ids and secrets of clients are short."""
    request = RequestFactory().post(headers={"Authorization": f"Basic {LONG}"})
    with pytest.raises(InvalidClient):
        forms.read_credentials(request)
    assert decoded == []


async def test_a_long_list_of_languages_is_not_read_to_its_end(client: httpx.AsyncClient) -> None:
    """A page is in English where the first 1,024 characters name no language that it knows."""
    for number, locale in [(0, "ru"), (5_000, "en")]:
        headers = {"Accept-Language": "," * number + "ru"}
        page = await client.get("/confirm", headers=headers)
        assert f'<html lang="{locale}">' in page.text


async def test_a_page_takes_no_more_fields_than_a_form_of_the_token_endpoint(
    client: httpx.AsyncClient,
) -> None:
    """A form with very many fields is none of the page's."""
    form = "&".join(f"f{number}=1" for number in range(500))
    headers = {"Content-Type": forms.FORM}
    answer = await client.post("/confirm", content=form, headers=headers)
    assert answer.status_code == 422


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("ann@example.com", CUT),
        ("Key (ann@example.com)", f"Key ({CUT})"),
        ("to=ann@example.com,bob@example.com;", f"to={CUT},{CUT};"),
        ("a@b@example.com", f"{CUT}@example.com"),
        ("nobody", "nobody"),
    ],
)
def test_addresses_are_cut_out_of_the_log(text: str, cleaned: str) -> None:
    """Each of them, and nothing around it."""
    assert redact(None, "", {"cause": text})["cause"] == cleaned


def test_the_log_searches_a_long_word_once() -> None:
    """A search that begins anew at each letter would take seconds for 60 KB."""
    text = "a" * 200_000
    assert redact(None, "", {"cause": text})["cause"] in {text, CUT}


def test_good_credentials_are_short() -> None:
    """An id and a secret, with room to spare."""
    assert len(b64encode(b"x" * (36 + 1 + 43))) * 2 < forms.MAX_CREDENTIALS
