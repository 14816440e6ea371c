"""The token endpoint (RFC 6749), and what others need to check its tokens."""

import json
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

from tests.support.api_client import API, PASSWORD, join, log_in, new_email, register
from tests.web.token_forger import decode, log_in_new_user

ISSUER = "http://127.0.0.1:8000"
TOKEN = f"{API}/auth/token"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


VALID_FORM = {"grant_type": "password", "username": "ann@example.com", "password": PASSWORD}
BAD_FORMS: dict[str, tuple[str, str]] = {
    "nothing": ("", "invalid_request"),
    "no grant": ("username=a&password=b", "invalid_request"),
    "an empty grant": ("grant_type=&username=a&password=b", "invalid_request"),
    "an unknown grant": ("grant_type=implicit", "unsupported_grant_type"),
    "a grant in capitals": ("grant_type=PASSWORD&username=a&password=b", "unsupported_grant_type"),
    "no username": ("grant_type=password&password=b", "invalid_request"),
    "no password": ("grant_type=password&username=a", "invalid_request"),
    "an empty password": ("grant_type=password&username=a&password=", "invalid_request"),
    "no refresh token": ("grant_type=refresh_token", "invalid_request"),
    "an unknown refresh token": ("grant_type=refresh_token&refresh_token=x", "invalid_grant"),
    "a repeated grant": ("grant_type=password&grant_type=password", "invalid_request"),
    "a repeated password": (
        "grant_type=password&username=a&password=b&password=c",
        "invalid_request",
    ),
    "a repeated unknown": ("grant_type=password&username=a&password=b&x=1&x=1", "invalid_request"),
    "another scope": ("grant_type=password&username=a&password=b&scope=admin", "invalid_scope"),
    "an unknown user": ("grant_type=password&username=a@example.com&password=b", "invalid_grant"),
    "no address": ("grant_type=password&username=a&password=b", "invalid_grant"),
    "bad UTF-8": ("grant_type=password&username=%ff&password=b", "invalid_request"),
    "half a surrogate pair": (
        "grant_type=password&username=%ed%a0%80&password=b",
        "invalid_request",
    ),
    "NUL": ("grant_type=password&username=%00&password=%00", "invalid_grant"),
    "too many fields": (
        "&".join(f"f{number}=1" for number in range(500)),
        "invalid_request",
    ),
    "a long password": (
        "grant_type=password&username=a@example.com&password=" + "x" * 2000,
        "invalid_grant",
    ),
}


def token_error(answer: httpx.Response) -> str:
    """Check the form of RFC 6749, 5.2, and return the error's code."""
    assert answer.status_code == 400, answer.text
    assert answer.headers["content-type"].startswith("application/json")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json().keys() == {"error", "error_description"}
    assert answer.json()["error_description"]
    return str(answer.json()["error"])


@pytest.mark.parametrize(("form", "error"), BAD_FORMS.values(), ids=BAD_FORMS)
async def test_a_bad_form_is_refused_as_the_standard_says(
    client: httpx.AsyncClient, form: str, error: str
) -> None:
    """RFC 6749 names the code for each fault."""
    assert token_error(await client.post(TOKEN, content=form, headers=FORM)) == error


@pytest.mark.parametrize("kind", ["json", "multipart", "text", "none"])
async def test_a_body_that_is_no_form_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    """JSON is no form, and no reason to answer in another shape."""
    bodies: dict[str, dict[str, Any]] = {
        "json": {"json": VALID_FORM},
        "multipart": {"files": {name: (None, value) for name, value in VALID_FORM.items()}},
        "text": {"content": "grant_type=password", "headers": {"Content-Type": "text/plain"}},
        "none": {},
    }
    assert token_error(await client.post(TOKEN, **bodies[kind])) == "invalid_request"


async def test_a_long_form_is_refused(client: httpx.AsyncClient) -> None:
    """64 KiB is the limit for every body."""
    form = "grant_type=password&password=" + "x" * 65 * 1024
    answer = await client.post(TOKEN, content=form, headers=FORM)
    assert answer.status_code == 413
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_login_is_as_the_standard_says(client: httpx.AsyncClient) -> None:
    """RFC 6749, 5.1; what a proxy stores could be handed to others."""
    email = new_email()
    await register(client, email)
    answer = await log_in(client, email)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 600)
    assert tokens["scope"] == "account"
    assert len(tokens["refresh_token"]) >= 43


async def test_a_wrong_password_and_an_unknown_address_look_the_same(
    client: httpx.AsyncClient,
) -> None:
    """Nobody learns from the answer who has an account."""
    ann = await join(client)
    wrong = await log_in(client, ann.email, "wrong password")
    unknown = await log_in(client, new_email())
    assert token_error(wrong) == token_error(unknown) == "invalid_grant"
    assert wrong.content == unknown.content


async def test_the_empty_client_credentials_of_swagger_ui_do_not_hinder(
    client: httpx.AsyncClient,
) -> None:
    """Its password form sends `Authorization: Basic Og==` along."""
    email = new_email()
    await register(client, email)
    form = VALID_FORM | {"username": email}
    answer = await client.post(TOKEN, data=form, headers={"Authorization": "Basic Og=="})
    assert answer.status_code == 200


async def test_an_access_token_is_no_refresh_token(client: httpx.AsyncClient) -> None:
    """Each of the two is good for one thing."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": (await log_in_new_user(client))["access_token"],
    }
    assert token_error(await client.post(TOKEN, data=form)) == "invalid_grant"


async def test_anyone_can_verify_a_token_with_the_published_keys(
    client: httpx.AsyncClient,
) -> None:
    """A gateway needs the JWKS and nothing of ours; here it is done by hand (RFC 7515, 7518)."""
    metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
    keys = (await client.get(httpx.URL(metadata["jwks_uri"]).path)).json()["keys"]
    head, payload, signature = (await log_in_new_user(client))["access_token"].split(".")
    header = json.loads(decode(head))
    assert header["typ"] == "at+jwt"
    assert header["alg"] == "RS256"
    [key] = [key for key in keys if key["kid"] == header["kid"]]
    assert (key["kty"], key["use"], key["alg"]) == ("RSA", "sig", "RS256")
    numbers = [int.from_bytes(decode(key[name]), "big") for name in ("e", "n")]
    public = RSAPublicNumbers(*numbers).public_key()
    public.verify(decode(signature), f"{head}.{payload}".encode(), PKCS1v15(), SHA256())
    claims = json.loads(decode(payload))
    assert claims["iss"] == claims["aud"] == metadata["issuer"] == ISSUER
    assert claims["client_id"] == "first-party"
    assert claims["scope"] == "account"
    assert claims["exp"] - claims["iat"] == 600


async def test_the_keys_hold_nothing_private(client: httpx.AsyncClient) -> None:
    """Of an RSA key, the modulus and the exponent are public."""
    for key in (await client.get("/.well-known/jwks.json")).json()["keys"]:
        assert key.keys() == {"kty", "kid", "use", "alg", "n", "e"}


async def test_a_common_library_takes_the_token(client: httpx.AsyncClient) -> None:
    """PyJWT, told the issuer and the audience, agrees with the check by hand."""
    token = (await log_in_new_user(client))["access_token"]
    [key] = (await client.get("/.well-known/jwks.json")).json()["keys"]
    claims = jwt.decode(token, jwt.PyJWK(key), ["RS256"], audience=ISSUER, issuer=ISSUER)
    assert claims["jti"]
