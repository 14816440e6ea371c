"""Risk signals of referrals, and referrals that are held for an admin."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from referral.core.entities.audit import OPERATOR
from referral.core.entities.codes import Code
from referral.core.entities.deliverability import Deliverability
from referral.core.entities.events import EventType
from referral.core.entities.jobs import JobContext, ReferralMailJob, VerifyEmailJob
from referral.core.entities.mailboxes import mailbox_of
from referral.core.entities.referrals import Referral, ReferralStatus
from referral.core.entities.risk import (
    AddressFacts,
    HoldPolicy,
    RiskCode,
    RiskLevel,
    RiskSignal,
    StoredFacts,
    find_signals,
    risk_level,
)
from referral.core.entities.users import User
from referral.core.ports.third_parties import EmailVerifier
from referral.core.use_cases.accounts import NewAccount
from referral.core.use_cases.job_dispatch import DispatchJob
from referral.core.use_cases.referral_review import DecideReferral, SetReferrerByHand
from referral.core.use_cases.referrals import SetReferrer
from tests.core.service import CLIENT_IP, PASSWORD, InMemoryService
from tests.support.fakes.system import FakeIdGenerator
from tests.support.fakes.third_parties import FakeEmailVerifier

HOME, OFFICE, ELSEWHERE = "192.0.2.10", "192.0.2.20", "192.0.2.30"
UNSUSPICIOUS = StoredFacts("ann@example.com", False, 2, 9)  # noqa: FBT003 - no shared network
ADDRESS = AddressFacts("bob@example.com", Deliverability.VALID, has_disposable_domain=False)
CONFIRMED, PENDING, REJECTED = (
    ReferralStatus.CONFIRMED,
    ReferralStatus.PENDING,
    ReferralStatus.REJECTED,
)


@pytest.fixture
def service() -> InMemoryService:
    """A service that holds referrals of medium risk, and asks for no confirmation."""
    return InMemoryService(risk_hold="medium")


@pytest.fixture
async def ann(service: InMemoryService) -> User:
    """The referrer, who registers at home."""
    return await register(service, "ann@gmail.com", HOME)


@pytest.fixture
async def code(service: InMemoryService, ann: User) -> Code:
    """Ann's code."""
    return await service.create_code(ann, text="ANN", minutes=60 * 24 * 100)


async def register(
    service: InMemoryService, email: str, client_ip: str | None, code: Code | None = None
) -> User:
    """Register from a network."""
    text = code.text if code else None
    return await service.register(NewAccount(email, PASSWORD, text, client_ip=client_ip))


async def referral_of(service: InMemoryService, user: User) -> Referral:
    """Return a user's referral."""
    async with service.database.read() as repositories:
        referral = await repositories.referrals.find_by_referred(user.id)
    assert referral is not None
    return referral


async def signals_of(service: InMemoryService, user: User) -> list[RiskSignal]:
    """Return the signals of a user's referral."""
    return list((await referral_of(service, user)).risk_signals)


@pytest.mark.parametrize(
    ("email_key", "mailbox"),
    [
        ("b.o.b+shop+2@gmail.com", "bob@gmail.com"),
        ("bob@googlemail.com", "bob@gmail.com"),
        ("bob-2@gmail.com", "bob-2@gmail.com"),
        ("bo.b+1@outlook.com", "bo.b@outlook.com"),
        ("bob@hotmail.com", "bob@hotmail.com"),
        ("bob-shop@yahoo.com", "bob@yahoo.com"),
        ("bob+1@me.com", "bob@icloud.com"),
        ("b-o_b.+1@pm.me", "bob@proton.me"),
        ("b-o.b@ya.ru", "bob@yandex.ru"),
        ("bob+1@bk.ru", "bob@bk.ru"),
        ("b.ob+1@example.com", "b.ob+1@example.com"),
        ("bob+1@mail.gmail.com", "bob+1@mail.gmail.com"),
        ("+1@gmail.com", "+1@gmail.com"),
        ("++1@gmail.com", "+@gmail.com"),
        ("--@ya.ru", "--@yandex.ru"),
    ],
)
def test_spellings_of_a_mailbox(email_key: str, mailbox: str) -> None:
    """Dots and tags are those that the provider ignores; other domains have none."""
    assert mailbox_of(email_key) == mailbox


