"""OAuth libraries of Python against a service in its own process, as their users call them.

Each uses its default client authentication. `make test-clients` does the same in TypeScript.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from authlib.common.security import generate_token
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from authlib.integrations.requests_client import OAuthError
from authlib.oauth2.rfc6750.errors import InvalidTokenError
from authlib.oauth2.rfc8414 import AuthorizationServerMetadata, get_well_known_url
from authlib.oauth2.rfc9068 import JWTBearerTokenValidator
from joserfc.jwk import KeySet
from oauthlib.oauth2 import BackendApplicationClient, InvalidGrantError, LegacyApplicationClient
from requests_oauthlib import OAuth2Session

from tests.support.api_client import API, PASSWORD, new_email
from tests.support.page_forms import NAVIGATION, forms_of
from tests.support.service_process import free_port, run_command, running_service

USER_CLIENT_ID = "first-party"
"""The client of tokens that users get by the password grant; it has no secret."""

REDIRECT_URI = "http://127.0.0.1/callback"


@dataclass(frozen=True)
class Server:
    """A running service, its metadata as its users find them, and the credentials of a client."""

    url: str
    metadata: dict[str, Any]
    client_id: str
    client_secret: str
    public_client_id: str

    def register(self) -> str:
        """Register a user, and return the e-mail address."""
        email = new_email()
        registration = {"email": email, "password": PASSWORD}
        httpx.post(f"{self.url}{API}/auth/register", json=registration).raise_for_status()
        return email

    def endpoint(self, name: str) -> str:
        """Return the URL of an endpoint."""
        return str(self.metadata[f"{name}_endpoint"])

    def me(self, access_token: str) -> dict[str, Any]:
        """Return the user of an access token."""
        headers = {"Authorization": f"Bearer {access_token}"}
        user: dict[str, Any] = httpx.get(f"{self.url}{API}/me", headers=headers).json()
        return user


@pytest.fixture(scope="module")
def server(
    database_url: str, key_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service with a client; the libraries accept `http`."""
    folder = tmp_path_factory.mktemp("service") / "data"
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    settings = {"database_url": database_url, "signing_key_file": str(key_file), "public_url": url}
    options = ("--redirect-uri", REDIRECT_URI, "--json")
    command = ("create-client", "shop", "--scope", "codes:read,referrals:read", *options)
    public_command = ("create-client", "app", "--public", *options)
    with (
        pytest.MonkeyPatch.context() as environment,
        running_service(folder, port=port, **settings),
    ):
        environment.setenv("AUTHLIB_INSECURE_TRANSPORT", "1")
        environment.setenv("OAUTHLIB_INSECURE_TRANSPORT", "1")
        created = json.loads(run_command(folder, *command, **settings).stdout)
        public = json.loads(run_command(folder, *public_command, **settings).stdout)
        metadata = httpx.get(get_well_known_url(url, external=True)).json()
        credentials = created["client_id"], created["client_secret"]
        yield Server(url, metadata, *credentials, public["client_id"])


class AccessTokenValidator(JWTBearerTokenValidator):  # type: ignore[misc]  # has no types
    """Validates access tokens of a server by its metadata alone (RFC 9068)."""

    def __init__(self, metadata: dict[str, Any]) -> None:
        """Take the metadata."""
        super().__init__(issuer=metadata["issuer"], resource_server=metadata["issuer"])
        self.jwks_uri = metadata["jwks_uri"]

    def get_jwks(self) -> KeySet:
        """Return the public keys."""
        return KeySet.import_key_set(httpx.get(self.jwks_uri).json())

    def validate(self, token: str, *scopes: str) -> Any:
        """Return the claims of a token that has the scopes."""
        claims = self.authenticate_token(token)
        self.validate_token(claims, list(scopes), None)
        return claims


def test_authlib_validates_the_metadata(server: Server) -> None:
    """All of RFC 8414, and it names the grants that the other tests use."""
    metadata = AuthorizationServerMetadata(server.metadata)
    metadata.validate()
    assert set(metadata.grant_types_supported) >= {
        *("password", "refresh_token", "client_credentials")
    }


def test_authlib_signs_a_user_in_and_out(server: Server) -> None:
    """Password grant, refresh, a protected resource, validation of the token, and revocation."""
    email = server.register()
    session = AuthlibSession(USER_CLIENT_ID)
    first = session.fetch_token(server.endpoint("token"), username=email, password=PASSWORD)
    assert session.get(f"{server.url}{API}/me").json()["email"] == email
    second = session.refresh_token(server.endpoint("token"))
    assert second["refresh_token"] != first["refresh_token"]
    claims = AccessTokenValidator(server.metadata).validate(second["access_token"], "account")
    assert (claims["sub"], claims["client_id"]) == (
        server.me(second["access_token"])["id"],
        USER_CLIENT_ID,
    )
    revoked = session.revoke_token(server.endpoint("revocation"), second["refresh_token"])
    assert revoked.status_code == 200
    with pytest.raises(OAuthError, match="invalid_grant"):
        session.refresh_token(server.endpoint("token"))


