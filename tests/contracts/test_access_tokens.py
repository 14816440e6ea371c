"""The port `AccessTokenIssuer`; tests/web tries forged tokens over HTTP."""

from pathlib import Path
from uuid import uuid4

import pytest
from jwt import PyJWK, decode

from referral.adapters.security.access_tokens import MAX_TOKEN_CHARACTERS, JwtAccessTokenIssuer
from referral.adapters.security.keys import KeyRing, make_key_file
from referral.adapters.system import SystemClock
from referral.core.entities.clients import Caller
from referral.core.errors import Unauthenticated
from referral.core.ports.security import AccessTokenIssuer
from referral.settings import Settings
from tests.support.fakes.security import FakeAccessTokenIssuer
from tests.support.fakes.system import FakeClock

ISSUER = "https://referral.example"


@pytest.fixture
def jwt(key_file: Path, clock: FakeClock) -> JwtAccessTokenIssuer:
    """An issuer of JWTs with a lifetime of ten minutes."""
    return JwtAccessTokenIssuer(ISSUER, KeyRing([key_file]), 10, clock)


@pytest.fixture(params=["fake", "jwt"])
def access_tokens(request: pytest.FixtureRequest) -> AccessTokenIssuer:
    """The fake issuer, then the real one."""
    if request.param == "fake":
        return FakeAccessTokenIssuer()
    real: JwtAccessTokenIssuer = request.getfixturevalue("jwt")
    return real


def test_user_token_identifies_the_user(access_tokens: AccessTokenIssuer) -> None:
    """With the client and the scope that it was issued for."""
    user_id = uuid4()
    session_id = uuid4()
    token = access_tokens.issue(str(user_id), "first-party", "account", session_id)
    read = access_tokens.verify(token)
    assert read.caller == Caller("first-party", frozenset({"account"}), user_id, session_id)
    assert read.subject == str(user_id)
    assert read.expires_at - read.issued_at == access_tokens.lifetime_seconds
    assert access_tokens.verify(token).id == read.id


@pytest.mark.parametrize("scope", ["codes:read referrals:read", "users:read", ""])
def test_client_token_identifies_no_user(access_tokens: AccessTokenIssuer, scope: str) -> None:
    """Without `account` in the scope, the caller is the client itself."""
    token = access_tokens.issue("a-client", "a-client", scope)
    assert access_tokens.verify(token).caller == Caller("a-client", frozenset(scope.split()), None)


def test_tokens_are_unique(access_tokens: AccessTokenIssuer) -> None:
    """Two tokens for the same caller in the same second differ."""
    assert len({access_tokens.issue(str(uuid4()), "c", "account") for _ in range(2)}) == 2
    assert len({access_tokens.issue("c", "c", "") for _ in range(2)}) == 2


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "ä.ö.ü", "...", "\0", "x" * 10_000])
def test_malformed_token_is_rejected(access_tokens: AccessTokenIssuer, token: str) -> None:
    """Any text that is not a token gets `Unauthenticated`."""
    with pytest.raises(Unauthenticated):
        access_tokens.verify(token)


def test_default_lifetime_is_ten_minutes(key_file: Path, clock: FakeClock) -> None:
    """Tokens expire after the default of the settings."""
    minutes = Settings().access_token_minutes
    default = JwtAccessTokenIssuer(ISSUER, KeyRing([key_file]), minutes, clock)
    token = default.issue(str(uuid4()), "first-party", "account")
    clock.advance(seconds=599)
    assert default.verify(token)
    clock.advance(seconds=2)
    with pytest.raises(Unauthenticated):
        default.verify(token)


def test_token_of_another_issuer_is_rejected(
    jwt: JwtAccessTokenIssuer, key_file: Path, clock: FakeClock
) -> None:
    """Even if it was signed with the same key."""
    other = JwtAccessTokenIssuer("https://other.example", KeyRing([key_file]), 10, clock)
    with pytest.raises(Unauthenticated):
        jwt.verify(other.issue(str(uuid4()), "first-party", "account"))


@pytest.mark.parametrize(("seconds", "valid"), [(599, True), (600, False), (-2, False)])
def test_token_is_valid_for_its_lifetime(
    jwt: JwtAccessTokenIssuer, clock: FakeClock, seconds: int, *, valid: bool
) -> None:
    """Neither after it nor before the time of issue, also if the token was verified in between."""
    token = jwt.issue(str(uuid4()), "first-party", "account")
    if seconds > 0:
        assert jwt.verify(token)
    clock.advance(seconds=seconds)
    if valid:
        assert jwt.verify(token)
    else:
        with pytest.raises(Unauthenticated):
            jwt.verify(token)


def test_overlong_token_is_not_decoded(
    jwt: JwtAccessTokenIssuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No issued token comes near the maximum length."""
    assert (
        len(jwt.issue(str(uuid4()), "first-party", "account", uuid4())) < MAX_TOKEN_CHARACTERS / 3
    )
    monkeypatch.setattr("jwt.get_unverified_header", pytest.fail)
    with pytest.raises(Unauthenticated):
        jwt.verify("a" * (MAX_TOKEN_CHARACTERS + 1))


def test_key_rotation(key_file: Path, tmp_path: Path) -> None:
    """The first key signs; tokens of the second key verify until it is removed."""
    make_key_file(tmp_path / "new.pem")
    new, old = tmp_path / "new.pem", key_file
    before, between, after = (
        JwtAccessTokenIssuer(ISSUER, KeyRing(files), 10, SystemClock())
        for files in ([old], [new, old], [new])
    )
    first = before.issue(str(uuid4()), "first-party", "account")
    second = between.issue(str(uuid4()), "first-party", "account")
    assert between.verify(first)
    assert between.verify(second) == after.verify(second)
    with pytest.raises(Unauthenticated):
        after.verify(first)


def test_jwks_holds_public_keys_only(jwt: JwtAccessTokenIssuer) -> None:
    """It holds what is needed to verify a token, and nothing of the private key."""
    (key,) = jwt.jwks()["keys"]
    assert key.keys() == {"kty", "n", "e", "kid", "use", "alg"}
    token = jwt.issue(str(uuid4()), "first-party", "account")
    claims = decode(token, PyJWK(key), algorithms=["RS256"], audience=ISSUER)
    assert claims["iss"] == ISSUER