@pytest.mark.parametrize(
    ("address", "stored", "signals"),
    [
        ({}, {}, []),
        (
            {"email_key": "a.nn+1@gmail.com"},
            {"referrer_email_key": "ann@gmail.com"},
            ["same-mailbox"],
        ),
        ({}, {"referrer_email_key": None}, []),
        ({"has_disposable_domain": True}, {}, ["disposable-domain"]),
        ({"deliverability": Deliverability.DISPOSABLE}, {}, ["disposable-domain"]),
        ({"deliverability": Deliverability.INVALID}, {}, ["undeliverable"]),
        *(
            ({"deliverability": each}, {}, [])
            for each in Deliverability
            if each not in {Deliverability.DISPOSABLE, Deliverability.INVALID}
        ),
        ({}, {"is_network_of_referrer": True}, ["same-network"]),
        ({}, {"is_network_of_referrer": True, "others_from_network": 3}, ["same-network"]),
        ({}, {"others_from_network": 3}, ["same-network"]),
        ({}, {"recent_referrals": 10}, ["burst"]),
        (
            {"has_disposable_domain": True, "deliverability": Deliverability.INVALID},
            {"recent_referrals": 10, "others_from_network": 3},
            ["disposable-domain", "undeliverable", "same-network", "burst"],
        ),
    ],
)
def test_signals_follow_from_facts(
    address: dict[str, Any], stored: dict[str, Any], signals: list[str]
) -> None:
    """Each at its limit, in one order, with a reason that is a sentence."""
    found = find_signals(replace(ADDRESS, **address), replace(UNSUSPICIOUS, **stored))
    assert [signal.code for signal in found] == signals
    assert all(signal.detail[0].isupper() and signal.detail[-1] == "." for signal in found)


@pytest.mark.parametrize(
    ("signals", "level", "held_from"),
    [
        ([], "low", []),
        (["burst"], "medium", ["medium"]),
        (["undeliverable"], "medium", ["medium"]),
        (["disposable-domain"], "medium", ["medium"]),
        (["crowded-network"], "medium", ["medium"]),
        (["network-of-referrer", "crowded-network"], "medium", ["medium"]),
        (["same-mailbox"], "high", ["medium", "high"]),
        (["burst", "crowded-network"], "high", ["medium", "high"]),
    ],
)
def test_level_follows_from_the_signals(
    signals: list[str], level: str, held_from: list[str]
) -> None:
    """One is medium, two are high, a shared mailbox is high; the setting says what is held."""
    found = tuple(RiskSignal(signal) for signal in signals)
    assert risk_level(found) == level
    assert [
        lowest
        for lowest in (None, RiskLevel.MEDIUM, RiskLevel.HIGH)
        if HoldPolicy(lowest).holds(found)
    ] == held_from


def test_every_code_has_a_signal() -> None:
    """And every signal a code and words."""
    assert {signal.code for signal in RiskSignal} == set(RiskCode)
    assert len({signal.detail for signal in RiskSignal}) == len(RiskSignal)


async def test_network_of_the_referrer_is_a_signal(
    service: InMemoryService, ann: User, code: Code
) -> None:
    """From which the referrer registered or logged in, for 30 days."""
    bob = await register(service, "bob@example.com", HOME, code)
    assert await signals_of(service, bob) == [RiskSignal.NETWORK_OF_REFERRER]
    cleo = await register(service, "cleo@example.com", OFFICE, code)
    assert await signals_of(service, cleo) == []
    await service.log_in(ann.email, PASSWORD, OFFICE)
    dora = await register(service, "dora@example.com", OFFICE, code)
    assert await signals_of(service, dora) == [RiskSignal.NETWORK_OF_REFERRER]
    service.clock.advance(days=30)
    eve = await register(service, "eve@example.com", OFFICE, code)
    assert await signals_of(service, eve) == []


async def test_network_of_many_is_a_signal(service: InMemoryService, code: Code) -> None:
    """From the fourth within a day, whether the others have a referrer; logins do not count."""
    late = await register(service, "late@example.com", OFFICE)
    await service.log_in(late.email, PASSWORD, ELSEWHERE)
    for number in range(3):
        user = await register(service, f"u{number}@example.com", OFFICE if number else ELSEWHERE)
        await service.log_in(user.email, PASSWORD, ELSEWHERE)
    third = await register(service, "third@example.com", ELSEWHERE, code)
    assert await signals_of(service, third) == []
    fourth = await register(service, "fourth@example.com", OFFICE, code)
    assert await signals_of(service, fourth) == [RiskSignal.CROWDED_NETWORK]
    service.clock.advance(days=1)
    next_day = await register(service, "next@example.com", OFFICE, code)
    assert await signals_of(service, next_day) == []


