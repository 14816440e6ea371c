"""Token exchange over HTTP, with an issuer on a real socket (RFC 8693, RFC 7519, RFC 8725)."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from dishka import Provider
from dishka import Scope as DishkaScope

from referral.adapters.jobs.queue import PostgresJobQueue
from referral.adapters.postgres.database import PostgresDatabase
from referral.adapters.postgres.engine import make_engine
from referral.core.entities.clients import Scope
from referral.core.entities.subject_tokens import (
    ACCESS_TOKEN_TYPE,
    TOKEN_EXCHANGE_GRANT,
    SubjectTokenType,
)
from referral.core.ports.system import Clock
from referral.settings import Settings
from tests.conftest import ServiceFactory, run_service
from tests.support.api_client import (
    API,
    PASSWORD,
    UNLIMITED_SETTINGS,
    block_account,
    join,
)
from tests.support.clients import ClientCaller, create_client
from tests.support.fakes.security import FakeFingerprinter
from tests.support.fakes.system import FakeClock
from tests.support.issuer_stub import (
    AUDIENCE,
    IssuerKey,
    IssuerStub,
    issuer_stub,
)
from tests.web.test_authorization import CLIENT_SCOPES, promote, request_for
from tests.web.token_forger import decode, encode

KEY = IssuerKey("RS256")
EC_KEY, ED_KEY = IssuerKey("ES256", "ec"), IssuerKey("EdDSA", "ed")
JWT, ID_TOKEN, ACCESS_TOKEN, USER_ID, EXTERNAL_ID = SubjectTokenType


class Exchanger:
    """A product that exchanges tokens of an issuer."""

    def __init__(
        self, client: httpx.AsyncClient, shop: ClientCaller, issuer: IssuerStub, clock: FakeClock
    ) -> None:
        self.client, self.shop, self.issuer, self.clock = client, shop, issuer, clock

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return valid claims of a new user, with changes; None removes a claim."""
        return self.issuer.claims(self.clock.now(), **changed)

    async def exchange(self, token: str, token_type: str = JWT, **form: str) -> httpx.Response:
        """Send a token to the token endpoint."""
        fields = {
            "grant_type": TOKEN_EXCHANGE_GRANT,
            "subject_token": token,
            "subject_token_type": token_type,
        } | form
        return await self.client.post(f"{API}/auth/token", data=fields, auth=self.shop.credentials)

    async def log_in(self, **changed: Any) -> dict[str, str]:
        """Exchange a valid token; return the headers of the user's requests."""
        tokens = await self.exchange(KEY.sign(self.claims(**changed)))
        assert tokens.status_code == 200, tokens.text
        return {"Authorization": f"Bearer {tokens.json()['access_token']}"}


@pytest.fixture(scope="module")
async def product(
    database_url: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Exchanger]:
    """A product whose users have accounts with an issuer."""
    clock = FakeClock()
    fakes = Provider(scope=DishkaScope.APP)
    fakes.provide(lambda: clock, provides=Clock, override=True)
    engine = make_engine(database_url)
    database = PostgresDatabase(engine, FakeFingerprinter(), PostgresJobQueue)
    async with issuer_stub(KEY, EC_KEY, ED_KEY) as issuer:
        settings = Settings(
            **UNLIMITED_SETTINGS,
            data_dir=tmp_path_factory.mktemp("data"),
            database_url=database_url,
            signing_key_file=str(key_file),
            trusted_issuers=(issuer.url,),
            trusted_audience=AUDIENCE,
            email_verification="on",
            worker="off",
        )
        async with run_service(settings, fakes) as client:
            shop = await create_client(client, database, Scope.USERS_ACT, Scope.USERS_READ)
            yield Exchanger(client, shop, issuer, clock)
    await engine.dispose()


def is_refused(response: httpx.Response) -> bool:
    """Return whether the subject token is refused in the form of RFC 6749."""
    assert response.headers["Cache-Control"] == "no-store"
    body = response.json()
    return (response.status_code, body.keys(), body["error"]) == (
        *(400, {"error", "error_description"}, "invalid_request"),
    )


