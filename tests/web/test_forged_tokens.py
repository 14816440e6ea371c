"""Forged and malformed access tokens are rejected (RFC 8725, RFC 9068)."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.core.entities.clients import Scope
from tests.support.api_client import API, create_client
from tests.support.fakes.security import FakeFingerprinter
from tests.web.token_forger import TokenForger, decode, encode, log_in_new_user

ISSUER = "http://127.0.0.1:8000"
Forge = Callable[[TokenForger], str]


def _flip(part: str) -> str:
    raw = bytearray(decode(part))
    raw[len(raw) // 2] ^= 1
    return encode(bytes(raw))


def _in(seconds: int) -> int:
    return int(time.time()) + seconds


FORGERIES: dict[str, Forge] = {
    "alg none": lambda f: f.with_parts(lambda p: [encode(f.header | {"alg": "none"}), p[1], ""]),
    "alg None": lambda f: f.with_parts(lambda p: [encode(f.header | {"alg": "None"}), p[1], ""]),
    "alg none, signed": lambda f: f.with_header(alg="none"),
    "alg HS256 with the public key": lambda f: f.with_hmac(),
    "alg RS512": lambda f: f.with_header(alg="RS512"),
    "alg PS256": lambda f: f.with_header(alg="PS256"),
    "alg ES256": lambda f: f.with_header(alg="ES256"),
    "alg missing": lambda f: f.with_header(alg=None),
    "alg a number": lambda f: f.with_header(alg=1),
    "alg a list": lambda f: f.with_header(alg=["RS256"]),
    "crit unknown": lambda f: f.with_header(crit=["x"], x=1),
    "crit empty": lambda f: f.with_header(crit=[]),
    "crit a text": lambda f: f.with_header(crit="x"),
    "jwk of another": lambda f: f.with_embedded_key(),
    "jwk, kid of another": lambda f: f.with_embedded_key(kid="mine"),
    "jku": lambda f: f.with_embedded_key(jku="http://127.0.0.1:1/jwks.json"),
    "x5u": lambda f: f.with_embedded_key(x5u="http://127.0.0.1:1/cert.pem"),
    "kid a path": lambda f: f.with_header(kid="../../../../dev/null"),
    "kid SQL": lambda f: f.with_header(kid="' OR 1=1 --"),
    "kid with NUL": lambda f: f.with_header(kid="\0"),
    "kid long": lambda f: f.with_header(kid="x" * 4000),
    "kid a list": lambda f: f.with_header(kid=["x"]),
    "kid an object": lambda f: f.with_header(kid={"x": 1}),
    "kid a number": lambda f: f.with_header(kid=7),
    "kid a flag": lambda f: f.with_header(kid=True),
    "kid missing": lambda f: f.with_header(kid=None),
    "typ JWT": lambda f: f.with_header(typ="JWT"),
    "typ missing": lambda f: f.with_header(typ=None),
    "typ a list": lambda f: f.with_header(typ=["at+jwt"]),
    "b64 false": lambda f: f.with_header(b64=False, crit=["b64"]),
    "header changed": lambda f: f.with_parts(lambda p: [encode(f.header | {"x": 1}), p[1], p[2]]),
    "payload changed": lambda f: f.with_parts(lambda p: [p[0], _flip(p[1]), p[2]]),
    "signature changed": lambda f: f.with_parts(lambda p: [p[0], p[1], _flip(p[2])]),
    "signature cut": lambda f: f.with_parts(lambda p: [p[0], p[1], p[2][:-4]]),
    "signature empty": lambda f: f.with_parts(lambda p: [p[0], p[1], ""]),
    "signature missing": lambda f: f.with_parts(lambda p: p[:2]),
    "four parts": lambda f: f.with_parts(lambda p: [*p, p[2]]),
    "five parts": lambda f: f.with_parts(lambda p: [*p, *p[1:]]),
    "header no object": lambda f: f.with_parts(lambda p: [encode(b"[]"), p[1], p[2]]),
    "header no JSON": lambda f: f.with_parts(lambda p: [encode(b"\xff{"), p[1], p[2]]),
    "header deep": lambda f: f.with_parts(lambda p: [encode(b"[" * 9000), p[1], p[2]]),
    "header a long number": lambda f: f.with_parts(lambda p: [encode(b"1" * 6000), p[1], p[2]]),
    "lone surrogate": lambda f: f.with_header(kid="\ud800"),
    "not base64": lambda f: f.with_parts(lambda p: [p[0], "!" + p[1], p[2]]),
    "dots": lambda _: "..",
    "garbage": lambda _: "garbage",
    "non-ASCII": lambda f: f.token + "\xe9",
    "iss of another": lambda f: f.with_claims(iss="https://evil.example"),
    "iss with a slash": lambda f: f.with_claims(iss=ISSUER + "/"),
    "iss a list": lambda f: f.with_claims(iss=[ISSUER]),
    "aud of another": lambda f: f.with_claims(aud="https://other.example"),
    "aud empty": lambda f: f.with_claims(aud=[]),
    "aud a number": lambda f: f.with_claims(aud=5),
    "expired": lambda f: f.with_claims(exp=_in(-1)),
    "exp text": lambda f: f.with_claims(exp="never"),
    "exp a list": lambda f: f.with_claims(exp=[_in(60)]),
    "exp an object": lambda f: f.with_claims(exp={}),
    "exp beyond floats": lambda f: f.with_claims(exp="1e999"),
    "nbf ahead": lambda f: f.with_claims(nbf=_in(600)),
    "nbf text": lambda f: f.with_claims(nbf="soon"),
    "iat ahead": lambda f: f.with_claims(iat=_in(600)),
    "iat text": lambda f: f.with_claims(iat="now"),
    "sub no UUID": lambda f: f.with_claims(sub="ann"),
    "sub a number": lambda f: f.with_claims(sub=1),
    "sub an object": lambda f: f.with_claims(sub={}),
    "sub empty": lambda f: f.with_claims(sub=""),
    "sub of nobody": lambda f: f.with_claims(sub=str(uuid4())),
    "scope a list": lambda f: f.with_claims(scope=["account"]),
    "client_id a list": lambda f: f.with_claims(client_id=["first-party"]),
    "sid no UUID": lambda f: f.with_claims(sid="here"),
    "aud a list": lambda f: f.with_claims(aud=[ISSUER, "https://other.example"]),
    "payload no object": lambda f: f.with_payload(b"[]"),
    "payload no JSON": lambda f: f.with_payload(b"\xff"),
    "payload deep": lambda f: f.with_payload(b"[" * 9000),
} | {
    f"{claim} missing": lambda f, claim=claim: f.with_claims(**{claim: None})
    for claim in ("iss", "aud", "sub", "client_id", "scope", "iat", "exp", "jti")
}


NUMBERS: list[Any] = [None, True, "", "1", -1, 1e300, 10**30, [], [1], {}]
WRONG_CLAIMS: dict[str, list[Any]] = {
    claim: [None, True, 0, 1.5, [], ["x"], {}, {"x": 1}]
    for claim in ("iss", "aud", "sub", "client_id", "scope", "jti", "sid")
} | dict.fromkeys(("iat", "exp", "nbf"), NUMBERS)
"""Values of the wrong type; null is wrong too, where a missing claim may be valid."""


def is_rejected(response: httpx.Response) -> bool:
    """Check the headers of a 401; tell whether the status is 401."""
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"] == 'Bearer error="invalid_token"'
    return response.status_code == 401


@pytest.fixture(scope="session")
def signing_key(key_file: Path) -> RSAPrivateKey:
    """The service's private key."""
    key = load_pem_private_key(key_file.read_bytes(), password=None)
    assert isinstance(key, RSAPrivateKey)
    return key