def test_authlib_authenticates_a_client(server: Server) -> None:
    """Client credentials, introspection and revocation of a user's token."""
    user = AuthlibSession(USER_CLIENT_ID)
    email = server.register()
    tokens = user.fetch_token(server.endpoint("token"), username=email, password=PASSWORD)
    client = AuthlibSession(server.client_id, server.client_secret, scope="codes:read")
    token = client.fetch_token(server.endpoint("token"))["access_token"]
    claims = AccessTokenValidator(server.metadata).validate(token, "codes:read")
    assert claims["client_id"] == server.client_id

    def introspect(token: str) -> Any:
        return client.introspect_token(server.endpoint("introspection"), token).json()

    assert introspect(token)["scope"] == "codes:read"
    assert introspect(tokens["access_token"])["client_id"] == USER_CLIENT_ID
    client.revoke_token(server.endpoint("revocation"), tokens["access_token"])
    assert introspect(tokens["access_token"]) == {"active": False}


def test_authlib_rejects_a_token_of_another_issuer(server: Server) -> None:
    """The validator of the other tests is not one that accepts anything."""
    client = AuthlibSession(server.client_id, server.client_secret)
    token = client.fetch_token(server.endpoint("token"))["access_token"]
    other = AccessTokenValidator(server.metadata | {"issuer": "https://other.example"})
    with pytest.raises(InvalidTokenError):
        other.validate(token)


def follow_to_the_client(url: str, email: str) -> str:
    """Log in on the page as a browser does; return the URL at which the client gets its code."""
    with httpx.Client() as browser:
        login = browser.get(url).next_request
        assert login
        fields = forms_of(browser.send(login))["/login"]
        sent = fields | {"email": email, "password": PASSWORD}
        authorize = browser.post(login.url, data=sent, headers=NAVIGATION).next_request
        assert authorize
        return browser.send(authorize).headers["Location"]


@pytest.mark.parametrize("is_public", [True, False])
def test_authlib_signs_a_user_in_by_code(server: Server, *, is_public: bool) -> None:
    """With PKCE, at a port of its own, as a public client and as one with a secret."""
    email, redirect_uri = server.register(), "http://127.0.0.1:49152/callback"
    session = AuthlibSession(
        server.public_client_id if is_public else server.client_id,
        None if is_public else server.client_secret,
        redirect_uri=redirect_uri,
        code_challenge_method="S256",
        token_endpoint_auth_method="none" if is_public else "client_secret_basic",
    )
    verifier = generate_token(48)
    url, state = session.create_authorization_url(
        server.endpoint("authorization"), code_verifier=verifier
    )
    answer = follow_to_the_client(url, email)
    assert f"iss={quote(server.metadata['issuer'], safe='')}" in answer
    exchange = {"authorization_response": answer, "code_verifier": verifier, "state": state}
    tokens = session.fetch_token(server.endpoint("token"), **exchange)
    assert server.me(tokens["access_token"])["email"] == email
    refreshed = session.refresh_token(server.endpoint("token"), tokens["refresh_token"])
    assert server.me(refreshed["access_token"])["email"] == email
    claims = AccessTokenValidator(server.metadata).validate(refreshed["access_token"], "account")
    assert claims["client_id"] == session.client_id
    with pytest.raises(OAuthError, match="invalid_grant"):
        session.fetch_token(server.endpoint("token"), **exchange)


def test_oauthlib_signs_a_user_in_and_out(server: Server) -> None:
    """Password grant, refresh, a protected resource and revocation."""
    email = server.register()
    application = LegacyApplicationClient(None)
    session = OAuth2Session(client=application)
    first = session.fetch_token(server.endpoint("token"), username=email, password=PASSWORD)
    assert first["token_type"] == "Bearer"
    assert session.get(f"{server.url}{API}/me").json()["email"] == email
    second = session.refresh_token(server.endpoint("token"))
    assert second["refresh_token"] != first["refresh_token"]
    url, headers, body = application.prepare_token_revocation_request(
        server.endpoint("revocation"), second["refresh_token"], "refresh_token"
    )
    assert httpx.post(url, headers=headers, content=body).status_code == 200
    with pytest.raises(InvalidGrantError):
        session.refresh_token(server.endpoint("token"))


def test_oauthlib_authenticates_a_client(server: Server) -> None:
    """The client credentials grant, by HTTP Basic and in the form."""
    for in_form in (None, True):
        session = OAuth2Session(client=BackendApplicationClient(server.client_id))
        token = session.fetch_token(
            server.endpoint("token"), client_secret=server.client_secret, include_client_id=in_form
        )
        assert token["scope"] == ["codes:read", "referrals:read"]
        claims = AccessTokenValidator(server.metadata).validate(token["access_token"])
        assert claims["sub"] == server.client_id