async def test_user_of_an_issuer_calls_me(product: Exchanger) -> None:
    """The account is made at first sight; the second token leads to the same account."""
    claims = product.claims()
    first = await product.exchange(KEY.sign(claims))
    assert first.json() == {
        "access_token": first.json()["access_token"],
        "token_type": "Bearer",
        "expires_in": 600,
        "scope": "account",
        "issued_token_type": ACCESS_TOKEN_TYPE,
    }
    headers = {"Authorization": f"Bearer {first.json()['access_token']}"}
    me = (await product.client.get(f"{API}/me", headers=headers)).json()
    assert (me["email"], me["email_verified"]) == (claims["email"], True)
    path = f"{API}/users/{me['id']}"
    found = (await product.shop.request("GET", path)).json()
    assert found["external_id"] == f"{product.issuer.url}|{claims['sub']}"
    again = await product.log_in(sub=claims["sub"], email=None, email_verified=None)
    assert (await product.client.get(f"{API}/me", headers=again)).json()["id"] == me["id"]
    code = await product.client.post(f"{API}/me/codes", json={"lifetime_minutes": 5}, headers=again)
    assert code.status_code == 201


async def test_introspection_shows_who_acts(product: Exchanger, database: PostgresDatabase) -> None:
    """Until the user is blocked; reads go on until the token expires, changes end at once."""
    claims = product.claims()
    headers = await product.log_in(**claims)
    form = {"token": headers["Authorization"].partition(" ")[2]}

    async def introspect() -> dict[str, Any]:
        response = await product.client.post(
            f"{API}/auth/introspect", data=form, auth=product.shop.credentials
        )
        state: dict[str, Any] = response.json()
        return state

    state = await introspect()
    assert (state["active"], state["act"]) == (True, {"sub": product.shop.id})
    assert (state["client_id"], state["username"]) == (product.shop.id, claims["email"])
    await block_account(database, claims["email"])
    assert await introspect() == {"active": False}
    changed = await product.client.patch(f"{API}/me", json={"locale": "ru"}, headers=headers)
    assert changed.json()["code"] == "account-blocked"
    assert is_refused(await product.exchange(KEY.sign(claims)))


async def test_acting_client_is_not_the_user(product: Exchanger) -> None:
    """It neither changes the password nor deletes the account."""
    headers = await product.log_in()
    passwords = {"current_password": PASSWORD, "new_password": "staple battery horse"}
    for method, path, body in (
        ("PUT", "/me/password", passwords),
        ("DELETE", "/me", {"password": PASSWORD}),
        ("PUT", "/me/password", {}),
    ):
        response = await product.client.request(method, f"{API}{path}", json=body, headers=headers)
        assert (response.status_code, response.json()["code"]) == (403, "insufficient-scope")


async def test_acting_client_ends_with_the_user_and_itself(
    product: Exchanger, database: PostgresDatabase
) -> None:
    """It exports nothing about a blocked user, and changes nothing after it was deleted."""
    user = await join(product.client)
    other = await create_client(product.client, database, Scope.USERS_ACT)
    shop, product.shop = product.shop, other
    try:
        tokens = await product.exchange(user.id, USER_ID)
    finally:
        product.shop = shop
    headers = {"Authorization": f"Bearer {tokens.json()['access_token']}"}

    async def send(method: str, path: str, **sent: Any) -> tuple[int, str | None]:
        response = await product.client.request(method, f"{API}{path}", headers=headers, **sent)
        return response.status_code, response.json().get("code")

    assert (await send("GET", "/me/export"))[0] == 200
    await block_account(database, user.email)
    assert await send("GET", "/me/export") == (403, "account-blocked")
    await block_account(database, user.email, undo=True)
    async with database.begin() as repositories:
        await repositories.clients.remove(UUID(other.id))
    for request in (("GET", "/me/export"), ("PATCH", "/me"), ("POST", "/me/codes")):
        assert await send(*request) == (401, "unauthenticated")


@pytest.mark.parametrize("route", CLIENT_SCOPES)
async def test_acting_client_is_no_admin(
    product: Exchanger, database: PostgresDatabase, route: str
) -> None:
    """Whoever it acts for: the routes of *Who may* stay closed."""
    admin = await join(product.client)
    await promote(admin, database)
    tokens = await product.exchange(admin.id, USER_ID)
    headers = {"Authorization": f"Bearer {tokens.json()['access_token']}"}
    request = request_for(route, admin, {"code": "X", "id": str(uuid4())})
    response = await product.client.request(**request, headers=headers)
    assert (response.status_code, response.json()["code"]) == (403, "insufficient-scope")


