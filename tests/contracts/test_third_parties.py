"""Who is asked about addresses: the fakes, and the real adapters over a server of their APIs."""

import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta

import pytest

from referral.adapters.third_parties.clearbit import Clearbit, ClearbitPart
from referral.adapters.third_parties.clearbit_parser import MAX_TEXT, HttpEnrichment
from referral.adapters.third_parties.disposable_domains import OfflineVerifier
from referral.adapters.third_parties.guarded_client import FAILURES, taking
from referral.adapters.third_parties.http_client import MAX_BYTES, HttpClient
from referral.adapters.third_parties.hunter import Hunter, HunterPart, HunterVerifier
from referral.core.entities.deliverability import Deliverability
from referral.core.entities.users import Profile
from referral.core.errors import Unavailable
from referral.core.ports.third_parties import EmailVerifier, Enrichment
from tests.support.fake_knowledge import FakeEnrichment, FakeVerifier
from tests.support.fakes import FakeLimits
from tests.support.hunter_stub import (
    FAULTS,
    FLOODS,
    HUGE,
    SHAPES,
    STATUSES,
    HunterStub,
    hunter_stub,
)
from tests.support.waiting import elapsing

WITHIN = timedelta(seconds=0.8)
PATIENT = timedelta(seconds=20)
"""For what is answered, however busy the machine is."""

SLACK = 0.5
FORMLESS = sorted({*SHAPES} - {"new-status", "surrogate"})
FAILING = ["401", "403", "404", "429", "500", "502", "503", *FORMLESS, *FAULTS, *FLOODS]
"""What says something about the service, and nothing about an address."""

UNDECIDED = ["222", "400", "422", "451", "new-status", "surrogate"]
NOBODY = ["404", "400", "422", "451"]

ANN = Profile(
    "Ann Example", "Head of Examples", "Example", "example.com", "Finland",
    "https://images.example.com/ann.png",
)  # fmt: skip


@pytest.fixture
async def stub() -> AsyncIterator[HunterStub]:
    """A server of both APIs."""
    async with hunter_stub() as stub:
        yield stub


@pytest.fixture
async def http() -> AsyncIterator[HttpClient]:
    """The client that all share."""
    client = HttpClient()
    yield client
    await client.close()


@pytest.fixture(params=["fake", "hunter"])
async def verifier(
    request: pytest.FixtureRequest, stub: HunterStub, http: HttpClient
) -> AsyncIterator[EmailVerifier]:
    """Whoever verifies."""
    if request.param == "fake":
        yield FakeVerifier()
        return
    real = HunterVerifier(Hunter(http, stub.url, stub.key), FakeLimits())
    yield real
    await real.close()


@pytest.fixture(params=["fake", "hunter", "clearbit"])
async def enrichment(
    request: pytest.FixtureRequest, stub: HunterStub, http: HttpClient
) -> AsyncIterator[Enrichment]:
    """Whoever enriches."""
    if request.param == "fake":
        yield FakeEnrichment(ANN)
        return
    send = {
        "hunter": Hunter(http, stub.url, stub.key).enrich,
        "clearbit": Clearbit(http, stub.url, stub.key).enrich,
    }[request.param]
    real = HttpEnrichment(request.param, send, taking(FakeLimits(), request.param))
    yield real
    await real.close()


def verdict_of(word: str) -> Deliverability:
    """Return what a word of an answer means."""
    known = [each for each in Deliverability if each == word]
    return known[0] if known else Deliverability.UNKNOWN


def answer(party: object, stub: HunterStub, word: str) -> None:
    """Have the third party answer in a way, whichever it is."""
    stub.fault = word
    if isinstance(party, FakeVerifier):
        party.verdict = None if word in {*FAILING, "202"} else verdict_of(word)
    if isinstance(party, FakeEnrichment):
        party.answers = word in NOBODY
        party.profile = None


@pytest.mark.parametrize("word", [*Deliverability, *UNDECIDED])
async def test_every_answer_is_told(verifier: EmailVerifier, stub: HunterStub, word: str) -> None:
    """The words of the documentation are taken as they are; whatever decides nothing is unknown."""
    answer(verifier, stub, word)
    for number in range(FAILURES + 1):
        assert await verifier.verify(f"ann{number}@example.com", PATIENT) is verdict_of(word)


