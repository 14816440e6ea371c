"""Whatever goes wrong, the answer is a problem document (RFC 9457)."""

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
from referral.web.problems import all_problems, slug_of, title_of
from tests.conftest import ServiceFactory, run_service
from tests.support.api_client import API, join

REGISTER = f"{API}/auth/register"
JSON = {"Content-Type": "application/json"}
NESTING_DEPTH = 100_000


def check(answer: httpx.Response, status: int, slug: str) -> dict[str, object]:
    """Check the form of a problem document, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem: dict[str, object] = answer.json()
    known = {"type", "title", "status", "detail", "instance", "request_id", "errors"}
    assert problem.keys() <= known
    assert problem["type"] == f"http://127.0.0.1:8000/problems/{slug}"
    assert problem["status"] == status
    assert problem["title"]
    assert problem["detail"]
    assert problem["instance"] == answer.request.url.raw_path.partition(b"?")[0].decode()
    assert problem["request_id"] == answer.headers["x-request-id"]
    return problem


async def test_an_unknown_path_is_not_found(client: httpx.AsyncClient) -> None:
    """The framework's 404 has the form of all others, and shows no query."""
    problem = check(await client.get("/nowhere?token=secret"), 404, "not-found")
    assert problem["instance"] == "/nowhere"


async def test_the_path_is_told_as_it_was_sent(client: httpx.AsyncClient) -> None:
    """With its escapes: without them it would be another, or none."""
    problem = check(await client.get("/a%20b%2Fc%ff%00?x"), 404, "not-found")
    assert problem["instance"] == "/a%20b%2Fc%ff%00"


@pytest.mark.parametrize("path", ["/me/codes/no-uuid", "/users/no-uuid/referrals"])
async def test_an_id_that_is_no_uuid_is_not_found(client: httpx.AsyncClient, path: str) -> None:
    """It names nothing, and so is no other case than an unknown id."""
    ann = await join(client)
    check(await ann.request("GET", path), 404, "not-found")


async def test_an_unknown_method_is_told_the_known_ones(client: httpx.AsyncClient) -> None:
    """405 lists what the resource does know."""
    answer = await client.put(f"{API}/me/codes/active")
    check(answer, 405, "method-not-allowed")
    assert "GET" in answer.headers["allow"]


@pytest.mark.parametrize("port", ["x", "99999", "-1", "8e1", "9" * 5000, "\u00b2"])
@pytest.mark.parametrize("path", ["/health/live", "/nowhere", f"{API}/me", f"{API}/codes/lookup"])
async def test_a_host_that_is_none_is_refused(
    client: httpx.AsyncClient, path: str, port: str
) -> None:
    """A Host header that no parser takes is no reason to fail."""
    answer = await client.get(path, headers={b"Host": f"example.com:{port}".encode("latin-1")})
    check(answer, 400, "malformed-request")


@pytest.mark.parametrize("host", ["example.com", "example.com:80", "[::1]", "[::1]:8000", "a:"])
async def test_a_host_with_or_without_a_port_is_good(client: httpx.AsyncClient, host: str) -> None:
    """Any name may lead here."""
    assert (await client.get("/health/live", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize(
    ("path", "methods"),
    [("/me/codes", "GET, HEAD, OPTIONS, POST"), ("/me", "DELETE, GET, HEAD, OPTIONS, PATCH")],
)
async def test_options_lists_all_methods_of_a_path(
    client: httpx.AsyncClient, path: str, methods: str
) -> None:
    """Not only those of the handler that was added last."""
    answer = await client.options(f"{API}{path}")
    assert (answer.status_code, answer.headers["allow"]) == (204, methods)


@pytest.mark.parametrize("chunked", [True, False])
async def test_a_body_that_is_too_long_is_refused(
    client: httpx.AsyncClient, *, chunked: bool
) -> None:
    """64 KiB is the limit, whether the length was announced or not."""

    async def body() -> AsyncIterator[bytes]:
        for _ in range(65):
            yield b" " * 1024

    whole = b" " * 65 * 1024
    answer = await client.post(REGISTER, content=body() if chunked else whole, headers=JSON)
    check(answer, 413, "content-too-large")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "image/png"])