@pytest.fixture(scope="module")
async def token(client: httpx.AsyncClient) -> str:
    """A valid access token."""
    return str((await log_in_new_user(client))["access_token"])


@pytest.fixture(scope="module")
async def client_credentials(database_url: str) -> tuple[str, str]:
    """The id and the secret of an OAuth client."""
    engine = make_engine(database_url)
    database = PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    created, secret = await create_client(database, f"shop {uuid4()}", [Scope.CODES_READ])
    await engine.dispose()
    return str(created.id), secret


@pytest.fixture
async def forger(client: httpx.AsyncClient, signing_key: RSAPrivateKey, token: str) -> TokenForger:
    """A forger whose plain re-signed token is accepted."""
    forger = TokenForger(signing_key, token)
    headers = {"Authorization": f"Bearer {forger.signed()}"}
    assert (await client.get(f"{API}/me", headers=headers)).status_code == 200
    return forger


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_forged_access_token_is_rejected(
    client: httpx.AsyncClient, forger: TokenForger, forge: Forge
) -> None:
    """Every defect gets 401."""
    headers = {b"Authorization": f"Bearer {forge(forger)}".encode("latin-1")}
    assert is_rejected(await client.get(f"{API}/me", headers=headers))


@pytest.mark.parametrize(
    ("claim", "value"),
    [(claim, value) for claim, values in WRONG_CLAIMS.items() for value in values],
    ids=str,
)
@pytest.mark.parametrize("scope", ["account", "codes:read"])
async def test_claim_of_the_wrong_type_is_rejected(
    client: httpx.AsyncClient,
    forger: TokenForger,
    client_credentials: tuple[str, str],
    claim: str,
    value: Any,
    scope: str,
) -> None:
    """Even a correctly signed token is 401, and inactive in introspection."""
    claims = forger.claims | {"scope": scope} | {claim: value}
    token = forger.with_payload(json.dumps(claims).encode())
    headers = {"Authorization": f"Bearer {token}"}
    assert is_rejected(await client.get(f"{API}/me", headers=headers))
    form = {"token": token}
    introspected = await client.post(f"{API}/auth/introspect", data=form, auth=client_credentials)
    assert (introspected.status_code, introspected.json()) == (200, {"active": False})
    assert (await client.post(f"{API}/auth/revoke", data=form)).status_code == 200


