"""The journey with the client of openapi-generator, on the server that the document names."""

from uuid import uuid4

from referral_client import (
    AccountsApi,
    ApiClient,
    CodeStatus,
    Configuration,
    CreateCodeRequest,
    DeleteAccountRequest,
    Locale,
    LookUpsApi,
    MyAccountApi,
    MyCodesApi,
    ProblemDetails,
    ReferralsApi,
    RegisterRequest,
    TokensApi,
)
from referral_client.exceptions import ConflictException

PASSWORD = "correct horse battery"


def main() -> None:
    """Register, sign in, share a code, list the referrals, and delete everything."""
    configuration = Configuration()
    client = ApiClient(configuration)
    accounts, codes = AccountsApi(client), MyCodesApi(client)
    email = new_email()
    user = accounts.register_user(RegisterRequest(email=email, password=PASSWORD))
    assert user.email == email
    tokens = TokensApi(client).issue_token(grant_type="password", username=email, password=PASSWORD)
    configuration.access_token = tokens.access_token

    code = codes.create_code(CreateCodeRequest(lifetime_minutes=60))
    assert code.status is CodeStatus.ACTIVE
    assert LookUpsApi(client).look_up_code(email=email).code == code.code

    joined = [new_email(), new_email()]
    for each in joined:
        accounts.register_user(
            RegisterRequest(
                email=each, password=PASSWORD, referral_code=code.code, locale=Locale.RU
            )
        )
    assert list_referrals(ReferralsApi(client)) == joined[::-1]

    assert refusal(codes, CreateCodeRequest(lifetime_minutes=60)) == "active-code-exists"
    again = CreateCodeRequest(lifetime_minutes=60, code=code.code, replace=True)
    assert refusal(codes, again) == "code-taken"

    picture = codes.get_code_qr_png(code.id)
    assert picture.startswith(b"\x89PNG")

    codes.delete_code(code.id)
    MyAccountApi(client).delete_me(DeleteAccountRequest(password=PASSWORD))


def new_email() -> str:
    """Return a new e-mail address."""
    return f"{uuid4()}@example.com"


def list_referrals(referrals: ReferralsApi) -> list[str | None]:
    """Return the addresses of all pages."""
    page = referrals.list_my_referrals(limit=1)
    listed = [each.email for each in page.items]
    while page.next_cursor:
        page = referrals.list_my_referrals(limit=1, cursor=page.next_cursor)
        listed += [each.email for each in page.items]
    return listed


def refusal(codes: MyCodesApi, request: CreateCodeRequest) -> str:
    """Return the code of the problem when a code is refused."""
    try:
        codes.create_code(request)
    except ConflictException as error:
        problem = error.data
        assert isinstance(problem, ProblemDetails)
        return problem.code
    raise AssertionError("The code was not refused")


if __name__ == "__main__":
    main()