async def test_a_body_of_another_type_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    """A JSON route takes JSON."""
    answer = await client.post(REGISTER, content=b"{}", headers={"Content-Type": kind})
    check(answer, 415, "unsupported-media-type")


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
    "half a surrogate pair": b'{"email": "\\ud800"}',
    "deep": b"[" * 60_000,
    "deep in a field": b'{"email": ' + b"[" * 60_000,
    "deep in an unknown field": b'{"unknown": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "deep objects": b'{"unknown": ' + b'{"a":' * 12_000,
}


@pytest.mark.parametrize("body", MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("path", ["/auth/register", "/codes/lookup"])
async def test_a_body_that_is_no_json_is_malformed(
    client: httpx.AsyncClient, path: str, body: bytes
) -> None:
    """400, whatever the JSON breaks on."""
    check(await client.post(f"{API}{path}", content=body, headers=JSON), 400, "malformed-request")


@pytest.mark.parametrize("path", ["/api/v1/codes/lookup", "/confirm", "/health/live", "/nowhere"])
@pytest.mark.parametrize(
    ("longest", "more"), [("a=" + "x" * 8_190, "x"), ("&".join(["a=1"] * 100), "&a=1")]
)
async def test_a_query_that_is_too_long_is_refused(
    client: httpx.AsyncClient, path: str, longest: str, more: str
) -> None:
    """It is neither taken apart nor kept, wherever it is sent."""
    parse_query_string.cache_clear()
    check(await client.get(f"{path}?{longest}{more}"), 414, "uri-too-long")
    assert parse_query_string.cache_info().currsize == 0
    assert (await client.get(f"{path}?{longest}")).status_code != 414


async def test_nesting_without_end_is_too_long(client: httpx.AsyncClient) -> None:
    """Depth beyond the limit of a body's length does not even get to the parser."""
    answer = await client.post(REGISTER, content=b"[" * NESTING_DEPTH, headers=JSON)
    check(answer, 413, "content-too-large")


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
async def test_json_that_does_not_fit_is_told_where(
    client: httpx.AsyncClient, body: str, pointer: str
) -> None:
    """422 points at the field (RFC 6901)."""
    answer = await client.post(REGISTER, content=body, headers=JSON)
    faults = check(answer, 422, "invalid-request")["errors"]
    assert isinstance(faults, list)
    assert [fault.get("pointer") for fault in faults] == [pointer]
    assert faults[0]["detail"]


async def test_a_parameter_that_is_missing_is_named(client: httpx.AsyncClient) -> None:
    """422 names parameters as it does fields."""
    problem = check(await client.get(f"{API}/codes/lookup"), 422, "invalid-request")
    assert problem["errors"] == [
        {"detail": "Missing required query parameter", "parameter": "email"}
    ]


@pytest.mark.parametrize("sent", ["a", "A-1_b.c~" * 8, "!" * 64])
async def test_a_request_id_is_echoed(client: httpx.AsyncClient, sent: str) -> None:
    """A caller's own id is on the answer and in the problem."""
    problem = check(await client.get("/nowhere", headers={"X-Request-ID": sent}), 404, "not-found")
    assert problem["request_id"] == sent


@pytest.mark.parametrize("sent", ["", " ", "two words", "x" * 65, "é", "a\tb"])
async def test_an_odd_request_id_is_replaced(client: httpx.AsyncClient, sent: str) -> None:
    """What could break a log line, or is too long, is not taken over."""
    headers = {b"X-Request-ID": sent.encode()}
    problem = check(await client.get("/nowhere", headers=headers), 404, "not-found")
    assert re.fullmatch(r"[0-9a-f-]{36}", str(problem["request_id"]))


async def test_good_answers_carry_a_request_id_too(client: httpx.AsyncClient) -> None:
    """Two requests have two ids."""
    first, second = [(await client.get("/health/live")).headers["x-request-id"] for _ in range(2)]
    assert first != second


async def test_an_unforeseen_error_tells_nothing_of_itself(settings: Settings) -> None:
    """500 has the form of all others, and the cause is for the log alone."""

    class Broken:
        async def __call__(self, text: str) -> Code | None:
            raise RuntimeError("postgres://user:password@host " + text)

    broken = Provider(scope=Scope.APP)
    broken.provide(Broken, provides=CheckCode, override=True)
    async with run_service(settings, broken) as client:
        answer = await client.get(f"{API}/codes/ANN-2026/validity")
    check(answer, 500, "internal-server-error")
    assert "postgres" not in answer.text


@pytest.mark.parametrize(
    ("kind", "slug", "title"),
    [
        (EmailTaken, "email-taken", "Email taken"),
        (NoActiveCode, "no-active-code", "No active code"),
        (NotFound, "not-found", "Not found"),
    ],
)
def test_the_class_of_an_error_names_the_problem(
    kind: type[ReferralError], slug: str, title: str
) -> None:
    """A new error of the core needs no entry in a table."""
    assert (slug_of(kind), title_of(slug)) == (slug, title)


@pytest.mark.parametrize("slug", sorted(all_problems()))
async def test_the_type_of_a_problem_is_a_page(client: httpx.AsyncClient, slug: str) -> None:
    """Whoever follows `type` reads what the problem means."""
    page = await client.get(f"/problems/{slug}")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/plain")
    assert page.text.startswith(f"{slug} (HTTP ")
    assert len(page.text.splitlines()[2]) > 20


async def test_a_page_of_no_problem_is_not_found(client: httpx.AsyncClient) -> None:
    """Only problems that exist are described."""
    check(await client.get("/problems/nonsense"), 404, "not-found")


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
async def test_who_is_not_signed_in_is_challenged(
    client: httpx.AsyncClient, method: str, path: str, sent: list[str], challenge: str
) -> None:
    """401 says how to authenticate, before anything is said about the body (RFC 6750)."""
    headers = [("Authorization", value) for value in sent]
    answer = await client.request(method, f"{API}{path}", headers=headers)
    check(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == challenge


@pytest.mark.parametrize("scheme", ["bearer", "BEARER", "BeArEr"])
async def test_the_scheme_is_read_without_regard_to_case(
    client: httpx.AsyncClient, scheme: str
) -> None:
    """RFC 9110, 11.1."""
    ann = await join(client)
    token = ann.headers["Authorization"].partition(" ")[2]
    answer = await client.get(f"{API}/me", headers={"Authorization": f"{scheme} {token}"})
    assert answer.status_code == 200


async def test_the_type_has_the_public_address(settings: Settings, serve: ServiceFactory) -> None:
    """`type` leads to this service as the world sees it."""
    public = msgspec.structs.replace(settings, public_url="https://referral.example.com")
    async with serve(public) as client:
        answer = await client.get("/nowhere")
    assert answer.json()["type"] == "https://referral.example.com/problems/not-found"
    assert answer.headers["strict-transport-security"].startswith("max-age=")


async def test_a_bad_address_is_named_where_it_was_sent(client: httpx.AsyncClient) -> None:
    """In a query it is a parameter, in a body a field."""
    asked = await client.get(f"{API}/codes/lookup", params={"email": "nobody"})
    posted = await client.post(f"{API}/codes/lookup", json={"email": "nobody"})
    assert asked.status_code == posted.status_code == 422
    assert asked.json()["errors"][0]["parameter"] == "email"
    assert posted.json()["errors"][0]["pointer"] == "/email"