async def test_an_answer_to_come_is_unavailable(verifier: EmailVerifier, stub: HunterStub) -> None:
    """And says nothing against the service: it is asked each time."""
    answer(verifier, stub, "202")
    for number in range(1, FAILURES + 2):
        with pytest.raises(Unavailable):
            await verifier.verify("ann@example.com", PATIENT)
        asked = verifier.asked if isinstance(verifier, FakeVerifier) else stub.asked
        assert len(asked) == number


@pytest.mark.parametrize("word", FAILING)
async def test_what_is_no_answer_is_unavailable(
    verifier: EmailVerifier, stub: HunterStub, word: str
) -> None:
    """In time, whatever comes; no more is read than an answer may have."""
    answer(verifier, stub, word)
    async with elapsing() as waited:
        with pytest.raises(Unavailable):
            await verifier.verify("ann@example.com", WITHIN)
    assert waited.seconds < WITHIN.total_seconds() + SLACK
    assert stub.poured < HUGE / 4
    answer(verifier, stub, "valid")
    assert await verifier.verify("ann@example.com", PATIENT) is Deliverability.VALID


async def test_a_redirect_is_not_followed(stub: HunterStub, http: HttpClient) -> None:
    """Whoever answers in EmailHunter's place cannot send the address and the key elsewhere."""
    verifier = HunterVerifier(Hunter(http, stub.url, stub.key), FakeLimits())
    with pytest.raises(Unavailable):
        await verifier.verify("redirect.ann@example.com", PATIENT)
    assert len(stub.asked) == 1


async def test_a_server_that_is_not_there_is_unavailable(
    stub: HunterStub, http: HttpClient
) -> None:
    """A refused connection, a name that nobody has."""
    await stub.stop()
    for url in (stub.url, "http://nobody.invalid"):
        verifier = HunterVerifier(Hunter(http, url, stub.key), FakeLimits())
        with pytest.raises(Unavailable):
            await verifier.verify("ann@example.com", WITHIN)


@pytest.mark.parametrize("word", [*STATUSES, *FAULTS, "wrong-key"])
async def test_nothing_tells_the_key_or_the_address(
    stub: HunterStub, http: HttpClient, caplog: pytest.LogCaptureFixture, word: str
) -> None:
    """Neither errors, with all that led to them, nor the log at its most talkative."""
    caplog.set_level(logging.DEBUG)
    stub.fault = None if word == "wrong-key" else word
    key = "another-key" if word == "wrong-key" else stub.key
    verifier = HunterVerifier(Hunter(http, stub.url, key), FakeLimits())
    told = []
    for _ in range(FAILURES):
        try:
            await verifier.verify("ann@example.com", timedelta(seconds=0.1))
        except Unavailable as error:
            led: BaseException | None = error
            while led is not None:
                told += [repr(led), str(led), repr(vars(led))]
                led = led.__cause__ or led.__context__
    said = "\n".join(told) + caplog.text
    assert key not in said
    assert "ann@" not in said
    assert "ann%40" not in said


async def test_the_key_goes_along_as_each_api_has_it(stub: HunterStub, http: HttpClient) -> None:
    """In the query for EmailHunter, as a bearer for Clearbit; an address arrives as it is."""
    mailbox = "o'ann+tag&x=1?#%41@xn--bcher-kva.example"
    await HunterVerifier(Hunter(http, f"{stub.url}/v2", stub.key), FakeLimits()).verify(
        mailbox, PATIENT
    )
    await Clearbit(http, stub.url, stub.key).enrich(mailbox, PATIENT.total_seconds())
    assert [(one.path, one.email, one.key) for one in stub.asked] == [
        ("/v2/email-verifier", mailbox, stub.key),
        ("/v2/combined/find", mailbox, stub.key),
    ]


async def test_connections_are_kept(stub: HunterStub, http: HttpClient) -> None:
    """Ten questions one after the other need one."""
    verifier = HunterVerifier(Hunter(http, stub.url, stub.key), FakeLimits())
    for _ in range(10):
        await verifier.verify("ann@example.com", PATIENT)
    assert (len(stub.asked), len(stub.callers)) == (10, 1)


async def test_who_is_known_is_found(enrichment: Enrichment) -> None:
    """Every field of a profile, whoever knows it."""
    assert await enrichment.find("ann@example.com", PATIENT) == ANN


@pytest.mark.parametrize("word", NOBODY)
async def test_who_is_not_known_has_no_profile(
    enrichment: Enrichment, stub: HunterStub, word: str
) -> None:
    """That is an answer, and not asked again."""
    answer(enrichment, stub, word)
    assert await enrichment.find("ann@example.com", PATIENT) is None


