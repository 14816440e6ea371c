"""Subject tokens with one defect each, and the product that sends them.

The defects include those of Wycheproof's vectors for JSON Web Signatures.
"""

import hmac
import json
from collections.abc import Callable
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from referral.core.entities.subject_tokens import TOKEN_EXCHANGE_GRANT, SubjectTokenType
from tests.support.api_client import API
from tests.support.clients import ClientCaller
from tests.support.fakes.system import FakeClock
from tests.support.issuer_stub import IssuerKey, IssuerStub
from tests.web.token_forger import decode, encode

KEY = IssuerKey("RS256")
EC_KEY, ED_KEY = IssuerKey("ES256", "ec"), IssuerKey("EdDSA", "ed")


class Exchanger:
    """A product that exchanges tokens of an issuer."""

    def __init__(
        self, client: httpx.AsyncClient, shop: ClientCaller, issuer: IssuerStub, clock: FakeClock
    ) -> None:
        self.client, self.shop, self.issuer, self.clock = client, shop, issuer, clock

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return valid claims of a new user, with changes; None removes a claim."""
        return self.issuer.claims(self.clock.now(), **changed)

    async def exchange(
        self, token: str, token_type: str = SubjectTokenType.JWT, **form: str
    ) -> httpx.Response:
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


def in_seconds(product: Exchanger, seconds: float) -> float:
    """Return a time of the product's clock as a claim has it."""
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
    text = f"{encode({'alg': 'HS256', 'typ': 'JWT', 'kid': kid})}.{encode(product.claims())}"
    return f"{text}.{encode(hmac.digest(secret.encode(), text.encode(), 'sha256'))}"


def _pem() -> str:
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
    "expired": lambda p: _with_claims(p, exp=in_seconds(p, -1)),
    "expires now": lambda p: _with_claims(p, exp=p.clock.now().timestamp()),
    "exp text": lambda p: _parts(
        p, lambda s: [s[0], encode(json.loads(decode(s[1])) | {"exp": "9999999999"}), s[2]]
    ),
    "exp huge": lambda p: _with_claims(p, exp=10**400),
    "exp negative": lambda p: _with_claims(p, exp=-1),
    "exp a list": lambda p: _with_claims(p, exp=[in_seconds(p, 60)]),
    "exp true": lambda p: _with_claims(p, exp=True),
    "nbf text": lambda p: _parts(
        p, lambda s: [s[0], encode(json.loads(decode(s[1])) | {"nbf": "0"}), s[2]]
    ),
    "nbf ahead": lambda p: _with_claims(p, nbf=in_seconds(p, 60)),
    "iat ahead": lambda p: _with_claims(p, iat=in_seconds(p, 60)),
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
