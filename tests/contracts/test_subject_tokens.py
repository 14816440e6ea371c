"""The ports `SubjectTokenVerifier` and `IssuerKeys`, with an issuer on a real socket."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from referral.adapters.security.subject_tokens import JwtSubjectTokenVerifier
from referral.adapters.third_parties.http_client import HttpClient
from referral.adapters.third_parties.issuer_keys import (
    IssuerKeySet,
    PublicAddressResolver,
    discovery_urls,
)
from referral.adapters.webhooks.networks import WebhookNetworks
from referral.core.entities.subject_tokens import Identity, SubjectTokenType
from referral.core.errors import InvalidSubjectToken, Unavailable
from tests.support.fakes.system import FakeClock
from tests.support.issuer_stub import (
    ALGORITHMS,
    AUDIENCE,
    OAUTH_PATH,
    OPENID_PATH,
    IssuerKey,
    IssuerStub,
    issuer_stub,
)
from tests.web.token_forger import encode

KEY = IssuerKey("RS256")
HOUR = 3600.0


class Trust:
    """A verifier that trusts the stub, with a clock of its own for the keys."""

    def __init__(self, issuer: IssuerStub, client: HttpClient, public: HttpClient) -> None:
        self.issuer, self.clock, self.now = issuer, FakeClock(), 0.0
        self.keys = IssuerKeySet(issuer.url, client, public, lambda: self.now)
        self.verifier = JwtSubjectTokenVerifier([issuer.url], AUDIENCE, self, self.clock)

    async def find(self, issuer: str, kid: str | None) -> Any:
        """Be the port `IssuerKeys`."""
        assert issuer == self.issuer.url
        return await self.keys.find(kid)

    def claims(self, **changed: Any) -> dict[str, Any]:
        """Return valid claims with changes."""
        return self.issuer.claims(self.clock.now(), **changed)

    async def accepts(self, token: str) -> bool:
        """Return whether a token is valid; raises `Unavailable`."""
        try:
            await self.verifier.verify(token, SubjectTokenType.JWT)
        except InvalidSubjectToken:
            return False
        return True

    async def accepts_key(self, key: IssuerKey, **header: Any) -> bool:
        """Return whether a valid token of this key is accepted."""
        return await self.accepts(key.sign(self.claims(), **header))

    @property
    def asked(self) -> list[str]:
        """The paths of the requests to the issuer."""
        return [request.path for request in self.issuer.requests]


@pytest.fixture
async def trust() -> AsyncIterator[Trust]:
    """An issuer with one key, and the verifier."""
    client, public = HttpClient(), HttpClient(PublicAddressResolver(WebhookNetworks(()).allows))
    async with issuer_stub(KEY) as issuer:
        trust = Trust(issuer, client, public)
        yield trust
        await trust.keys.close()
    await client.close()
    await public.close()


async def test_valid_token_names_the_user(trust: Trust) -> None:
    """With the address only if the issuer has confirmed it."""
    for verified, email in ((True, "ann@example.com"), (False, None), ("true", None), (1, None)):
        claims = trust.claims(sub="7", email="ann@example.com", email_verified=verified)
        identity = await trust.verifier.verify(KEY.sign(claims), SubjectTokenType.ID_TOKEN)
        assert identity == Identity(trust.issuer.url, "7", email)
    assert trust.asked == [OPENID_PATH, "/keys"]


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_asymmetric_keys_are_accepted(trust: Trust, algorithm: str) -> None:
    """RSA, the NIST curves and Edwards curves; another key with the same id is not."""
    key, other = IssuerKey(algorithm, "own"), IssuerKey(algorithm, "own")
    trust.issuer.keys = [KEY.jwk, key.jwk]
    assert not await trust.accepts_key(other)
    assert await trust.accepts_key(key)


async def test_algorithm_must_fit_the_key(trust: Trust) -> None:
    """Also where the JWK names none; PS and RS are different algorithms of one kind of key."""
    plain = {name: value for name, value in KEY.jwk.items() if name != "alg"}
    pss, ecdsa = IssuerKey("PS256", "key", KEY.private), IssuerKey("ES384", "key")
    trust.issuer.keys = [KEY.jwk]
    assert not await trust.accepts_key(pss)
    trust.issuer.keys, trust.now = [plain], HOUR
    assert await trust.accepts_key(pss)
    assert await trust.accepts_key(KEY)
    assert not await trust.accepts_key(ecdsa)


async def test_forged_tokens_cost_no_request(trust: Trust) -> None:
    """Only a token whose claims are acceptable leads to one."""
    now = trust.clock.now().timestamp()
    for changed in ({"aud": "till"}, {"exp": now - 1}, {"iss": "http://127.0.0.1:9"}):
        assert not await trust.accepts(KEY.sign(trust.claims(**changed)))
    assert trust.asked == []


async def test_oauth_metadata_is_found(trust: Trust) -> None:
    """RFC 8414, if there is no OpenID document."""
    trust.issuer.documents = {OPENID_PATH: None, OAUTH_PATH: trust.issuer.metadata}
    assert await trust.accepts_key(KEY)
    assert trust.asked == [OPENID_PATH, OAUTH_PATH, "/keys"]


def test_metadata_of_an_issuer_with_a_path() -> None:
    """OpenID appends to the path, RFC 8414 puts it last; a slash at the end is dropped."""
    for issuer in ("https://id.example/realms/shop", "https://id.example/realms/shop/"):
        assert discovery_urls(issuer) == (
            "https://id.example/realms/shop/.well-known/openid-configuration",
            "https://id.example/.well-known/oauth-authorization-server/realms/shop",
        )


async def test_concurrent_tokens_share_one_request(trust: Trust) -> None:
    """Twenty tokens of an issuer that nobody has asked yet."""
    assert all(await asyncio.gather(*(trust.accepts_key(KEY) for _ in range(20))))
    assert trust.asked == [OPENID_PATH, "/keys"]


async def test_keys_are_fetched_again_after_an_hour(trust: Trust) -> None:
    """A key that the issuer has withdrawn is not accepted any more."""
    assert await trust.accepts_key(KEY)
    trust.issuer.keys = []
    trust.now = HOUR - 1
    assert await trust.accepts_key(KEY)
    trust.now = HOUR
    assert not await trust.accepts_key(KEY)


async def test_unknown_key_leads_to_one_request_in_30_seconds(trust: Trust) -> None:
    """A new key is found; made-up ones cost the issuer nothing."""
    new = IssuerKey("RS256", "new")
    assert await trust.accepts_key(KEY)
    trust.issuer.keys.append(new.jwk)
    trust.now = 29.0
    assert not await trust.accepts_key(new)
    trust.now = 30.0
    assert await trust.accepts_key(new)
    for number in range(9):
        assert not await trust.accepts_key(KEY, kid=f"made-up-{number}")
    assert trust.asked == [OPENID_PATH, "/keys"] * 2


async def test_stale_keys_serve_while_the_issuer_is_down(trust: Trust) -> None:
    """For a day; an unknown key cannot be judged meanwhile."""
    assert await trust.accepts_key(KEY)
    trust.issuer.fault = "500"
    for trust.now in (HOUR, 2 * HOUR, 24 * HOUR - 1):
        assert await trust.accepts_key(KEY)
        with pytest.raises(Unavailable):
            await trust.accepts_key(KEY, kid="new")
    trust.now = 24 * HOUR
    with pytest.raises(Unavailable):
        await trust.accepts_key(KEY)


async def test_dead_issuer_is_probed_by_one_request_at_a_time(trust: Trust) -> None:
    """After three failures nobody waits; a probe every five seconds finds the issuer again."""
    trust.issuer.fault = "500"
    for _ in range(9):
        with pytest.raises(Unavailable):
            await trust.accepts_key(KEY)
    assert len(trust.asked) == 3 * 2
    trust.issuer.fault, trust.now = None, 5.0
    with pytest.raises(Unavailable):
        await trust.accepts_key(KEY)
    assert trust.keys._fetching is not None  # noqa: SLF001 - the probe goes on in the background
    await trust.keys._fetching  # noqa: SLF001
    assert await trust.accepts_key(KEY)


FAULTS = ["500", "hang", "trickle", "bomb", "redirect", "reset", "cut", "no-http", "headers",
          "huge", "endless", "garbage", "empty", "null", "list", "number", "deep"]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
async def test_issuer_without_keys_is_unavailable(
    trust: Trust, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a bounded time and size; afterwards the issuer is asked again."""
    monkeypatch.setattr("referral.adapters.third_parties.issuer_keys.FETCH_TIMEOUT_SECONDS", 0.3)
    trust.issuer.fault = fault
    with pytest.raises(Unavailable):
        await trust.accepts_key(KEY)
    assert trust.issuer.bytes_sent <= 8 * 1024 * 1024
    trust.issuer.fault = None
    monkeypatch.undo()
    assert await trust.accepts_key(KEY)


