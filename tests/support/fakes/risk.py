"""Fakes of the networks of users and of the list of disposable domains."""

from dataclasses import dataclass, replace
from datetime import datetime
from uuid import UUID

from referral.core.entities.risk import (
    BURST_WINDOW,
    CROWD_SIZE,
    CROWD_WINDOW,
    MAX_REFERRALS_IN_BURST_WINDOW,
    NETWORK_RETENTION,
    StoredFacts,
    UserNetwork,
)
from tests.support.fakes.tables import NetworkRow, Tables


class FakeDisposableDomains:
    """One disposable domain."""

    def contains(self, domain: str) -> bool:
        return domain == "disposable.example"


@dataclass(frozen=True)
class FakeUserNetworks:
    """Networks in a dict. The transactions are serial, so nothing waits for a network."""

    tables: Tables

    async def add_registration(
        self, user_id: UUID, network: bytes, now: datetime, *, waits: bool
    ) -> None:
        del waits
        self.tables.require(is_satisfied=user_id in self.tables.users, constraint="user_id")
        self.tables.user_networks[user_id, network] = NetworkRow(now, now)

    async def add_visit(self, user_id: UUID, network: bytes, now: datetime) -> None:
        self.tables.require(is_satisfied=user_id in self.tables.users, constraint="user_id")
        known = self.tables.user_networks.get((user_id, network), NetworkRow(now))
        self.tables.user_networks[user_id, network] = replace(known, seen_at=now)

    async def find_facts(
        self, user_id: UUID, referrer_id: UUID, networks: tuple[bytes, ...], now: datetime
    ) -> StoredFacts:
        mine = {*networks, *self._recent(user_id, now)}
        others = [
            row
            for (other_id, network), row in self.tables.user_networks.items()
            if other_id != user_id
            and network in mine
            and row.registered_at is not None
            and row.registered_at > now - CROWD_WINDOW
        ]
        recent = [
            referral
            for referral in self.tables.referrals.values()
            if referral.referrer_id == referrer_id and referral.joined_at > now - BURST_WINDOW
        ]
        return StoredFacts(
            referrer_email_key=self.tables.users[referrer_id].email_key or None,
            is_network_of_referrer=bool(mine & self._recent(referrer_id, now)),
            others_from_network=min(len(others), CROWD_SIZE),
            recent_referrals=min(len(recent), MAX_REFERRALS_IN_BURST_WINDOW),
        )

    async def list_all(self, user_id: UUID) -> list[UserNetwork]:
        own = [
            (row.seen_at, network, row.registered_at)
            for (one, network), row in self.tables.user_networks.items()
            if one == user_id
        ]
        by_visit = sorted(own, key=lambda each: each[1])
        by_visit.sort(key=lambda each: each[0], reverse=True)
        return [UserNetwork(seen_at, registered_at) for seen_at, _, registered_at in by_visit]

    async def delete(self, user_id: UUID) -> None:
        for key in list(self.tables.user_networks):
            if key[0] == user_id:
                del self.tables.user_networks[key]

    async def prune(self, before: datetime) -> bool:
        for key, row in list(self.tables.user_networks.items()):
            if row.seen_at < before:
                del self.tables.user_networks[key]
        return False

    def _recent(self, user_id: UUID, now: datetime) -> set[bytes]:
        return {
            network
            for (one, network), row in self.tables.user_networks.items()
            if one == user_id and row.seen_at > now - NETWORK_RETENTION
        }