async def test_eleventh_referral_of_an_hour_is_a_signal(
    service: InMemoryService, code: Code
) -> None:
    """The ten before it are none; an hour later the next one is none either."""
    users = [
        await register(service, f"u{number}@example.com", f"198.51.100.{number}", code)
        for number in range(11)
    ]
    assert [await signals_of(service, user) for user in users[9:]] == [[], [RiskSignal.BURST]]
    service.clock.advance(hours=1)
    late = await register(service, "late@example.com", ELSEWHERE, code)
    assert await signals_of(service, late) == []


async def test_networks_are_found_after_a_new_signing_key(
    service: InMemoryService, code: Code
) -> None:
    """While the old key still verifies; the digests hold no address."""
    async with service.database.read() as repositories:
        [(_, digest)] = repositories.tables.user_networks
    assert HOME.encode() not in digest
    service.fingerprints.keys.insert(0, b"new key")
    bob = await register(service, "bob@example.com", HOME, code)
    assert await signals_of(service, bob) == [RiskSignal.NETWORK_OF_REFERRER]
    async with service.database.read() as repositories:
        digests = {digest for _, digest in repositories.tables.user_networks}
    assert len(digests) == 2


async def test_unknown_network_is_no_signal(service: InMemoryService, code: Code) -> None:
    """Such as that of a user whom another service created."""
    for number in range(5):
        user = await register(service, f"u{number}@example.com", None if number % 2 else "", code)
        assert await signals_of(service, user) == []


@pytest.mark.usefixtures("ann")
async def test_held_referral_waits_for_an_admin(service: InMemoryService, code: Code) -> None:
    """Where addresses need no confirmation: no event but the first, and no mail before."""
    await service.events()
    bob = await register(service, "a.nn+1@gmail.com", ELSEWHERE, code)
    referral = await referral_of(service, bob)
    assert (referral.status, referral.held) == (PENDING, True)
    assert referral.risk_signals == (RiskSignal.SAME_MAILBOX,)
    events = await service.events()
    assert [event.type for event in events] == ["user.registered", "referral.created"]
    assert not [name for event in events for name in event.data if name in {"risk", "held"}]
    assert not [job for job in await service.jobs() if isinstance(job, ReferralMailJob)]
    service.clock.advance(days=8)
    await service.expire_unconfirmed()
    await service.get(DecideReferral)(referral.id, CONFIRMED, OPERATOR, "By phone.")
    assert [event.type for event in await service.events()] == ["referral.confirmed"]
    assert [job for job in await service.jobs() if isinstance(job, ReferralMailJob)]
    decided = await referral_of(service, bob)
    assert (decided.status, decided.held) == (CONFIRMED, False)
    assert decided.risk_signals == (RiskSignal.SAME_MAILBOX,)


@pytest.mark.parametrize("decision", [CONFIRMED, REJECTED])
async def test_held_referral_stays_pending_when_the_address_is_confirmed(
    service: InMemoryService, code: Code, decision: ReferralStatus
) -> None:
    """The user is confirmed; the code's use counts until the referral is rejected."""
    service.configure(email_verification="on")
    bob = await register(service, "bob@example.com", HOME, code)
    token = await service.create_mail_token(bob)
    await service.confirm_email(token, caller_id=bob.id, password=None, client_ip=CLIENT_IP)
    referral = await referral_of(service, bob)
    assert (referral.status, referral.held) == (PENDING, True)
    assert (await service.show_account(bob.id)).user.email_verified
    assert (await service.show_account(code.user_id)).referral_count == 1
    await service.events()
    await service.get(DecideReferral)(referral.id, decision, OPERATOR, "By phone.")
    assert [event.type for event in await service.events()] == [f"referral.{decision}"]
    count = (await service.show_account(code.user_id)).referral_count
    assert count == (decision is CONFIRMED)