def _in(product: Exchanger, seconds: float) -> float:
    return int(product.clock.now().timestamp()) + seconds


def _parts(product: Exchanger, change: Callable[[list[str]], list[str]], **claims: Any) -> str:
    return ".".join(change(KEY.sign(product.claims(**claims)).split(".")))


def _with_header(product: Exchanger, **header: Any) -> str:
    return KEY.sign(product.claims(), **header)


def _with_claims(product: Exchanger, **claims: Any) -> str:
    return KEY.sign(product.claims(**claims))


def _unsigned(product: Exchanger, algorithm: str, signature: str = "") -> str:
    header = encode({"alg": algorithm, "typ": "JWT", "kid": "key"})
    return f"{header}.{encode(product.claims())}.{signature}"


def _hmac(product: Exchanger, secret: str, kid: str = "key") -> str:
    import hmac  # noqa: PLC0415

    text = f"{encode({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{encode(product.claims())}"
    return f"{text}.{encode(hmac.digest(secret.encode(), text.encode(), 'sha256'))}"


def _pem() -> str:
    from cryptography.hazmat.primitives.serialization import (  # noqa: PLC0415
        Encoding,
        PublicFormat,
    )

    public = KEY.private.public_key()
    return str(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())


def _flipped(part: str) -> str:
    raw = bytearray(decode(part))
    raw[len(raw) // 2] ^= 1
    return encode(bytes(raw))


def _signature(p: Exchanger, change: Callable[[str], str]) -> str:
    """Return a token whose signature is written in another way."""
    return _parts(p, lambda s: [s[0], s[1], change(s[2])])


def _ecdsa(p: Exchanger, change: Callable[[int, int], bytes]) -> str:
    """Return a token of the P-256 key with another signature, made from r and s."""
    head, payload, signature = EC_KEY.sign(p.claims()).split(".")
    raw = decode(signature)
    numbers = int.from_bytes(raw[:32]), int.from_bytes(raw[32:])
    return f"{head}.{payload}.{encode(change(*numbers))}"


def _pair(r: int, s: int, size: int = 32) -> bytes:
    return r.to_bytes(size) + s.to_bytes(size)


def _ed25519(p: Exchanger, change: Callable[[bytes], bytes]) -> str:
    """Return a token of the Ed25519 key with another signature."""
    head, payload, signature = ED_KEY.sign(p.claims()).split(".")
    return f"{head}.{payload}.{encode(change(decode(signature)))}"


def _plus_order(signature: bytes) -> bytes:
    """Add the order of the group to S, which is another encoding of the same number."""
    number = int.from_bytes(signature[32:], "little") + ED25519_ORDER
    return signature[:32] + number.to_bytes(32, "little")


P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
ED25519_ORDER = 2**252 + 27742317777372353535851937790883648493

Forge = Callable[[Exchanger], str]
FORGERIES: dict[str, Forge] = {
    "alg none": lambda p: _unsigned(p, "none"),
    "alg None": lambda p: _unsigned(p, "None"),
    "alg none, signature": lambda p: _unsigned(p, "none", "AAAA"),
    "HS256 with the public key": lambda p: _hmac(p, _pem()),
    "HS256 with the JWK": lambda p: _hmac(p, json.dumps(KEY.jwk)),
    "HS256 with the modulus": lambda p: _hmac(p, KEY.jwk["n"]),
    "HS256 without a key": lambda p: _hmac(p, ""),
    "alg RS512": lambda p: _parts(p, lambda s: [encode({"alg": "RS512", "kid": "key"}), *s[1:]]),
    "alg ES256": lambda p: _parts(p, lambda s: [encode({"alg": "ES256", "kid": "key"}), *s[1:]]),
    "alg a list": lambda p: _parts(p, lambda s: [encode({"alg": ["RS256"]}), *s[1:]]),
    "alg missing": lambda p: _parts(p, lambda s: [encode({"kid": "key"}), *s[1:]]),
    "key of another": lambda p: IssuerKey("RS256").sign(p.claims()),
    "jwk embedded": lambda p: (k := IssuerKey("RS256")).sign(p.claims(), jwk=k.jwk),
    "jku": lambda p: IssuerKey("RS256").sign(p.claims(), jku=f"{p.issuer.url}/mine"),
    "x5u": lambda p: IssuerKey("RS256").sign(p.claims(), x5u=f"{p.issuer.url}/mine"),
    "x5c": lambda p: IssuerKey("RS256").sign(p.claims(), x5c=["AAAA"]),
    "kid unknown": lambda p: _with_header(p, kid="other"),
    "kid a path": lambda p: _with_header(p, kid="../../keys"),
    "kid SQL": lambda p: _with_header(p, kid="' OR 1=1 --"),
    "kid a number": lambda p: _parts(p, lambda s: [encode({"alg": "RS256", "kid": 1}), *s[1:]]),
    "kid a list": lambda p: _parts(p, lambda s: [encode({"alg": "RS256", "kid": ["k"]}), *s[1:]]),
    "crit": lambda p: _with_header(p, crit=["x"], x=1),
    "crit b64": lambda p: _parts(
        p, lambda s: [encode({"alg": "RS256", "kid": "key", "b64": False, "crit": ["b64"]}), *s[1:]]
    ),
    "typ of a logout token": lambda p: _with_header(p, typ="logout+jwt"),
    "typ of a security event": lambda p: _with_header(p, typ="secevent+jwt"),
    "typ of a DPoP proof": lambda p: _with_header(p, typ="dpop+jwt"),
    "typ of introspection": lambda p: _with_header(p, typ="token-introspection+jwt"),
    "typ of a request": lambda p: _with_header(p, typ="oauth-authz-req+jwt"),
    "typ JOSE": lambda p: _with_header(p, typ="JOSE"),
    "typ a number": lambda p: _parts(
        p, lambda s: [encode({"alg": "RS256", "kid": "key", "typ": 1}), *s[1:]]
    ),
    "Keycloak's refresh token": lambda p: _with_claims(p, typ="Refresh"),
    "Keycloak's offline token": lambda p: _with_claims(p, typ="Offline"),
    "Keycloak's logout token": lambda p: _with_claims(p, typ="Logout"),
    "payload typ a list": lambda p: _with_claims(p, typ=["Bearer"]),
    "logout token without typ": lambda p: _with_claims(
        p, events={"http://schemas.openid.net/event/backchannel-logout": {}}
    ),
    "signature changed": lambda p: _parts(p, lambda s: [s[0], s[1], _flipped(s[2])]),
    "payload changed": lambda p: _parts(p, lambda s: [s[0], _flipped(s[1]), s[2]]),
    "payload of another": lambda p: _parts(p, lambda s: [s[0], encode(p.claims()), s[2]]),
    "header changed": lambda p: _parts(
        p, lambda s: [encode({"alg": "RS256", "kid": "key", "x": 1}), s[1], s[2]]
    ),
    "signature cut": lambda p: _parts(p, lambda s: [s[0], s[1], s[2][:-4]]),
    "signature empty": lambda p: _parts(p, lambda s: [s[0], s[1], ""]),
    "two parts": lambda p: _parts(p, lambda s: s[:2]),
    "four parts": lambda p: _parts(p, lambda s: [*s, s[2]]),
    "five parts": lambda p: _parts(p, lambda s: [*s, *s[1:]]),
    "header no object": lambda p: _parts(p, lambda s: [encode(b"[]"), *s[1:]]),
    "header deep": lambda p: _parts(p, lambda s: [encode(b"[" * 9000), *s[1:]]),
    "header no JSON": lambda p: _parts(p, lambda s: [encode(b"\xff{"), *s[1:]]),
    "payload no object": lambda p: _parts(p, lambda s: [s[0], encode(b"[]"), s[2]]),
    "payload deep": lambda p: _parts(p, lambda s: [s[0], encode(b"[" * 9000), s[2]]),
    "not base64": lambda p: _parts(p, lambda s: ["!" + s[0], *s[1:]]),
    "dots": lambda _: "..",
    "garbage": lambda _: "garbage",
    "non-ASCII": lambda p: KEY.sign(p.claims()) + "é",
    "NUL": lambda p: KEY.sign(p.claims()) + "\0",
    "padding": lambda p: _signature(p, lambda s: s + "=" * (-len(s) % 4)),
    "too much padding": lambda p: _signature(p, lambda s: s + "==="),
    "padded header": lambda p: _parts(p, lambda s: [s[0] + "=", *s[1:]]),
    "line end": lambda p: _signature(p, lambda s: s + "\n"),
    "line end within": lambda p: _signature(p, lambda s: f"{s[:9]}\r\n{s[9:]}"),
    "bits beyond the signature": lambda p: _signature(p, lambda s: s[:-1] + chr(ord(s[-1]) + 1)),
    "other base64 alphabet": lambda p: _signature(
        p, lambda s: s.replace("-", "+").replace("_", "/")
    ),
    "two algorithms, none last": lambda p: _parts(
        p, lambda s: [encode(b'{"alg":"RS256","kid":"key","alg":"none"}'), s[1], ""]
    ),
    "two algorithms, none first": lambda p: _parts(
        p, lambda s: [encode(b'{"alg":"none","kid":"key","alg":"RS256"}'), s[1], ""]
    ),
    "b64 false, signed": lambda p: _with_header(p, b64=False),
    "JWE": lambda p: _parts(
        p, lambda s: [encode({"alg": "RSA-OAEP", "enc": "A256GCM", "kid": "key"}), *s[1:], *s[1:]]
    ),
    "JWE in five empty parts": lambda _: encode({"alg": "dir", "enc": "A256GCM"}) + "....",
    "kid of an EC key": lambda p: _with_header(p, kid="ec"),
    "RS256 with an EC key": lambda p: _parts(
        p, lambda s: [encode({"alg": "RS256", "kid": "ec"}), *s[1:]]
    ),
    "ES256 of a P-384 key": lambda p: IssuerKey("ES384", "ec").sign(p.claims()),
    "HS256 with the EC key": lambda p: _hmac(p, json.dumps(EC_KEY.jwk), "ec"),
    "ECDSA as DER": lambda p: _ecdsa(p, encode_dss_signature),
    "ECDSA of zeros": lambda p: _ecdsa(p, lambda _r, _s: _pair(0, 0)),
    "ECDSA of ones": lambda p: _ecdsa(p, lambda _r, _s: _pair(1, 1)),
    "ECDSA, r is 0": lambda p: _ecdsa(p, lambda _r, s: _pair(0, s)),
    "ECDSA, s is 0": lambda p: _ecdsa(p, lambda r, _s: _pair(r, 0)),
    "ECDSA, r is the order": lambda p: _ecdsa(p, lambda _r, s: _pair(P256_ORDER, s)),
    "ECDSA, s is the order": lambda p: _ecdsa(p, lambda r, _s: _pair(r, P256_ORDER)),
    "ECDSA, s greater": lambda p: _ecdsa(p, lambda r, s: _pair(r, s + P256_ORDER, 33)),
    "ECDSA of 66 bytes": lambda p: _ecdsa(p, lambda r, s: _pair(r, s, 33)),
    "ECDSA of 63 bytes": lambda p: _ecdsa(p, lambda r, s: _pair(r, s)[:-1]),
    "ECDSA exchanged": lambda p: _ecdsa(p, lambda r, s: _pair(s, r)),
    "Ed25519 of zeros": lambda p: _ed25519(p, lambda _: bytes(64)),
    "Ed25519, S greater": lambda p: _ed25519(p, _plus_order),
    "Ed25519 cut": lambda p: _ed25519(p, lambda raw: raw[:-1]),
    "Ed25519 longer": lambda p: _ed25519(p, lambda raw: raw + b"\0"),
    "JSON serialization": lambda p: json.dumps(
        dict(
            zip(("protected", "payload", "signature"), KEY.sign(p.claims()).split("."), strict=True)
        )
    ),
    "oversized": lambda p: _with_claims(p, groups=["x" * 1000] * 20),
    "iss of another": lambda p: _with_claims(p, iss="https://evil.example"),
    "iss with a slash": lambda p: _with_claims(p, iss=p.issuer.url + "/"),
    "iss in capitals": lambda p: _with_claims(p, iss=p.issuer.url.upper()),
    "iss a list": lambda p: _with_claims(p, iss=[p.issuer.url]),
    "iss of this service": lambda p: _with_claims(p, iss="http://127.0.0.1:8000"),
    "aud of another": lambda p: _with_claims(p, aud="till"),
    "aud a prefix": lambda p: _with_claims(p, aud="shopping"),
    "aud in capitals": lambda p: _with_claims(p, aud="SHOP"),
    "aud empty": lambda p: _with_claims(p, aud=[]),
    "aud an object": lambda p: _with_claims(p, aud={"shop": 1}),
    "aud with a number": lambda p: _with_claims(p, aud=["shop", 1]),
    "expired": lambda p: _with_claims(p, exp=_in(p, -1)),
    "expires now": lambda p: _with_claims(p, exp=p.clock.now().timestamp()),
    "exp text": lambda p: _parts(
        p, lambda s: [s[0], encode(json.loads(decode(s[1])) | {"exp": "9999999999"}), s[2]]
    ),
    "exp huge": lambda p: _with_claims(p, exp=10**400),
    "exp negative": lambda p: _with_claims(p, exp=-1),
    "exp a list": lambda p: _with_claims(p, exp=[_in(p, 60)]),
    "exp true": lambda p: _with_claims(p, exp=True),
    "nbf text": lambda p: _parts(
        p, lambda s: [s[0], encode(json.loads(decode(s[1])) | {"nbf": "0"}), s[2]]
    ),
    "nbf ahead": lambda p: _with_claims(p, nbf=_in(p, 60)),
    "iat ahead": lambda p: _with_claims(p, iat=_in(p, 60)),
    "sub empty": lambda p: _with_claims(p, sub=""),
    "sub with a blank": lambda p: _with_claims(p, sub="a b"),
    "sub long": lambda p: _with_claims(p, sub="x" * 255),
    "email unconfirmed": lambda p: _with_claims(p, email_verified=False),
    "email_verified text": lambda p: _with_claims(p, email_verified="true"),
    "email_verified a number": lambda p: _with_claims(p, email_verified=1),
    "email a list": lambda p: _with_claims(p, email=["ann@example.com"]),
    "email invalid": lambda p: _with_claims(p, email="nobody"),
} | {
    f"{claim} missing": lambda p, claim=claim: _with_claims(p, **{claim: None})
    for claim in ("iss", "sub", "aud", "exp", "email", "email_verified")
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
async def test_bad_subject_token_is_refused(product: Exchanger, forge: Forge) -> None:
    """Every defect is an invalid request, as any type of JWT."""
    token = forge(product)
    for token_type in (JWT, ID_TOKEN, ACCESS_TOKEN):
        response = await product.exchange(token, token_type)
        assert is_refused(response), response.text
    for key in (KEY, EC_KEY, ED_KEY):
        assert (await product.exchange(key.sign(product.claims()))).status_code == 200


@pytest.mark.parametrize(
    ("token_type", "header", "payload", "accepted"),
    [
        (JWT, "JWT", None, True), (JWT, "at+jwt", None, True), (JWT, None, "Bearer", True),
        (JWT, "jwt", "ID", True), (JWT, "application/at+jwt", None, True),
        (ID_TOKEN, "JWT", None, True), (ID_TOKEN, None, "ID", True),
        (ID_TOKEN, "at+jwt", None, False), (ID_TOKEN, "AT+JWT", None, False),
        (ID_TOKEN, "application/at+jwt", None, False), (ID_TOKEN, "JWT", "Bearer", False),
        (ACCESS_TOKEN, "at+jwt", None, True), (ACCESS_TOKEN, "JWT", "Bearer", True),
        (ACCESS_TOKEN, "JWT", "ID", False),
    ],
)  # fmt: skip
async def test_types_are_not_confused(
    product: Exchanger, token_type: str, header: str | None, payload: str | None, *, accepted: bool
) -> None:
    """A token is taken only as what its types say that it is."""
    token = KEY.sign(product.claims(typ=payload), typ=header)
    response = await product.exchange(token, token_type)
    assert (response.status_code == 200) is accepted
    assert accepted or is_refused(response)


async def test_own_tokens_are_no_subject_tokens(product: Exchanger) -> None:
    """Neither a user's, nor a client's, nor an exchanged one."""
    member = await join(product.client)
    for headers in (member.headers, product.shop.headers, await product.log_in()):
        token = headers["Authorization"].partition(" ")[2]
        for token_type in SubjectTokenType:
            assert is_refused(await product.exchange(token, token_type))


async def test_subject_token_is_no_access_token(product: Exchanger) -> None:
    """The issuer's tokens open nothing by themselves."""
    token = KEY.sign(product.claims(client_id="shop", scope="account", jti="1"), typ="at+jwt")
    headers = {"Authorization": f"Bearer {token}"}
    assert (await product.client.get(f"{API}/me", headers=headers)).status_code == 401


async def test_valid_variants_are_accepted(product: Exchanger) -> None:
    """Several audiences, fractions of seconds, a little clock skew, and no `iat`."""
    for changed in (
        {"aud": ["till", AUDIENCE]},
        {"iat": None},
        {"exp": _in(product, 60) + 0.5, "iat": _in(product, 0) + 0.25},
        {"iat": _in(product, 4), "nbf": _in(product, 4)},
        {"email": f"Ann+{uuid4().hex}@example.com"},
    ):
        await product.log_in(**changed)


async def test_subject_token_may_be_replayed(product: Exchanger) -> None:
    """Within its life: the product asks again when the access token expires."""
    token = KEY.sign(product.claims())
    assert [(await product.exchange(token)).status_code for _ in range(2)] == [200, 200]


async def test_concurrent_exchanges_create_one_user(product: Exchanger) -> None:
    """Twenty requests for a new user get twenty tokens for one account."""
    token = KEY.sign(product.claims())
    responses = await asyncio.gather(*(product.exchange(token) for _ in range(20)))
    assert {each.status_code for each in responses} == {200}
    ids = set()
    for each in responses:
        headers = {"Authorization": f"Bearer {each.json()['access_token']}"}
        ids.add((await product.client.get(f"{API}/me", headers=headers)).json()["id"])
    assert len(ids) == 1


@pytest.mark.parametrize(
    ("form", "error"),
    [
        ({"subject_token": ""}, "invalid_request"),
        ({"subject_token_type": ""}, "invalid_request"),
        ({"subject_token_type": "jwt"}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:saml2"}, "invalid_request"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
         "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
         "invalid_request"),
        ({"actor_token": "x"}, "invalid_request"),
        ({"audience": "shop"}, "invalid_target"),
        ({"resource": "https://shop.example"}, "invalid_target"),
        ({"scope": "admin"}, "invalid_scope"),
        ({"scope": "users:read"}, "invalid_scope"),
    ],
)  # fmt: skip
async def test_invalid_parameters_are_refused(
    product: Exchanger, form: dict[str, str], error: str
) -> None:
    """In the form of RFC 6749."""
    response = await product.exchange(KEY.sign(product.claims()), **form)
    assert (response.status_code, response.json()["error"]) == (400, error)


async def test_client_needs_secret_and_scope(
    product: Exchanger, database: PostgresDatabase
) -> None:
    """401 without authentication, `unauthorized_client` without `users:act`."""
    token = KEY.sign(product.claims())
    other = await create_client(product.client, database, Scope.USERS_WRITE, Scope.USERS_READ)
    product = Exchanger(product.client, other, product.issuer, product.clock)
    response = await product.exchange(token)
    assert (response.status_code, response.json()["error"]) == (400, "unauthorized_client")
    form = {
        "grant_type": TOKEN_EXCHANGE_GRANT, "subject_token": token, "subject_token_type": JWT,
    }  # fmt: skip
    for headers in ({}, {"Authorization": "Basic YTpi"}):
        response = await product.client.post(f"{API}/auth/token", data=form, headers=headers)
        assert (response.status_code, response.json()["error"]) == (401, "invalid_client")


async def test_without_issuers_no_jwt_is_accepted(
    settings: Settings, serve: ServiceFactory, database: PostgresDatabase, clock: FakeClock
) -> None:
    """The service's own types work all the same."""
    async with issuer_stub(KEY) as issuer, serve(settings) as client:
        shop = await create_client(client, database, Scope.USERS_ACT)
        product = Exchanger(client, shop, issuer, clock)
        assert is_refused(await product.exchange(KEY.sign(product.claims())))
        assert issuer.requests == []
        member = await join(client)
        assert (await product.exchange(member.id, USER_ID)).status_code == 200
