"""Token exchange with npm's oidc-provider: its algorithms, rotated keys, restarts, an outage.

The working directory has `identity-provider.mjs` and oidc-provider.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx

from referral.core.entities.subject_tokens import TOKEN_EXCHANGE_GRANT, SubjectTokenType
from tests.support.issuer_stub import AUDIENCE, make_private_key, to_jwk
from tests.support.service_process import Service, free_port, run_command, running_service
from tests.support.waiting import wait_for_port, wait_until
from tests.web.token_forger import encode

ALGORITHMS = ("RS256", "ES256", "EdDSA", "PS256", "Ed25519")
REDIRECT_URI = "https://shop.example/callback"
CLIENT = (AUDIENCE, "of this test alone")
ID_TOKEN, ACCESS_TOKEN = SubjectTokenType.ID_TOKEN, SubjectTokenType.ACCESS_TOKEN


class IdentityProvider:
    """The provider, in a process of its own."""

    def __init__(self, folder: Path) -> None:
        """Make the first keys."""
        self._key_file, self._port = folder / "keys.json", free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.rotate_keys()

    def rotate_keys(self) -> None:
        """Replace all keys; a running provider keeps its own."""
        keys = []
        for algorithm in ALGORITHMS:
            jwk = to_jwk(algorithm, make_private_key(algorithm))
            jwk.pop("key_ops", None)
            keys.append(jwk | {"alg": algorithm, "use": "sig"})
        self._key_file.write_text(json.dumps({"keys": keys}))

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run it until the block ends."""
        command = ["node", "identity-provider.mjs", str(self._port), str(self._key_file)]
        # The wheel's `node` is a script that starts the program: a signal goes to both.
        with subprocess.Popen(command, start_new_session=True) as process:  # noqa: S603 - our own
            try:
                wait_for_port(self._port)
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)

    def log_in(self, user: str, algorithm: str) -> dict[str, str]:
        """Return the tokens of a user, by code, with an access token of this algorithm."""
        verifier = encode(b"v" * 32)
        resource = f"urn:shop:{algorithm}"
        request = {
            "client_id": AUDIENCE,
            "response_type": "code",
            "redirect_uri": REDIRECT_URI,
            "scope": "openid email",
            "code_challenge": encode(sha256(verifier.encode()).digest()),
            "code_challenge_method": "S256",
            "resource": resource,
        }
        with httpx.Client(base_url=self.url) as browser:
            response = browser.get("/auth", params=request)
            while not (location := response.headers.get("location", "")).startswith(REDIRECT_URI):
                if location:
                    response = browser.get(location)
                    continue
                (prompt,) = re.findall(r'name="prompt" value="(\w+)"', response.text)
                form = {"prompt": prompt, "login": user, "password": "any"}
                response = browser.post(response.url, data=form)
        return self._tokens(
            grant_type="authorization_code",
            code=httpx.URL(location).params["code"],
            redirect_uri=REDIRECT_URI,
            code_verifier=verifier,
            resource=resource,
        )

    def client_token(self) -> str:
        """Return an access token of the client itself, which is no user."""
        tokens = self._tokens(grant_type="client_credentials", resource="urn:shop:RS256")
        return tokens["access_token"]

    def _tokens(self, **form: str) -> dict[str, str]:
        response = httpx.post(f"{self.url}/token", data=form, auth=CLIENT)
        tokens: dict[str, str] = response.raise_for_status().json()
        return tokens


class Product:
    """A client of the running service, which exchanges its users' tokens."""

    def __init__(self, service: Service, credentials: tuple[str, str]) -> None:
        self._api, self._credentials = f"{service.url}/api/v1", credentials

    def exchange(self, token: str, token_type: SubjectTokenType) -> httpx.Response:
        """Send a token to the token endpoint."""
        form = {
            "grant_type": TOKEN_EXCHANGE_GRANT,
            "subject_token": token,
            "subject_token_type": token_type,
        }
        return httpx.post(f"{self._api}/auth/token", data=form, auth=self._credentials, timeout=30)

    def accepts(self, access_token: str) -> bool:
        """Return whether a JWT access token can be exchanged."""
        return self.exchange(access_token, ACCESS_TOKEN).is_success

    def wait_for(self, access_token: str) -> None:
        """Wait until it can be exchanged."""
        asyncio.run(wait_until(lambda: self.accepts(access_token)))

    def me(self, token: str, token_type: SubjectTokenType) -> dict[str, Any]:
        """Exchange a token, and return what its user sees of the account."""
        exchanged = self.exchange(token, token_type)
        assert exchanged.status_code == 200, exchanged.text
        headers = {"Authorization": f"Bearer {exchanged.json()['access_token']}"}
        user: dict[str, Any] = (
            httpx.get(f"{self._api}/me", headers=headers).raise_for_status().json()
        )
        return user


def check_algorithms(product: Product, provider: IdentityProvider) -> tuple[str, str]:
    """Ann's tokens of each algorithm are hers; return one of them and her id."""
    tokens = {algorithm: provider.log_in("ann", algorithm) for algorithm in ALGORITHMS}
    users = [product.me(each["access_token"], ACCESS_TOKEN) for each in tokens.values()]
    users += [product.me(each["id_token"], ID_TOKEN) for each in tokens.values()]
    assert {user["id"] for user in users} == {users[0]["id"]}
    assert (users[0]["email"], users[0]["email_verified"]) == ("ann@example.com", True)
    other = product.me(provider.log_in("bob", "ES256")["id_token"], ID_TOKEN)
    assert other["id"] != users[0]["id"]
    for token, token_type in (
        (provider.client_token(), ACCESS_TOKEN),
        (tokens["EdDSA"]["access_token"], ID_TOKEN),
    ):
        assert product.exchange(token, token_type).json()["error"] == "invalid_request"
    return tokens["ES256"]["access_token"], str(users[0]["id"])


def check_rotation(product: Product, provider: IdentityProvider, old_token: str) -> str:
    """Return a token of a new key, which is found within 30 s; the old keys are refused then."""
    token = provider.log_in("ann", "PS256")["access_token"]
    assert product.accepts(old_token)
    product.wait_for(token)
    assert not product.accepts(old_token)
    return token


def main(folder: Path) -> None:
    """Run all steps with one account, through restarts of the service and the provider."""
    provider, data = IdentityProvider(folder), folder / "data"
    trust = {"trusted_issuers": provider.url, "trusted_audience": AUDIENCE}
    with running_service(data, **trust) as service:
        created = run_command(data, "create-client", "shop", "--scope", "users:act", "--json")
        client = json.loads(created.stdout)
        credentials = client["client_id"], client["client_secret"]
        product = Product(service, credentials)
        with provider.running():
            old_token, ann = check_algorithms(product, provider)
        provider.rotate_keys()
        with provider.running():
            token = check_rotation(product, provider, old_token)
        assert product.me(token, ACCESS_TOKEN)["id"] == ann  # by keys that are known
    with running_service(data, **trust) as service:
        product = Product(service, credentials)
        response = product.exchange(token, ACCESS_TOKEN)
        assert (response.status_code, "Retry-After" in response.headers) == (503, True)
        with provider.running():
            product.wait_for(token)
            assert product.me(token, ACCESS_TOKEN)["id"] == ann


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as parent:
        main(Path(parent))