@pytest.mark.parametrize("subject", ["", "ann", "\0", "\U0010ffff", "0" * 500])
async def test_client_token_with_an_invalid_subject_is_inactive(
    client: httpx.AsyncClient,
    forger: TokenForger,
    client_credentials: tuple[str, str],
    subject: str,
) -> None:
    """The subject of a client's token must be a known id."""
    token = forger.with_claims(scope="codes:read", sub=subject)
    introspected = await client.post(
        f"{API}/auth/introspect", data={"token": token}, auth=client_credentials
    )
    assert (introspected.status_code, introspected.json()) == (200, {"active": False})


@pytest.mark.parametrize("scheme", ["Basic", "Token", "DPoP", "Bearer:", ""])
async def test_other_authorization_schemes_are_rejected(
    client: httpx.AsyncClient, forger: TokenForger, scheme: str
) -> None:
    """Only the scheme Bearer is accepted."""
    headers = {"Authorization": f"{scheme} {forger.token}"}
    assert is_rejected(await client.get(f"{API}/me", headers=headers))


async def test_two_authorization_headers_are_rejected(
    client: httpx.AsyncClient, forger: TokenForger
) -> None:
    """Two headers are ambiguous, even if both are valid."""
    headers = [("Authorization", f"Bearer {forger.token}")] * 2
    assert is_rejected(await client.get(f"{API}/me", headers=headers))


async def test_token_in_the_query_is_ignored(
    client: httpx.AsyncClient, forger: TokenForger
) -> None:
    """URLs are logged (RFC 9700, 4.3.2)."""
    response = await client.get(f"{API}/me", params={"access_token": forger.token})
    assert response.status_code == 401


async def test_refresh_token_is_not_an_access_token(client: httpx.AsyncClient) -> None:
    """A refresh token as bearer is 401."""
    headers = {"Authorization": f"Bearer {(await log_in_new_user(client))['refresh_token']}"}
    assert is_rejected(await client.get(f"{API}/me", headers=headers))