@pytest.mark.parametrize(
    "word", ["202", "401", "403", "429", "500", "garbage", "list", "null", *FAULTS, *FLOODS]
)
async def test_what_is_no_answer_yet_is_unavailable(
    enrichment: Enrichment, stub: HunterStub, word: str
) -> None:
    """In time, whatever comes."""
    answer(enrichment, stub, word)
    async with elapsing() as waited:
        with pytest.raises(Unavailable):
            await enrichment.find("ann@example.com", WITHIN)
    assert waited.seconds < WITHIN.total_seconds() + SLACK


async def test_what_others_send_is_cleaned(stub: HunterStub, http: HttpClient) -> None:
    """Nothing that PostgreSQL or a page would choke on, and nothing overlong, is passed on."""
    for send in (
        Hunter(http, stub.url, stub.key).enrich,
        Clearbit(http, stub.url, stub.key).enrich,
    ):
        enrichment = HttpEnrichment("it", send, taking(FakeLimits(), "it"))
        found = await enrichment.find("nasty.ann@example.com", PATIENT)
        assert found is not None
        assert found.name is not None
        assert found.name.startswith("Ann Example Bcc: x nnn")
        assert len(found.name) == MAX_TEXT
        rest = Profile(company="Example", domain="example.com", country="Sweden")
        assert replace(found, name=None) == rest


@pytest.mark.parametrize(
    ("avatar", "kept"),
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
async def test_an_avatar_is_an_address_of_the_web(
    stub: HunterStub, http: HttpClient, avatar: object, *, kept: bool
) -> None:
    """One that a page may load, whole, or none."""
    stub.person["avatar"] = avatar
    enrichment = HttpEnrichment(
        "it", Clearbit(http, stub.url, stub.key).enrich, taking(FakeLimits(), "it")
    )
    found = await enrichment.find("ann@example.com", WITHIN)
    assert found is not None
    assert found.avatar_url == (avatar if kept else None)


@pytest.mark.parametrize(
    ("mailbox", "disposable"),
    [
        ("ann@yopmail.com", True),
        ("ann@YOPmail.com", True),
        ("ann@any.name.mailinator.com", True),
        ("yopmail.com@example.com", False),
        ("ann@notyopmail.com", False),
        ("ann@com", False),
    ],
)
async def test_the_list_knows_disposable_domains(mailbox: str, *, disposable: bool) -> None:
    """And what is below them, without regard to case; of all others it knows nothing."""
    verifier = OfflineVerifier()
    known = Deliverability.DISPOSABLE if disposable else Deliverability.UNKNOWN
    assert await verifier.verify(mailbox, WITHIN) is known
    assert not verifier.may_learn


async def test_a_part_tells_how_the_key_is(stub: HunterStub, http: HttpClient) -> None:
    """And what is left of the quota, where the API tells that."""
    hunter = HunterPart(Hunter(http, stub.url, stub.key))
    clearbit = ClearbitPart(Clearbit(http, stub.url, stub.key))
    assert await hunter.check() == "ok, 42 of 50 verifications left"
    assert await clearbit.check() == "ok"
    for part in (
        HunterPart(Hunter(http, stub.url, "wrong")),
        ClearbitPart(Clearbit(http, stub.url, "wrong")),
    ):
        with pytest.raises(Unavailable, match="refuses the key"):
            await part.check()
    stub.fault = "no-data"
    assert await hunter.check() == "ok, without a word on the quota"
    for word in ("500", "reset"):
        stub.fault = word
        for part in (hunter, clearbit):
            with pytest.raises(Unavailable, match=r"answers with status 500|does not answer"):
                await part.check()


async def test_an_answer_may_not_be_larger_than_that(stub: HunterStub, http: HttpClient) -> None:
    """A long one is read, one that is too long is none."""
    enrichment = HttpEnrichment(
        "it", Clearbit(http, stub.url, stub.key).enrich, taking(FakeLimits(), "it")
    )
    stub.person["bio"] = "x" * (MAX_BYTES - 10_000)
    assert await enrichment.find("ann@example.com", PATIENT) == ANN
    stub.person["bio"] = "x" * MAX_BYTES
    with pytest.raises(Unavailable):
        await enrichment.find("ann@example.com", WITHIN)
