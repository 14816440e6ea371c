"""The token endpoint (RFC 6749), and the verification of its tokens by others."""

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
    "invalid e-mail": ("grant_type=password&username=a&password=b", "invalid_grant"),
    "bad UTF-8": ("grant_type=password&username=%ff&password=b", "invalid_request"),
    "lone surrogate": (
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


def token_error(response: httpx.Response) -> str:
    """Check the error response (RFC 6749, 5.2); return its code."""
    assert response.status_code == 400, response.text
    assert response.headers["content-type"].startswith("application/json")
    assert response.headers["cache-control"] == "no-store"
    assert response.json().keys() == {"error", "error_description"}
    assert response.json()["error_description"]
    return str(response.json()["error"])


@pytest.mark.parametrize(("form", "error"), BAD_FORMS.values(), ids=BAD_FORMS)
async def test_invalid_form_has_the_standard_error(
    client: httpx.AsyncClient, form: str, error: str
) -> None:
    """RFC 6749 defines the code of each error."""
    assert token_error(await client.post(TOKEN, content=form, headers=FORM)) == error


@pytest.mark.parametrize("media_type", ["json", "multipart", "text", "none"])
async def test_other_media_type_is_rejected(client: httpx.AsyncClient, media_type: str) -> None:
    """A body of another media type gets the error format of RFC 6749."""
    bodies: dict[str, dict[str, Any]] = {
        "json": {"json": VALID_FORM},
        "multipart": {"files": {name: (None, value) for name, value in VALID_FORM.items()}},
        "text": {"content": "grant_type=password", "headers": {"Content-Type": "text/plain"}},
        "none": {},
    }
    assert token_error(await client.post(TOKEN, **bodies[media_type])) == "invalid_request"


async def test_long_form_is_rejected(client: httpx.AsyncClient) -> None:
    """The limit of 64 KiB holds for every body."""
    form = "grant_type=password&password=" + "x" * 65 * 1024
    response = await client.post(TOKEN, content=form, headers=FORM)
    assert response.status_code == 413
    assert response.headers["content-type"] == "application/problem+json"


async def test_login_response_follows_the_standard(client: httpx.AsyncClient) -> None:
    """RFC 6749, 5.1: the response is `no-store`."""
    email = new_email()
    await register(client, email)
    response = await log_in(client, email)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    tokens = response.json()
    assert (tokens["token_type"], tokens["expires_in"]) == ("Bearer", 600)
    assert tokens["scope"] == "account"
    assert len(tokens["refresh_token"]) >= 43


async def test_wrong_password_and_unknown_email_get_the_same_response(
    client: httpx.AsyncClient,
) -> None:
    """The response does not reveal accounts."""
    ann = await join(client)
    wrong = await log_in(client, ann.email, "wrong password")
    unknown = await log_in(client, new_email())
    assert token_error(wrong) == token_error(unknown) == "invalid_grant"
    assert wrong.content == unknown.content


async def test_empty_client_credentials_are_ignored(
    client: httpx.AsyncClient,
) -> None:
    """Swagger UI's password form sends `Authorization: Basic Og==`."""
    email = new_email()
    await register(client, email)
    form = VALID_FORM | {"username": email}
    response = await client.post(TOKEN, data=form, headers={"Authorization": "Basic Og=="})
    assert response.status_code == 200


async def test_access_token_is_not_a_refresh_token(client: httpx.AsyncClient) -> None:
    """An access token as refresh token is `invalid_grant`."""
    form = {
        "grant_type": "refresh_token",
        "refresh_token": (await log_in_new_user(client))["access_token"],
    }
    assert token_error(await client.post(TOKEN, data=form)) == "invalid_grant"


async def test_token_verifies_with_the_published_keys(
    client: httpx.AsyncClient,
) -> None:
    """The JWKS is enough; the check here uses no JWT library (RFC 7515, 7518)."""
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


async def test_jwks_holds_public_parts_only(client: httpx.AsyncClient) -> None:
    """For RSA these are the modulus and the exponent."""
    for key in (await client.get("/.well-known/jwks.json")).json()["keys"]:
        assert key.keys() == {"kty", "kid", "use", "alg", "n", "e"}


async def test_pyjwt_accepts_the_token(client: httpx.AsyncClient) -> None:
    """PyJWT verifies signature, issuer and audience."""
    token = (await log_in_new_user(client))["access_token"]
    [key] = (await client.get("/.well-known/jwks.json")).json()["keys"]
    claims = jwt.decode(token, jwt.PyJWK(key), ["RS256"], audience=ISSUER, issuer=ISSUER)
    assert claims["jti"]
