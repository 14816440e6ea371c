"""Risk of referrals: networks of users, and signals at registration and later."""

from dataclasses import dataclass, replace
from uuid import UUID

from referral.core.entities.referrals import ReferralStatus
from referral.core.entities.risk import (
    AddressFacts,
    HoldPolicy,
    RiskSignal,
    add_signals,
    find_address_signals,
    find_signals,
)
from referral.core.entities.users import User
from referral.core.ports.repositories import Repositories
from referral.core.ports.risk import DisposableDomains
from referral.core.ports.security import Fingerprinter
from referral.core.ports.system import Clock


@dataclass(frozen=True, slots=True)
class RecordNetwork:
    """Store the network of a user's request as a keyed digest.

    `client_ip` is None where the request comes from another service, and not from the user.
    """

    clock: Clock
    fingerprinter: Fingerprinter

    async def of_registration(
        self, repositories: Repositories, user: User, client_ip: str | None, *, has_referrer: bool
    ) -> None:
        """Store the network from which a new user registers.

        Registrations with a referrer from one network wait for each other, so that each is
        assessed with those before it.
        """
        for newest in network_digests(self.fingerprinter, client_ip)[:1]:
            await repositories.networks.add_registration(
                user.id, newest, self.clock.now(), waits=has_referrer
            )

    async def of_visit(self, repositories: Repositories, user: User, client_ip: str | None) -> None:
        """Store the network from which a known user comes."""
        for newest in network_digests(self.fingerprinter, client_ip)[:1]:
            await repositories.networks.add_visit(user.id, newest, self.clock.now())


@dataclass(frozen=True, slots=True)
class AssessRisk:
    """Find the risk signals of a referral."""

    clock: Clock
    disposable_domains: DisposableDomains
    fingerprinter: Fingerprinter

    async def __call__(
        self,
        repositories: Repositories,
        user: User,
        referrer_id: UUID,
        client_ip: str | None = None,
    ) -> tuple[RiskSignal, ...]:
        """Return the signals of a referral that is about to be stored."""
        networks = network_digests(self.fingerprinter, client_ip)
        stored = await repositories.networks.find_facts(
            user.id, referrer_id, networks, self.clock.now()
        )
        return find_signals(self.address_facts(user), stored)

    def address_facts(self, user: User) -> AddressFacts:
        """Return what is known about a user's address."""
        domain = user.email_key.rpartition("@")[2]
        is_listed = self.disposable_domains.contains(domain)
        return AddressFacts(user.email_key, user.deliverability, is_listed)


@dataclass(frozen=True, slots=True)
class ReassessAddress:
    """Add the signals of a referred user's address after it was verified.

    A pending referral is held if its risk is high enough now, unless an admin entered it. A decided
    one stays as it is.
    """

    assess_risk: AssessRisk
    hold_policy: HoldPolicy

    async def __call__(self, repositories: Repositories, user: User) -> None:
        """Update the referral of a locked user, if there is one."""
        found = await repositories.referrals.find_by_referred(user.id)
        referral = found and await repositories.referrals.lock(found.id)
        if referral is None:
            return
        address_signals = find_address_signals(self.assess_risk.address_facts(user))
        signals = add_signals(referral.risk_signals, address_signals)
        if signals == referral.risk_signals:
            return
        is_open = referral.status is ReferralStatus.PENDING and referral.reason is None
        held = referral.held or (is_open and self.hold_policy.holds(signals))
        await repositories.referrals.save_risk(replace(referral, risk_signals=signals, held=held))


def network_digests(fingerprinter: Fingerprinter, client_ip: str | None) -> tuple[bytes, ...]:
    """Return the digests of a client IP: one for each signing key, newest first."""
    return fingerprinter.compute(f"network:{client_ip}".encode()) if client_ip else ()
