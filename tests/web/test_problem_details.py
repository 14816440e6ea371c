"""Every error response is a problem document (RFC 9457)."""

import re
from collections.abc import AsyncIterator

import httpx
import msgspec
import pytest
from dishka import Provider, Scope
from litestar._parsers import parse_query_string

from referral.core.entities.codes import Code
from referral.core.errors import EmailTaken, NoActiveCode, NotFound, ReferralError
from referral.core.use_cases.lookups import CheckCode
from referral.settings import Settings
from referral.web.problem_types import all_problem_types
from referral.web.problems import slug_of, title_of
from tests.conftest import ServiceFactory, run_service
from tests.support.api_client import API, join

REGISTER = f"{API}/auth/register"
JSON = {"Content-Type": "application/json"}
NESTING_DEPTH = 100_000


def check_problem(response: httpx.Response, status: int, slug: str) -> dict[str, object]:
    """Check the fields of a problem document, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = response.json()
    known = {"type", "code", "title", "status", "detail", "instance", "request_id", "errors"}
    assert problem.keys() <= known
    assert problem["type"] == f"http://127.0.0.1:8000/problems/{slug}"
    assert problem["code"] == slug
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == response.request.url.raw_path.partition(b"?")[0].decode()
    assert problem["request_id"] == response.headers["x-request-id"]
    return problem


async def test_unknown_path_is_not_found(client: httpx.AsyncClient) -> None:
    """The framework's 404 is a problem document too, and `instance` has no query."""
    problem = check_problem(await client.get("/nowhere?token=secret"), 404, "not-found")
    assert problem["instance"] == "/nowhere"


async def test_instance_is_the_path_as_sent(client: httpx.AsyncClient) -> None:
    """`instance` keeps the percent-encoding of the path."""
    problem = check_problem(await client.get("/a%20b%2Fc%ff%00?x"), 404, "not-found")
    assert problem["instance"] == "/a%20b%2Fc%ff%00"


@pytest.mark.parametrize("path", ["/me/codes/no-uuid", "/users/no-uuid/referrals"])
async def test_malformed_id_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    """An id that is no UUID gets the response of an unknown id."""
    ann = await join(client)
    check_problem(await ann.request("GET", path), 404, "not-found")


async def test_unknown_method_is_not_allowed(client: httpx.AsyncClient) -> None:
    """405 lists the allowed methods."""
    response = await client.put(f"{API}/me/codes/active")
    check_problem(response, 405, "method-not-allowed")
    assert "GET" in response.headers["allow"]


@pytest.mark.parametrize("port", ["x", "99999", "-1", "8e1", "9" * 5000, "\u00b2"])
@pytest.mark.parametrize("path", ["/health/live", "/nowhere", f"{API}/me", f"{API}/codes/lookup"])
async def test_invalid_host_is_rejected(client: httpx.AsyncClient, path: str, port: str) -> None:
    """A Host header with an invalid port is 400."""
    response = await client.get(path, headers={b"Host": f"example.com:{port}".encode("latin-1")})
    check_problem(response, 400, "malformed-request")


