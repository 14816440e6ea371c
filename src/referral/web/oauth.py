"""OAuth 2.0 requests: grants, forms and client authentication (RFC 6749)."""

from base64 import b64decode
from binascii import Error as BadBase64
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from litestar import Request

from referral.core.entities.clients import Client
from referral.core.entities.subject_tokens import TOKEN_EXCHANGE_GRANT
from referral.core.errors import InvalidClient
from referral.core.use_cases.clients import AuthenticateClient, ClientCredentials
from referral.web.oauth_errors import TokenRequestError

FORM_MEDIA_TYPE = "application/x-www-form-urlencoded"
MAX_FORM_FIELDS = 20

MAX_CREDENTIALS_CHARACTERS = 1024
"""The maximum length of client credentials in Base64; those of this service have 108 characters."""

EMPTY_CREDENTIALS = ":"
"""An empty id and secret, which Swagger UI sends if the user entered no client."""

TWO_CLIENT_IDS = "Send one client id: that of HTTP Basic and 'client_id' differ."
TWO_AUTHENTICATION_METHODS = "Send the client's secret once: by HTTP Basic or in the form."

GRANTS = [
    "password",
    "authorization_code",
    "refresh_token",
    "client_credentials",
    TOKEN_EXCHANGE_GRANT,
]


@dataclass(frozen=True, slots=True)
class SupportedGrants:
    """The grants that the token endpoint supports."""

    password: bool

    def names(self) -> list[str]:
        """Return the values of `grant_type`."""
        return [name for name in GRANTS if self.password or name != "password"]


async def read_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return the non-empty fields of the form; raises `TokenRequestError`.

    A request without a body and a media type is an empty form.
    """
    media_type, body = request.content_type[0], await request.body()
    if media_type != FORM_MEDIA_TYPE and (media_type or body):
        raise TokenRequestError("invalid_request", f"Send a form: Content-Type {FORM_MEDIA_TYPE}.")
    try:
        text = body.decode()
        pairs = parse_qsl(
            text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise TokenRequestError(
            "invalid_request", f"Send a valid form in UTF-8, with at most {MAX_FORM_FIELDS} fields."
        ) from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise TokenRequestError("invalid_request", "Send each parameter once.")
    return {name: value for name, value in fields.items() if value}


async def read_client_form(
    request: Request[Any, Any, Any],
    authenticate: AuthenticateClient,
    *,
    client_required: bool = False,
) -> tuple[Client | None, dict[str, str]]:
    """Return the client that sent the form, or None without credentials, and the form.

    Raises `InvalidClient` before `TokenRequestError`: only a client learns what its form lacks.
    """
    form: dict[str, str] = {}
    form_error = None
    try:
        form = await read_form(request)
    except TokenRequestError as error:
        form_error = error
    client = await authenticate(find_client_credentials(request, form))
    if client_required:
        require_client(client)
    if form_error is not None:
        raise form_error
    return client, form


def require_client(client: Client | None) -> Client:
    """Return the client; raises `InvalidClient` if there is none."""
    if client is None:
        raise InvalidClient
    return client


def require_field(form: dict[str, str], name: str) -> str:
    """Return a field of the form; raises `TokenRequestError`."""
    if name not in form:
        raise TokenRequestError("invalid_request", f"Send the parameter '{name}'.")
    return form[name]


def find_client_credentials(
    request: Request[Any, Any, Any], form: dict[str, str]
) -> ClientCredentials | None:
    """Return the credentials of HTTP Basic or of the form, or None without a secret.

    Raises `InvalidClient` if they are malformed, `TokenRequestError` if there are two secrets or
    two ids (RFC 6749, section 2.3).
    """
    basic = _find_basic_credentials(request)
    if basic is not None and form.get("client_id", basic.client_id) != basic.client_id:
        raise TokenRequestError("invalid_request", TWO_CLIENT_IDS)
    if "client_secret" not in form:
        return basic
    if basic is not None:
        raise TokenRequestError("invalid_request", TWO_AUTHENTICATION_METHODS)
    return ClientCredentials(require_field(form, "client_id"), form["client_secret"])


def _find_basic_credentials(request: Request[Any, Any, Any]) -> ClientCredentials | None:
    values = request.headers.getall("authorization", [])
    if not any(_is_basic(value) for value in values):
        return None
    encoded = values[0].partition(" ")[2].strip()
    if len(values) > 1 or len(encoded) > MAX_CREDENTIALS_CHARACTERS:
        raise InvalidClient
    try:
        decoded = b64decode(encoded, validate=True).decode()
    except (BadBase64, ValueError) as error:
        raise InvalidClient from error
    client_id, _, secret = decoded.partition(":")
    if decoded == EMPTY_CREDENTIALS:
        return None
    # RFC 6749, section 2.3.1: id and secret are form-encoded before they are joined.
    return ClientCredentials(unquote_plus(client_id), unquote_plus(secret))


def _is_basic(value: str) -> bool:
    return value.partition(" ")[0].lower() == "basic"
