"""What the risk of a referral is computed from: networks of users, and disposable domains.

As in `repositories`, `prune` deletes a bounded number of rows, and returns whether there may be
more.
"""

from datetime import datetime
from typing import Protocol
from uuid import UUID

from referral.core.entities.risk import StoredFacts, UserNetwork


class UserNetworks(Protocol):
    """From which networks users registered and logged in, as keyed digests."""

    async def add_registration(
        self, user_id: UUID, network: bytes, now: datetime, *, waits: bool
    ) -> None:
        """Store the network from which a new user registers.

        A call that `waits` locks the network until the end of the transaction, against other such
        calls, so that `find_facts` finds the registrations before this one.
        """
        ...

    async def add_visit(self, user_id: UUID, network: bytes, now: datetime) -> None:
        """Store that a user came from a network."""
        ...

    async def find_facts(
        self, user_id: UUID, referrer_id: UUID, networks: tuple[bytes, ...], now: datetime
    ) -> StoredFacts:
        """Return the facts about a referral that is about to be stored.

        `networks` are the digests of the request's network, one for each signing key; they count
        beside the stored networks of the user.
        """
        ...

    async def list_all(self, user_id: UUID) -> list[UserNetwork]:
        """Return the networks of a user, the last visited first."""
        ...

    async def delete(self, user_id: UUID) -> None: ...

    async def prune(self, before: datetime) -> bool:
        """Delete some of the networks that were last used before a time."""
        ...


class DisposableDomains(Protocol):
    """The domains that offer disposable mailboxes."""

    def contains(self, domain: str) -> bool:
        """Return whether a domain in ASCII, or a domain above it, is listed."""
        ...