@pytest.mark.parametrize("host", ["example.com", "example.com:80", "[::1]", "[::1]:8000", "a:"])
async def test_valid_host_is_accepted(client: httpx.AsyncClient, host: str) -> None:
    """Any host name is accepted, with or without a port."""
    assert (await client.get("/health/live", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/me/codes", "GET, HEAD, OPTIONS, POST"), ("/me", "DELETE, GET, HEAD, OPTIONS, PATCH")],
)
async def test_options_lists_all_methods_of_a_path(
    client: httpx.AsyncClient, path: str, methods: str
) -> None:
    """The list has the methods of all handlers of the path."""
    response = await client.options(f"{API}{path}")
    assert (response.status_code, response.headers["allow"]) == (204, methods)


@pytest.mark.parametrize("chunked", [True, False])
async def test_long_body_is_rejected(client: httpx.AsyncClient, *, chunked: bool) -> None:
    """The limit of 64 KiB holds with and without Content-Length."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b" " * 1024

    whole = b" " * 65 * 1024
    response = await client.post(REGISTER, content=body() if chunked else whole, headers=JSON)
    check_problem(response, 413, "content-too-large")


@pytest.mark.parametrize(
    "media_type", ["text/plain", "application/x-www-form-urlencoded", "image/png"]
)
async def test_other_media_type_is_rejected(client: httpx.AsyncClient, media_type: str) -> None:
    """JSON routes accept only JSON."""
    response = await client.post(REGISTER, content=b"{}", headers={"Content-Type": media_type})
    check_problem(response, 415, "unsupported-media-type")


MALFORMED = {
    "empty": b"",
    "blank": b" \n",
    "byte-order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"email": "a"}'.encode("utf-16"),
    "bad UTF-8": b'{"email": "\xff"}',
    "bad UTF-8 in an unknown field": b'{"unknown": "\xc3\x28"}',
    "overlong UTF-8": b'{"email": "\xc0\xaf"}',
    "cut": b'{"email": ',
    "trailing data": b'{"email": "a@example.com", "password": "12345678"} {}',
    "trailing comma": b'{"email": "a",}',
    "NaN": b'{"email": NaN}',
    "single quotes": b"{'email': 'a'}",
    "a NUL byte": b'{"email": "\x00"}',
    "lone surrogate": b'{"email": "\\ud800"}',
    "deep list": b"[" * 60_000,
    "deep in a field": b'{"email": ' + b"[" * 60_000,
    "deep in an unknown field": b'{"unknown": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep objects": b'{"unknown": ' + b'{"a":' * 12_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("path", ["/auth/register", "/codes/lookup"])
async def test_malformed_json_is_rejected(
    client: httpx.AsyncClient, path: str, body: bytes
) -> None:
    """The response is 400 for every kind of defect."""
    check_problem(
        await client.post(f"{API}{path}", content=body, headers=JSON), 400, "malformed-request"
    )


@pytest.mark.parametrize("path", ["/api/v1/codes/lookup", "/confirm", "/health/live", "/nowhere"])
@pytest.mark.parametrize(
    ("longest", "excess"), [("a=" + "x" * 8_190, "x"), ("&".join(["a=1"] * 100), "&a=1")]
)
async def test_long_query_is_rejected(
    client: httpx.AsyncClient, path: str, longest: str, excess: str
) -> None:
    """A long query is neither parsed nor cached."""
    parse_query_string.cache_clear()
    check_problem(await client.get(f"{path}?{longest}{excess}"), 414, "uri-too-long")
    assert parse_query_string.cache_info().currsize == 0
    assert (await client.get(f"{path}?{longest}")).status_code != 414


async def test_deeply_nested_json_is_rejected(client: httpx.AsyncClient) -> None:
    """The limit of the length stops it before the parser."""
    response = await client.post(REGISTER, content=b"[" * NESTING_DEPTH, headers=JSON)
    check_problem(response, 413, "content-too-large")


VALID_FIELDS = '"email": "a@example.com", "password": "12345678"'
INVALID_BODIES = {
    "an unknown field": ("{" + VALID_FIELDS + ', "is_admin": true}', "/is_admin"),
    "an unknown field with a slash": ("{" + VALID_FIELDS + ', "a/b~c": 1}', "/a~1b~0c"),
    "an unknown field without a name": ("{" + VALID_FIELDS + ', "": 1}', "/"),
    "an unknown field of quotes": (
        "{" + VALID_FIELDS + ', "`x` - at `$.y`": 1}',
        "/`x` - at `$.y`",
    ),
    "a missing field": ('{"email": "a@example.com"}', "/password"),
    "a number for a text": ('{"email": 5, "password": "12345678"}', "/email"),
    "null for a text": ('{"email": null, "password": "12345678"}', "/email"),
    "an unknown word": ("{" + VALID_FIELDS + ', "locale": "xx"}', "/locale"),
    "an array": ("[]", ""),
    "a number": ("1", ""),
    "null": ("null", ""),
    "a long number": ("1" * 5000, ""),
}


@pytest.mark.parametrize(("body", "pointer"), INVALID_BODIES.values(), ids=INVALID_BODIES)
async def test_invalid_field_is_named(client: httpx.AsyncClient, body: str, pointer: str) -> None:
    """422 has the JSON pointer of the field (RFC 6901)."""
    response = await client.post(REGISTER, content=body, headers=JSON)
    errors = check_problem(response, 422, "invalid-request")["errors"]
    assert isinstance(errors, list)
    assert [error.get("pointer") for error in errors] == [pointer]
    assert errors[0]["detail"]


async def test_missing_parameter_is_named(client: httpx.AsyncClient) -> None:
    """422 has the name of the parameter."""
    problem = check_problem(await client.get(f"{API}/codes/lookup"), 422, "invalid-request")
    assert problem["errors"] == [
        {"detail": "Missing required query parameter", "parameter": "email"}
    ]


@pytest.mark.parametrize("path", ["/me/codes", "/me/referrals"])
async def test_unknown_status_is_rejected(client: httpx.AsyncClient, path: str) -> None:
    """`null` is no status either."""
    ann = await join(client)
    assert (await ann.request("GET", path)).status_code == 200
    for status in ("null", "unknown"):
        response = await ann.request("GET", path, params={"status": status})
        assert check_problem(response, 422, "invalid-request")["errors"]


@pytest.mark.parametrize("sent", ["a", "A-1_b.c~" * 8, "!" * 64])
async def test_request_id_is_echoed(client: httpx.AsyncClient, sent: str) -> None:
    """The client's request id is in the header and in the problem."""
    problem = check_problem(
        await client.get("/nowhere", headers={"X-Request-ID": sent}), 404, "not-found"
    )
    assert problem["request_id"] == sent


@pytest.mark.parametrize("sent", ["", " ", "two words", "x" * 65, "é", "a\tb"])
async def test_invalid_request_id_is_replaced(client: httpx.AsyncClient, sent: str) -> None:
    """An id that is too long or could break a log line is replaced."""
    headers = {b"X-Request-ID": sent.encode()}
    problem = check_problem(await client.get("/nowhere", headers=headers), 404, "not-found")
    assert re.fullmatch(r"[0-9a-f-]{36}", str(problem["request_id"]))


async def test_successful_responses_have_a_request_id(client: httpx.AsyncClient) -> None:
    """Each request has its own id."""
    first, second = [(await client.get("/health/live")).headers["x-request-id"] for _ in range(2)]
    assert first != second


async def test_unexpected_error_is_not_disclosed(settings: Settings) -> None:
    """500 is a problem document without the cause."""

    class FailingCheckCode:
        async def __call__(self, text: str) -> Code | None:
            raise RuntimeError("postgres://user:password@host " + text)

    fakes = Provider(scope=Scope.APP)
    fakes.provide(FailingCheckCode, provides=CheckCode, override=True)
    async with run_service(settings, fakes) as client:
        response = await client.get(f"{API}/codes/ANN-2026/validity")
    check_problem(response, 500, "internal-server-error")
    assert "postgres" not in response.text


@pytest.mark.parametrize(
    ("error", "slug", "title"),
    [
        (EmailTaken, "email-taken", "Email taken"),
        (NoActiveCode, "no-active-code", "No active code"),
        (NotFound, "not-found", "Not found"),
    ],
)
def test_error_class_names_the_problem(error: type[ReferralError], slug: str, title: str) -> None:
    """A new error of the core needs no entry in a table."""
    assert (slug_of(error), title_of(slug)) == (slug, title)


@pytest.mark.parametrize("slug", sorted(all_problem_types()))
async def test_problem_type_is_a_page(client: httpx.AsyncClient, slug: str) -> None:
    """The URL in `type` serves a description."""
    page = await client.get(f"/problems/{slug}")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain")
    assert page.text.startswith(f"{slug} (HTTP ")
    assert len(page.text.splitlines()[2]) > 20


async def test_unknown_problem_page_is_not_found(client: httpx.AsyncClient) -> None:
    """Only existing problems have a page."""
    check_problem(await client.get("/problems/nonsense"), 404, "not-found")


UNAUTHENTICATED = {
    "nothing": ([], "Bearer"),
    "garbage": (["garbage"], 'Bearer error="invalid_token"'),
    "no token": (["Bearer"], 'Bearer error="invalid_token"'),
    "a blank token": (["Bearer  "], 'Bearer error="invalid_token"'),
    "a false token": (["Bearer abc.def.ghi"], 'Bearer error="invalid_token"'),
    "an empty header": ([""], 'Bearer error="invalid_token"'),
    "another scheme": (["Basic dTpw"], 'Bearer error="invalid_token"'),
    "two headers": (["Bearer a", "Bearer b"], 'Bearer error="invalid_token"'),
}


@pytest.mark.parametrize(("sent", "challenge"), UNAUTHENTICATED.values(), ids=UNAUTHENTICATED)
@pytest.mark.parametrize(("method", "path"), [("GET", "/me"), ("POST", "/me/codes")])
async def test_missing_authentication_is_challenged(
    client: httpx.AsyncClient, method: str, path: str, sent: list[str], challenge: str
) -> None:
    """401 names the scheme before the body is validated (RFC 6750)."""
    headers = [("Authorization", value) for value in sent]
    response = await client.request(method, f"{API}{path}", headers=headers)
    check_problem(response, 401, "unauthenticated")
    assert response.headers["www-authenticate"] == challenge


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "BeArEr"])
async def test_authorization_scheme_is_case_insensitive(
    client: httpx.AsyncClient, scheme: str
) -> None:
    """RFC 9110, 11.1."""
    ann = await join(client)
    token = ann.headers["Authorization"].partition(" ")[2]
    response = await client.get(f"{API}/me", headers={"Authorization": f"{scheme} {token}"})
    assert response.status_code == 200


async def test_problem_type_has_the_public_url(settings: Settings, serve: ServiceFactory) -> None:
    """`type` starts with the configured public URL."""
    public = msgspec.structs.replace(settings, public_url="https://referral.example.com")
    async with serve(public) as client:
        response = await client.get("/nowhere")
    assert response.json()["type"] == "https://referral.example.com/problems/not-found"
    assert response.headers["strict-transport-security"].startswith("max-age=")


async def test_invalid_email_is_named_by_its_location(client: httpx.AsyncClient) -> None:
    """The error names a parameter in a query and a field in a body."""
    got = await client.get(f"{API}/codes/lookup", params={"email": "nobody"})
    posted = await client.post(f"{API}/codes/lookup", json={"email": "nobody"})
    assert got.status_code == posted.status_code == 422
    assert got.json()["errors"][0]["parameter"] == "email"
    assert posted.json()["errors"][0]["pointer"] == "/email"
