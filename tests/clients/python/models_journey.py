"""The journey with the models of datamodel-code-generator, by httpx."""

import sys
from typing import TypeVar
from uuid import uuid4

import httpx
from codec import decode, encode
from models import (
    CodePageResponse,
    CodeResponse,
    CodeStatus,
    CreateCodeRequest,
    DeleteAccountRequest,
    Locale,
    LookupResponse,
    ProblemDetails,
    ReferralPageResponse,
    RegisterRequest,
    TokenResponse,
    UserResponse,
)

Model = TypeVar("Model")
PASSWORD = "correct horse battery"


class Api:
    """The API with the models of its document."""

    def __init__(self, url: str) -> None:
        self.client = httpx.Client(base_url=f"{url}/api/v1")

    def get(self, model: type[Model], path: str, **query: str | int) -> Model:
        """Return a resource."""
        return decode(self.client.get(path, params=query).raise_for_status().content, model)

    def post(self, model: type[Model], path: str, body: object, status: int = 201) -> Model:
        """Create a resource, or return the problem of this status."""
        response = self.client.post(path, content=encode(body), headers=JSON)
        assert response.status_code == status, response.text
        return decode(response.content, model)

    def delete(self, path: str, body: object | None = None) -> None:
        """Delete a resource."""
        content = None if body is None else encode(body)
        response = self.client.request("DELETE", path, content=content, headers=JSON)
        assert response.status_code == 204, response.text

    def sign_in(self, email: str) -> None:
        """Send the access token of this user from now on."""
        form = {"grant_type": "password", "username": email, "password": PASSWORD}
        response = self.client.post("/auth/token", data=form).raise_for_status()
        token = decode(response.content, TokenResponse).access_token
        self.client.headers["Authorization"] = f"Bearer {token}"


JSON = {"Content-Type": "application/json"}


def main(url: str) -> None:
    """Register, sign in, share a code, list the referrals, and delete everything."""
    api = Api(url)
    email = new_email()
    user = api.post(UserResponse, "/auth/register", RegisterRequest(email=email, password=PASSWORD))
    assert user.email == email
    api.sign_in(email)

    code = api.post(CodeResponse, "/me/codes", CreateCodeRequest(lifetime_minutes=60))
    assert code.status is CodeStatus.active
    assert api.get(LookupResponse, "/codes/lookup", email=email).code == code.code
    assert api.get(CodePageResponse, "/me/codes").items == [code]

    joined = [new_email(), new_email()]
    for each in joined:
        request = RegisterRequest(
            email=each, password=PASSWORD, referral_code=code.code, locale=Locale.ru
        )
        api.post(UserResponse, "/auth/register", request)
    assert list_referrals(api) == joined[::-1]

    second = CreateCodeRequest(lifetime_minutes=60)
    problem = api.post(ProblemDetails, "/me/codes", second, status=409)
    assert problem.code == "active-code-exists"
    again = CreateCodeRequest(lifetime_minutes=60, code=code.code, replace=True)
    assert api.post(ProblemDetails, "/me/codes", again, status=409).code == "code-taken"

    picture = api.client.get(f"/me/codes/{code.id}/qr.png").raise_for_status().content
    assert picture.startswith(b"\x89PNG")

    api.delete(f"/me/codes/{code.id}")
    api.delete("/me", DeleteAccountRequest(password=PASSWORD))


def new_email() -> str:
    """Return a new e-mail address."""
    return f"{uuid4()}@example.com"


def list_referrals(api: Api) -> list[object]:
    """Return the addresses of all pages."""
    page = api.get(ReferralPageResponse, "/me/referrals", limit=1)
    listed: list[object] = [each.email for each in page.items]
    while page.next_cursor:
        page = api.get(ReferralPageResponse, "/me/referrals", limit=1, cursor=page.next_cursor)
        listed += [each.email for each in page.items]
    return listed


if __name__ == "__main__":
    main(sys.argv[1])
