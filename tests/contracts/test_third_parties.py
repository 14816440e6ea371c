"""The ports of third parties: the fakes, and the adapters with a stub of their APIs."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from referral.adapters.third_parties.clearbit import ClearbitClient, ClearbitHealthProbe
from referral.adapters.third_parties.clearbit_parser import (
    MAX_TEXT_CHARACTERS,
    ClearbitFormatEnrichment,
)
from referral.adapters.third_parties.disposable_domains import DisposableDomainVerifier
from referral.adapters.third_parties.guarded_client import FAILURE_THRESHOLD, rate_budget
from referral.adapters.third_parties.http_client import MAX_RESPONSE_BYTES, HttpClient
from referral.adapters.third_parties.hunter import HunterClient, HunterHealthProbe, HunterVerifier
from referral.core.entities.deliverability import Deliverability
from referral.core.entities.users import Profile
from referral.core.errors import Unavailable
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from tests.support.fakes.caching import FakeRateLimiter
from tests.support.fakes.third_parties import FakeEmailVerifier, FakeEnrichment
from tests.support.hunter_stub import (
    ERROR_MESSAGES,
    FAULTS,
    MALFORMED_BODIES,
    OVERSIZED_BYTES,
    OVERSIZED_RESPONSES,
    HunterStub,
    hunter_stub,
)
from tests.support.waiting import measure_thread_time

SHORT_TIMEOUT = timedelta(seconds=0.8)
LONG_TIMEOUT = timedelta(seconds=20)
"""A timeout that a busy machine does not reach."""

SLACK_SECONDS = 0.5
MALFORMED = sorted({*MALFORMED_BODIES} - {"new-status", "surrogate"})
FAILURES_OF_SERVICE = [
    "401",
    "403",
    "404",
    "429",
    "500",
    "502",
    "503",
    *MALFORMED,
    *FAULTS,
    *OVERSIZED_RESPONSES,
]
"""Failures of the service, as opposed to results for an e-mail address."""

UNDECIDED_RESPONSES = ["222", "400", "422", "451", "new-status", "surrogate"]
NOT_FOUND_RESPONSES = ["404", "400", "422", "451"]

ANN = Profile(
    "Ann Example", "Head of Examples", "Example", "example.com", "Finland",
    "https://images.example.com/ann.png",
)  # fmt: skip


@pytest.fixture
async def stub() -> AsyncIterator[HunterStub]:
    """A stub of both APIs."""
    async with hunter_stub() as stub:
        yield stub


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    """The shared HTTP client."""
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture(params=["fake", "hunter"])
async def verifier(
    request: pytest.FixtureRequest, stub: HunterStub, http: HttpClient
) -> AsyncIterator[EmailVerifier]:
    """The fake verifier, then the real one."""
    if request.param == "fake":
        yield FakeEmailVerifier()
        return
    real = HunterVerifier(HunterClient(http, stub.url, stub.key), FakeRateLimiter())
    yield real
    await real.close()


@pytest.fixture(params=["fake", "hunter", "clearbit"])
async def enrichment(
    request: pytest.FixtureRequest, stub: HunterStub, http: HttpClient
) -> AsyncIterator[Enrichment]:
    """The fake enrichment, then the real ones."""
    if request.param == "fake":
        yield FakeEnrichment(ANN)
        return
    send = {
        "hunter": HunterClient(http, stub.url, stub.key).enrich,
        "clearbit": ClearbitClient(http, stub.url, stub.key).enrich,
    }[request.param]
    real = ClearbitFormatEnrichment(
        request.param, send, rate_budget(FakeRateLimiter(), request.param)
    )
    yield real
    await real.close()


def result_of(keyword: str) -> Deliverability:
    """Return the result of a status in a response."""
    expected = [each for each in Deliverability if each == keyword]
    return expected[0] if expected else Deliverability.UNKNOWN


def set_response(adapter: object, stub: HunterStub, keyword: str) -> None:
    """Set the response of the third party, fake or stub."""
    stub.fault = keyword
    if isinstance(adapter, FakeEmailVerifier):
        adapter.result = None if keyword in {*FAILURES_OF_SERVICE, "202"} else result_of(keyword)
    if isinstance(adapter, FakeEnrichment):
        adapter.available = keyword in NOT_FOUND_RESPONSES
        adapter.profile = None


@pytest.mark.parametrize("keyword", [*Deliverability, *UNDECIDED_RESPONSES])
async def test_every_documented_result_is_mapped(
    verifier: EmailVerifier, stub: HunterStub, keyword: str
) -> None:
    """An inconclusive response means `unknown`."""
    set_response(verifier, stub, keyword)
    for number in range(FAILURE_THRESHOLD + 1):
        assert await verifier.verify(f"ann{number}@example.com", LONG_TIMEOUT) is result_of(keyword)


async def test_pending_verification_is_unavailable(
    verifier: EmailVerifier, stub: HunterStub
) -> None:
    """It is no failure of the service: each call sends a request."""
    set_response(verifier, stub, "202")
    for number in range(1, FAILURE_THRESHOLD + 2):
        with pytest.raises(Unavailable):
            await verifier.verify("ann@example.com", LONG_TIMEOUT)
        calls = verifier.calls if isinstance(verifier, FakeEmailVerifier) else stub.requests
        assert len(calls) == number


@pytest.mark.parametrize("keyword", FAILURES_OF_SERVICE)
async def test_failed_verification_is_unavailable(
    verifier: EmailVerifier, stub: HunterStub, keyword: str
) -> None:
    """Within the timeout, whatever is sent; no more is read than a response may have."""
    set_response(verifier, stub, keyword)
    async with measure_thread_time() as elapsed:
        with pytest.raises(Unavailable):
            await verifier.verify("ann@example.com", SHORT_TIMEOUT)
    assert elapsed.seconds < SHORT_TIMEOUT.total_seconds() + SLACK_SECONDS
    assert stub.bytes_sent < OVERSIZED_BYTES / 4
    set_response(verifier, stub, "valid")
    assert await verifier.verify("ann@example.com", LONG_TIMEOUT) is Deliverability.VALID


async def test_redirect_is_not_followed(stub: HunterStub, http: HttpClient) -> None:
    """A redirect could send the e-mail address and the API key to another host."""
    verifier = HunterVerifier(HunterClient(http, stub.url, stub.key), FakeRateLimiter())
    with pytest.raises(Unavailable):
        await verifier.verify("redirect.ann@example.com", LONG_TIMEOUT)
    assert len(stub.requests) == 1


async def test_unreachable_server_is_unavailable(stub: HunterStub, http: HttpClient) -> None:
    """A refused connection and an unknown host."""
    await stub.stop()
    for url in (stub.url, "http://nobody.invalid"):
        verifier = HunterVerifier(HunterClient(http, url, stub.key), FakeRateLimiter())
        with pytest.raises(Unavailable):
            await verifier.verify("ann@example.com", SHORT_TIMEOUT)


@pytest.mark.parametrize("keyword", [*ERROR_MESSAGES, *FAULTS, "wrong-key"])
async def test_errors_and_logs_hold_neither_key_nor_email(
    stub: HunterStub, http: HttpClient, caplog: pytest.LogCaptureFixture, keyword: str
) -> None:
    """Neither errors with all their causes, nor the log at level DEBUG."""
    caplog.set_level(logging.DEBUG)
    stub.fault = None if keyword == "wrong-key" else keyword
    key = "another-key" if keyword == "wrong-key" else stub.key
    verifier = HunterVerifier(HunterClient(http, stub.url, key), FakeRateLimiter())
    error_texts = []
    for _ in range(FAILURE_THRESHOLD):
        try:
            await verifier.verify("ann@example.com", timedelta(seconds=0.1))
        except Unavailable as error:
            cause: BaseException | None = error
            while cause is not None:
                error_texts += [repr(cause), str(cause), repr(vars(cause))]
                cause = cause.__cause__ or cause.__context__
    output = "\n".join(error_texts) + caplog.text
    assert key not in output
    assert "ann@" not in output
    assert "ann%40" not in output


async def test_key_is_sent_as_each_api_documents(stub: HunterStub, http: HttpClient) -> None:
    """In the query for EmailHunter, as a bearer token for Clearbit; the e-mail is URL-encoded."""
    email = "o'ann+tag&x=1?#%41@xn--bcher-kva.example"
    await HunterVerifier(HunterClient(http, f"{stub.url}/v2", stub.key), FakeRateLimiter()).verify(
        email, LONG_TIMEOUT
    )
    await ClearbitClient(http, stub.url, stub.key).enrich(email, LONG_TIMEOUT.total_seconds())
    assert [(one.path, one.email, one.key) for one in stub.requests] == [
        ("/v2/email-verifier", email, stub.key),
        ("/v2/combined/find", email, stub.key),
    ]


async def test_connections_are_reused(stub: HunterStub, http: HttpClient) -> None:
    """Ten consecutive requests use one connection."""
    verifier = HunterVerifier(HunterClient(http, stub.url, stub.key), FakeRateLimiter())
    for _ in range(10):
        await verifier.verify("ann@example.com", LONG_TIMEOUT)
    assert (len(stub.requests), len(stub.client_addresses)) == (10, 1)


async def test_known_person_is_found(enrichment: Enrichment) -> None:
    """Every field of the profile, from each API."""
    assert await enrichment.find("ann@example.com", LONG_TIMEOUT) == ANN


@pytest.mark.parametrize("keyword", NOT_FOUND_RESPONSES)
async def test_unknown_person_has_no_profile(
    enrichment: Enrichment, stub: HunterStub, keyword: str
) -> None:
    """That is a result and not retried."""
    set_response(enrichment, stub, keyword)
    assert await enrichment.find("ann@example.com", LONG_TIMEOUT) is None


@pytest.mark.parametrize(
    "keyword",
    ["202", "401", "403", "429", "500", "garbage", "list", "null", *FAULTS, *OVERSIZED_RESPONSES],
)
async def test_failed_enrichment_is_unavailable(
    enrichment: Enrichment, stub: HunterStub, keyword: str
) -> None:
    """Within the timeout, whatever is sent."""
    set_response(enrichment, stub, keyword)
    async with measure_thread_time() as elapsed:
        with pytest.raises(Unavailable):
            await enrichment.find("ann@example.com", SHORT_TIMEOUT)
    assert elapsed.seconds < SHORT_TIMEOUT.total_seconds() + SLACK_SECONDS


async def test_profile_is_sanitized(stub: HunterStub, http: HttpClient) -> None:
    """Nothing that PostgreSQL or a page cannot handle, and nothing overlong, is passed on."""
    for send in (
        HunterClient(http, stub.url, stub.key).enrich,
        ClearbitClient(http, stub.url, stub.key).enrich,
    ):
        enrichment = ClearbitFormatEnrichment("it", send, rate_budget(FakeRateLimiter(), "it"))
        found = await enrichment.find("nasty.ann@example.com", LONG_TIMEOUT)
        assert found is not None
        assert found.name is not None
        assert found.name.startswith("Ann Example Bcc: x nnn")
        assert len(found.name) == MAX_TEXT_CHARACTERS
        rest = Profile(company="Example", domain="example.com", country="Sweden")
        assert replace(found, name=None) == rest


@pytest.mark.parametrize(
    ("avatar", "is_accepted"),
    [
        ("https://a.example/b?c=d", True),
        ("http://a.example/", True),
        ("HTTPS://a.example/", True),
        ("data:image/png;base64,AAAA", False),
        ("javascript:alert(1)", False),
        ("//a.example/b", False),
        ("https://", False),
        ("https://a.example/\nb", False),
        ("https://a.example/\"onload='x'", False),
        ("https://user:password@a.example/", False),
        ("https://[a.example/", False),
        ("https://a.example/" + "b" * 2000, False),
        ("https://bücher.example/", False),
        (["https://a.example/"], False),
    ],
)
async def test_avatar_is_a_web_url(
    stub: HunterStub, http: HttpClient, avatar: object, *, is_accepted: bool
) -> None:
    """An avatar that a page should not load is dropped."""
    stub.person["avatar"] = avatar
    enrichment = ClearbitFormatEnrichment(
        "it", ClearbitClient(http, stub.url, stub.key).enrich, rate_budget(FakeRateLimiter(), "it")
    )
    found = await enrichment.find("ann@example.com", SHORT_TIMEOUT)
    assert found is not None
    assert found.avatar_url == (avatar if is_accepted else None)


@pytest.mark.parametrize(
    ("email", "disposable"),
    [
        ("ann@yopmail.com", True),
        ("ann@YOPmail.com", True),
        ("ann@any.name.mailinator.com", True),
        ("yopmail.com@example.com", False),
        ("ann@notyopmail.com", False),
        ("ann@com", False),
    ],
)
async def test_offline_list_knows_disposable_domains(email: str, *, disposable: bool) -> None:
    """With their subdomains, in any case; any other domain is unknown."""
    verifier = DisposableDomainVerifier()
    expected = Deliverability.DISPOSABLE if disposable else Deliverability.UNKNOWN
    assert await verifier.verify(email, SHORT_TIMEOUT) is expected
    assert not verifier.supports_recheck


async def test_health_probe_reports_the_key_and_the_quota(
    stub: HunterStub, http: HttpClient
) -> None:
    """The quota only where the API reports it."""
    hunter = HunterHealthProbe(HunterClient(http, stub.url, stub.key))
    clearbit = ClearbitHealthProbe(ClearbitClient(http, stub.url, stub.key))
    assert await hunter.check() == "ok, 42 of 50 verifications left"
    assert await clearbit.check() == "ok"
    for probe in (
        HunterHealthProbe(HunterClient(http, stub.url, "wrong")),
        ClearbitHealthProbe(ClearbitClient(http, stub.url, "wrong")),
    ):
        with pytest.raises(Unavailable, match="refuses the key"):
            await probe.check()
    stub.fault = "no-data"
    assert await hunter.check() == "ok, quota unknown"
    for keyword in ("500", "reset"):
        stub.fault = keyword
        for probe in (hunter, clearbit):
            with pytest.raises(Unavailable, match=r"returned status 500|does not answer"):
                await probe.check()


async def test_response_size_is_limited(stub: HunterStub, http: HttpClient) -> None:
    """A response up to the limit is read, a larger one is an error."""
    enrichment = ClearbitFormatEnrichment(
        "it", ClearbitClient(http, stub.url, stub.key).enrich, rate_budget(FakeRateLimiter(), "it")
    )
    stub.person["bio"] = "x" * (MAX_RESPONSE_BYTES - 10_000)
    assert await enrichment.find("ann@example.com", LONG_TIMEOUT) == ANN
    stub.person["bio"] = "x" * MAX_RESPONSE_BYTES
    with pytest.raises(Unavailable):
        await enrichment.find("ann@example.com", SHORT_TIMEOUT)