@pytest.mark.parametrize(
    ("setting", "client_ip", "held"),
    [
        ("off", HOME, False),
        ("medium", ELSEWHERE, False),
        ("medium", HOME, True),
        ("high", HOME, False),
    ],
)
async def test_setting_decides_what_is_held(
    service: InMemoryService,
    code: Code,
    setting: str,
    client_ip: str,
    held: bool,  # noqa: FBT001
) -> None:
    """Below its level the referral is confirmed as ever; the signals are stored all the same."""
    service.configure(risk_hold=setting)
    bob = await register(service, "bob@example.com", client_ip, code)
    referral = await referral_of(service, bob)
    assert (referral.held, referral.status) == (held, PENDING if held else CONFIRMED)
    assert bool(referral.risk_signals) == (client_ip == HOME)


async def test_erased_held_referral_is_rejected(service: InMemoryService, code: Code) -> None:
    """It waits for no admin any more, and no network of the user is left."""
    bob = await register(service, "bob@example.com", HOME, code)
    await service.log_in(bob.email, PASSWORD, OFFICE)
    await service.erase_account(bob.id, PASSWORD)
    referral = await referral_of(service, bob)
    assert (referral.status, referral.held) == (REJECTED, False)
    async with service.database.read() as repositories:
        assert {user_id for user_id, _ in repositories.tables.user_networks} == {code.user_id}


async def test_returning_address_is_rejected_and_not_held(
    service: InMemoryService, code: Code
) -> None:
    """The risk is stored all the same."""
    first = await register(service, "bob@example.com", ELSEWHERE, code)
    await service.erase_account(first.id, PASSWORD)
    again = await register(service, "bob@example.com", HOME, code)
    referral = await referral_of(service, again)
    assert (referral.status, referral.held) == (REJECTED, False)
    assert referral.risk_signals == (RiskSignal.NETWORK_OF_REFERRER,)


async def test_referrer_that_is_set_later_is_assessed(service: InMemoryService, code: Code) -> None:
    """By the network of the request, and by those of the registration and the logins."""
    bob = await register(service, "bob@example.com", HOME)
    await service.get(SetReferrer)(bob.id, code.text, ELSEWHERE)
    cleo = await register(service, "cleo@example.com", ELSEWHERE)
    await service.get(SetReferrer)(cleo.id, code.text, HOME)
    dora = await register(service, "dora@example.com", ELSEWHERE)
    await service.get(SetReferrer)(dora.id, code.text)
    eve = await register(service, "eve@example.com", ELSEWHERE)
    service.fingerprints.keys.insert(0, b"new key")
    await service.get(SetReferrer)(eve.id, code.text, HOME)
    async with service.database.read() as repositories:
        networks = [len(await repositories.networks.list_all(each.id)) for each in (bob, dora)]
    assert networks == [2, 1]
    for user, is_held in ((bob, True), (cleo, True), (dora, False), (eve, True)):
        referral = await referral_of(service, user)
        assert (referral.held, bool(referral.risk_signals)) == (is_held, is_held)
        assert referral.status is (PENDING if is_held else CONFIRMED)


async def test_referrer_that_an_admin_sets_is_not_held(service: InMemoryService, ann: User) -> None:
    """The admin has decided; the signals are shown."""
    bob = await register(service, "bob@example.com", HOME)
    await service.get(SetReferrerByHand)(bob.id, ann.id, OPERATOR, "By phone.")
    referral = await referral_of(service, bob)
    assert (referral.status, referral.held) == (CONFIRMED, False)
    assert referral.risk_signals == (RiskSignal.NETWORK_OF_REFERRER,)