HOSTILE_URLS = [
    "http://169.254.169.254/latest/meta-data", "http://127.0.0.1:1/keys", "https://127.0.0.1/keys",
    "https://[::1]/keys", "https://2130706433/keys", "https://0x7f.1/keys",
    "https://localhost/keys",
    "file:///etc/passwd", "//evil.example/keys", "/keys", "keys", "", "https://", "http://[", None,
    7,
    "https://user@id.example/keys", "javascript:alert(1)", "https://127.0.0.1.nip.invalid/",
]  # fmt: skip


@pytest.mark.parametrize("url", HOSTILE_URLS, ids=str)
async def test_keys_come_from_allowed_hosts_only(trust: Trust, url: object) -> None:
    """The metadata cannot lead the service into its own network."""
    metadata = trust.issuer.metadata | {"jwks_uri": url}
    trust.issuer.documents = {OPENID_PATH: metadata}
    with pytest.raises(Unavailable):
        await trust.accepts_key(KEY)
    assert trust.asked == [OPENID_PATH]


@pytest.mark.parametrize("issuer_name", ["https://evil.example", "", None, 7])
async def test_metadata_must_name_the_issuer(trust: Trust, issuer_name: object) -> None:
    """Another issuer's document is not used."""
    metadata = trust.issuer.metadata | {"issuer": issuer_name}
    trust.issuer.documents = {OPENID_PATH: metadata}
    with pytest.raises(Unavailable):
        await trust.accepts_key(KEY)


