"""The port `UserNetworks`, and the risk of referrals."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import pytest
from asyncpg import IntegrityConstraintViolationError

from referral.adapters.disposable_domains import ListedDisposableDomains
from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.risk import NETWORK_RETENTION, RiskSignal, StoredFacts, UserNetwork
from referral.core.entities.users import User
from referral.core.ports.repositories import Database
from tests.contracts.rows import HOUR, ID_GENERATOR, NOW, store_code, store_referral, store_user

DAY = timedelta(days=1)
SECOND = timedelta(seconds=1)


def new_network() -> bytes:
    """Return the digest of a network from which nobody came."""
    return ID_GENERATOR.new().bytes * 2


async def visit(store: Database, user: User, network: bytes, ago: timedelta) -> None:
    """Store a login from a network."""
    async with store.begin() as repositories:
        await repositories.networks.add_visit(user.id, network, NOW - ago)


async def store_registration(
    store: Database, network: bytes, ago: timedelta = SECOND, *, waits: bool = False
) -> User:
    """Store an account that registered from a network."""
    user = await store_user(store)
    async with store.begin() as repositories:
        await repositories.networks.add_registration(user.id, network, NOW - ago, waits=waits)
    return user


async def facts(store: Database, user: User, referrer: User, *networks: bytes) -> StoredFacts:
    """Return the facts about a referral."""
    async with store.read() as repositories:
        return await repositories.networks.find_facts(user.id, referrer.id, networks, NOW)


async def test_new_users_have_no_facts(store: Database) -> None:
    """But the address of the referrer."""
    ann, bob = await store_user(store), await store_user(store)
    found = await facts(store, bob, ann, new_network())
    assert found == StoredFacts(ann.email_key, False, 0, 0)  # noqa: FBT003 - as the table


@pytest.mark.parametrize("waits", [True, False])
async def test_network_of_the_referrer_is_found(store: Database, waits: bool) -> None:  # noqa: FBT001
    """By the networks of the request, or by those that are stored of the user."""
    home, office, other = new_network(), new_network(), new_network()
    ann, bob = await store_registration(store, home, waits=waits), await store_user(store)
    await visit(store, ann, office, HOUR)
    for networks, is_shared in (
        ((), False),
        ((other,), False),
        ((home,), True),
        ((other, office), True),
    ):
        found = await facts(store, bob, ann, *networks)
        assert found.is_network_of_referrer is is_shared
    await visit(store, bob, office, HOUR)
    assert (await facts(store, bob, ann)).is_network_of_referrer
    assert (await facts(store, bob, ann, other)).is_network_of_referrer


@pytest.mark.parametrize("old", ["user", "referrer"])
async def test_network_ends_after_30_days(store: Database, old: str) -> None:
    """Of either user, also before it is pruned; a later login prolongs it."""
    home = new_network()
    users = {"user": await store_user(store), "referrer": await store_user(store)}
    for name, user in users.items():
        await visit(store, user, home, NETWORK_RETENTION if name == old else SECOND)
    found = await facts(store, users["user"], users["referrer"])
    assert not found.is_network_of_referrer
    await visit(store, users[old], home, NETWORK_RETENTION - SECOND - 2 * HOUR)
    found = await facts(store, users["user"], users["referrer"])
    assert found.is_network_of_referrer


async def test_registrations_of_a_day_are_counted(store: Database) -> None:
    """Up to three of others; logins are not counted."""
    office, ann = new_network(), await store_user(store)
    await store_registration(store, office, DAY)
    visitor = await store_user(store)
    await visit(store, visitor, office, SECOND)
    bob = await store_registration(store, office)
    for count in (0, 1, 2, 3, 3):
        assert (await facts(store, bob, ann)).others_from_network == count
        assert (await facts(store, bob, ann, office)).others_from_network == count
        assert (await facts(store, visitor, ann)).others_from_network == min(count + 1, 3)
        await store_registration(store, office, DAY - SECOND)


async def test_login_keeps_the_time_of_the_registration(store: Database) -> None:
    """A user who logs in counts as long as one who does not."""
    office, ann, bob = new_network(), await store_user(store), await store_user(store)
    early, late = [await store_registration(store, office, ago) for ago in (DAY, DAY - SECOND)]
    for user in (early, late):
        await visit(store, user, office, SECOND)
    assert (await facts(store, bob, ann, office)).others_from_network == 1


async def test_referrals_of_an_hour_are_counted(store: Database) -> None:
    """Up to ten of the referrer, of any status."""
    ann, bob = await store_user(store), await store_user(store)
    code, other = await store_code(store, ann), await store_code(store, bob)
    await store_referral(store, code, joined_at=NOW - HOUR)
    await store_referral(store, other, joined_at=NOW)
    for count in (*range(11), 10):
        assert (await facts(store, bob, ann)).recent_referrals == count
        status = list(ReferralStatus)[count % 3]
        await store_referral(store, code, joined_at=NOW - HOUR + SECOND, status=status)


async def test_networks_of_a_user_are_listed(store: Database) -> None:
    """The last visited first; a visit within the hour may keep the time of the one before."""
    ann = await store_registration(store, new_network(), 3 * HOUR)
    office = new_network()
    for ago in (4 * HOUR, 2 * HOUR):
        await visit(store, ann, office, ago)
    async with store.read() as repositories:
        listed = await repositories.networks.list_all(ann.id)
    assert listed == [
        UserNetwork(NOW - 2 * HOUR, None),
        UserNetwork(NOW - 3 * HOUR, NOW - 3 * HOUR),
    ]


async def test_networks_of_a_user_are_deleted(store: Database) -> None:
    """Those of others stay. An erased referrer has no address."""
    home = new_network()
    ann, bob = await store_registration(store, home), await store_registration(store, home)
    async with store.begin() as repositories:
        await repositories.networks.delete(ann.id)
        await repositories.users.erase(ann.id, NOW)
    assert await facts(store, bob, ann) == StoredFacts(None, False, 0, 0)  # noqa: FBT003
    assert (await facts(store, await store_user(store), bob, home)).is_network_of_referrer


async def test_old_networks_are_pruned(store: Database) -> None:
    """By the last visit, which is stored to the hour; the other networks of a user stay."""
    old, home = new_network(), new_network()
    ann, bob = await store_user(store), await store_user(store)
    early = timedelta(days=40_000)
    await visit(store, ann, old, early)
    await visit(store, ann, home, SECOND)
    async with store.begin() as repositories:
        assert await repositories.networks.prune(NOW - early) is False
        assert await repositories.networks.prune(NOW - early + SECOND) is False
        now = NOW - early
        found = await repositories.networks.find_facts(bob.id, ann.id, (old,), now)
        assert not found.is_network_of_referrer
        found = await repositories.networks.find_facts(bob.id, ann.id, (home,), now)
        assert found.is_network_of_referrer


async def test_network_of_an_unknown_user_is_refused(store: Database) -> None:
    """By a constraint."""

    async def add(*, waits: bool) -> None:
        user_id = ID_GENERATOR.new()
        async with store.begin() as repositories:
            await repositories.networks.add_registration(user_id, new_network(), NOW, waits=waits)

    for waits in (True, False):
        with pytest.raises(IntegrityConstraintViolationError):
            await add(waits=waits)


async def test_each_of_concurrent_registrations_finds_those_before(store: Database) -> None:
    """One of five from a network finds none, one finds one, and so on."""
    office, ann = new_network(), await store_user(store)
    users = [await store_user(store) for _ in range(5)]

    async def add(user_id: UUID) -> int:
        async with store.begin() as repositories:
            await repositories.networks.add_registration(user_id, office, NOW, waits=True)
            found = await repositories.networks.find_facts(user_id, ann.id, (office,), NOW)
            await asyncio.sleep(0)
            return found.others_from_network

    counts = await asyncio.gather(*(add(user.id) for user in users))
    assert sorted(counts) == [0, 1, 2, 3, 3]


async def test_risk_of_a_referral_is_stored(store: Database) -> None:
    """At first, or later; a new status ends the hold, and keeps the signals."""
    signals = (RiskSignal.SAME_MAILBOX, RiskSignal.BURST)
    code = await store_code(store, await store_user(store))
    pending = {"status": ReferralStatus.PENDING}
    referral, bob = await store_referral(store, code, risk_signals=signals, held=True, **pending)
    other, cleo = await store_referral(store, code, **pending)
    async with store.begin() as repositories:
        assert await repositories.referrals.find_by_referred(bob.id) == referral
        changed = replace(other, held=True, risk_signals=signals[:1])
        await repositories.referrals.save_risk(changed)
        assert await repositories.referrals.find_by_referred(cleo.id) == changed
        record = await repositories.referral_search.find(other.id)
        assert record is not None
        assert (record.held, record.risk_signals) == (True, signals[:1])
        await repositories.referrals.set_status(referral.id, ReferralStatus.REJECTED, NOW)
        decided = await repositories.referral_search.find(referral.id)
    assert decided is not None
    assert (decided.held, decided.risk_signals) == (False, signals)


@pytest.mark.parametrize(
    ("domain", "is_listed"),
    [
        ("mailinator.com", True),
        ("MAILINATOR.com", True),
        ("sub.mailinator.com", True),
        ("mailinator.com.example.org", False),
        ("gmail.com", False),
        ("com", False),
        ("", False),
    ],
)
def test_disposable_domain_is_listed(domain: str, is_listed: bool) -> None:  # noqa: FBT001
    """With its subdomains."""
    assert ListedDisposableDomains().contains(domain) is is_listed