class TestLateVerification:
    """The address is verified by a job after the registration."""

    @pytest.fixture
    def service(self) -> InMemoryService:
        """A service whose third party does not answer at registration."""
        service = InMemoryService(risk_hold="medium", email_verification="on")
        self.verifier = FakeEmailVerifier()
        self.verifier.result = None
        service.override(EmailVerifier | None, self.verifier)
        return service

    async def verify(self, service: InMemoryService, user: User, result: Deliverability) -> None:
        """Run the job."""
        self.verifier.result = result
        context = JobContext(FakeIdGenerator().new(), 1)
        await service.get(DispatchJob)(VerifyEmailJob(user.id), context)

    @pytest.mark.parametrize(
        ("result", "signal"),
        [
            (Deliverability.INVALID, RiskSignal.UNDELIVERABLE),
            (Deliverability.DISPOSABLE, RiskSignal.DISPOSABLE_DOMAIN),
        ],
    )
    async def test_pending_referral_is_held(
        self, service: InMemoryService, code: Code, result: Deliverability, signal: RiskSignal
    ) -> None:
        """And waits for an admin from then on; a second result adds nothing."""
        bob = await register(service, "bob@example.com", ELSEWHERE, code)
        for _ in range(2):
            await self.verify(service, bob, result)
            referral = await referral_of(service, bob)
            assert (referral.held, referral.risk_signals) == (True, (signal,))

    async def test_valid_address_changes_nothing(
        self, service: InMemoryService, code: Code
    ) -> None:
        """Nor does the result for a user without a referrer."""
        bob = await register(service, "bob@example.com", ELSEWHERE, code)
        await self.verify(service, bob, Deliverability.VALID)
        referral = await referral_of(service, bob)
        assert (referral.held, referral.risk_signals) == (False, ())
        await self.verify(service, await register(service, "x@y", HOME), Deliverability.INVALID)

    async def test_confirmed_referral_stays_confirmed(
        self, service: InMemoryService, code: Code
    ) -> None:
        """The owner of the mailbox has read a mail."""
        bob = await register(service, "bob@example.com", ELSEWHERE, code)
        token = await service.create_mail_token(bob)
        await service.confirm_email(token, caller_id=bob.id, password=None, client_ip=CLIENT_IP)
        await self.verify(service, bob, Deliverability.INVALID)
        referral = await referral_of(service, bob)
        assert (referral.status, referral.held) == (CONFIRMED, False)

    async def test_held_referral_stays_held(self, service: InMemoryService, code: Code) -> None:
        """Also when the setting was turned off since."""
        bob = await register(service, "bob@example.com", HOME, code)
        service.configure(risk_hold="off")
        await self.verify(service, bob, Deliverability.INVALID)
        assert (await referral_of(service, bob)).held
        assert len(await signals_of(service, bob)) == 2

    @pytest.mark.parametrize("decision", [CONFIRMED, REJECTED])
    async def test_decided_referral_stays_as_it_is(
        self, service: InMemoryService, code: Code, decision: ReferralStatus
    ) -> None:
        """Its risk is known all the same."""
        bob = await register(service, "bob@example.com", ELSEWHERE, code)
        referral = await referral_of(service, bob)
        await service.get(DecideReferral)(referral.id, decision, OPERATOR, "By phone.")
        await self.verify(service, bob, Deliverability.INVALID)
        decided = await referral_of(service, bob)
        assert (decided.status, decided.held) == (decision, False)
        assert decided.risk_signals == (RiskSignal.UNDELIVERABLE,)

    async def test_referral_by_hand_is_not_held(self, service: InMemoryService, ann: User) -> None:
        """An admin entered it."""
        bob = await register(service, "bob@example.com", ELSEWHERE)
        await service.get(SetReferrerByHand)(bob.id, ann.id, OPERATOR, "By phone.")
        await self.verify(service, bob, Deliverability.INVALID)
        referral = await referral_of(service, bob)
        assert (referral.status, referral.held) == (PENDING, False)
        assert referral.risk_signals == (RiskSignal.UNDELIVERABLE,)


async def test_signal_adds_to_those_of_the_registration(
    service: InMemoryService, code: Code
) -> None:
    """A disposable domain and a shared network are high."""
    service.configure(risk_hold="high")
    bob = await register(service, "bob@disposable.example", HOME, code)
    referral = await referral_of(service, bob)
    assert referral.held
    assert referral.risk_signals == (
        RiskSignal.DISPOSABLE_DOMAIN,
        RiskSignal.NETWORK_OF_REFERRER,
    )


def test_no_event_names_the_risk() -> None:
    """No type of event is about it either."""
    assert not [kind for kind in EventType if "risk" in kind or "held" in kind]


async def test_old_networks_are_pruned(service: InMemoryService, ann: User) -> None:
    """30 days after the last login from there."""
    service.clock.advance(days=1)
    await service.log_in(ann.email, PASSWORD, OFFICE)
    async with service.database.begin() as repositories:
        await repositories.networks.prune(service.clock.now() - timedelta(hours=1))
        assert len(repositories.tables.user_networks) == 1