def _jwk(**changed: Any) -> dict[str, Any]:
    return {name: value for name, value in (KEY.jwk | changed).items() if value is not None}


HOSTILE_KEYS: dict[str, list[Any]] = {
    "symmetric": [{"kty": "oct", "kid": "key", "k": encode(b"secret")}],
    "symmetric beside": [{"kty": "oct", "kid": "key", "k": encode(b"s"), "alg": "RS256"}],
    "for encryption": [_jwk(use="enc")],
    "for other operations": [_jwk(key_ops=["sign"])],
    "operations a text": [_jwk(key_ops="verify")],
    "of another algorithm": [_jwk(alg="RS512")],
    "without a type": [_jwk(kty=None)],
    "type a list": [_jwk(kty=["RSA"])],
    "curve a list": [_jwk(kty="EC", crv=["P-256"])],
    "modulus missing": [_jwk(n=None)],
    "modulus a number": [_jwk(n=7)],
    "modulus short": [_jwk(n="AQAB")],
    "exponent even": [_jwk(e="Ag")],
    "exponent huge": [_jwk(e=KEY.jwk["n"])],
    "modulus huge": [_jwk(n=encode(b"\xff" * 30_000))],
    "no object": ["key", None, 7, []],
    "none": [],
    "other": [IssuerKey("RS256").jwk],
}


@pytest.mark.parametrize("keys", HOSTILE_KEYS.values(), ids=HOSTILE_KEYS)
async def test_unusable_keys_verify_nothing(trust: Trust, keys: list[Any]) -> None:
    """No key of the issuer makes the service fail."""
    trust.issuer.keys = keys
    assert not await trust.accepts_key(KEY)


async def test_token_without_key_id(trust: Trust) -> None:
    """It is accepted if one key fits; otherwise the token must say which."""
    trust.issuer.keys = [IssuerKey("ES256", None).jwk, _jwk(kid=None)]
    assert await trust.accepts_key(KEY, kid=None)
    trust.issuer.keys, trust.now = [IssuerKey("RS256", "other").jwk, KEY.jwk], HOUR
    assert not await trust.accepts_key(KEY, kid=None)
    assert await trust.accepts_key(KEY)


async def test_foreign_host_is_resolved_to_public_addresses() -> None:
    """Of mixed answers only the public ones are used."""
    resolver = PublicAddressResolver(WebhookNetworks(()).allows)
    with pytest.raises(OSError, match="no public address"):
        await resolver.resolve("localhost", 443)
