"""Authorization requests of clients and the responses to them (RFC 6749, 4.1; RFC 7636; RFC 9207).

A request without a known client and one of its redirect URIs must not be redirected: the response
is a page. All other errors go back to the client.
"""

from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from litestar import Request
from litestar.exceptions import HTTPException
from litestar.response import Redirect

from referral.core.entities.authorization_codes import (
    CODE_CHALLENGE_METHOD,
    CODE_CHALLENGE_PATTERN,
    AuthorizationRequest,
)
from referral.core.entities.clients import Client, Scope
from referral.core.policies.client_identification import FindClient

TARGET_PARAMETERS = ("client_id", "redirect_uri")


class UnknownClientRedirect(HTTPException):
    """The client is unknown, or the redirect URI is none of its own."""

    status_code = 400


class AuthorizationError(Exception):
    """An error that goes back to the client (RFC 6749, section 4.1.2.1)."""

    def __init__(self, error: str, description: str) -> None:
        """Take an error code of RFC 6749 and a description in ASCII."""
        super().__init__(description)
        self.error = error
        self.description = description


@dataclass(frozen=True, slots=True)
class RedirectTarget:
    """A known client and one of its redirect URIs, with the parameters of the request."""

    client: Client
    redirect_uri: str
    parameters: dict[str, str]
    repeated: frozenset[str]

    def respond(self, issuer: str, **response: str) -> Redirect:
        """Return to the client with the parameters of a response."""
        state = {"state": self.parameters["state"]} if "state" in self.parameters else {}
        query = urlencode(response | state | {"iss": issuer})
        separator = "&" if "?" in self.redirect_uri else "?"
        return Redirect(f"{self.redirect_uri}{separator}{query}", status_code=302)


async def find_redirect_target(
    request: Request[Any, Any, Any], find_client: FindClient
) -> RedirectTarget:
    """Return who asks for the authorization; raises `UnknownClientRedirect`."""
    try:
        query = request.scope["query_string"].decode("ascii")
        pairs = [(name, value) for name, value in parse_qsl(query, errors="strict") if value]
    except ValueError as error:
        raise UnknownClientRedirect from error
    names = [name for name, _ in pairs]
    repeated = frozenset(name for name in names if names.count(name) > 1)
    parameters = dict(pairs)
    if repeated & set(TARGET_PARAMETERS) or not parameters.keys() >= set(TARGET_PARAMETERS):
        raise UnknownClientRedirect
    client = await find_client(parameters["client_id"])
    if client is None or not client.allows_redirect_to(parameters["redirect_uri"]):
        raise UnknownClientRedirect
    return RedirectTarget(client, parameters["redirect_uri"], parameters, repeated)


def read_authorization_request(target: RedirectTarget) -> AuthorizationRequest:
    """Return the valid request; raises `AuthorizationError`."""
    sent = target.parameters
    if target.repeated:
        raise AuthorizationError("invalid_request", "Send each parameter once.")
    if "response_type" not in sent:
        raise AuthorizationError("invalid_request", "Send the parameter 'response_type'.")
    if sent["response_type"] != "code":
        raise AuthorizationError("unsupported_response_type", "The only response type is 'code'.")
    if sent.get("code_challenge_method") != CODE_CHALLENGE_METHOD:
        description = f"Send 'code_challenge_method={CODE_CHALLENGE_METHOD}' (RFC 7636)."
        raise AuthorizationError("invalid_request", description)
    challenge = sent.get("code_challenge", "")
    if not CODE_CHALLENGE_PATTERN.fullmatch(challenge):
        description = "Send 'code_challenge': SHA-256 of the verifier in Base64url, without '='."
        raise AuthorizationError("invalid_request", description)
    if set(sent.get("scope", "").split()) - {Scope.ACCOUNT}:
        description = f"The only scope for users is '{Scope.ACCOUNT}'."
        raise AuthorizationError("invalid_scope", description)
    return AuthorizationRequest(target.client.id, target.redirect_uri, challenge)
