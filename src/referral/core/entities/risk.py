"""Risk signals: what looks as if a referral was not earned. Only admins and clients see them."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from referral.core.entities.deliverability import Deliverability
from referral.core.entities.mailboxes import mailbox_of

NETWORK_RETENTION = timedelta(days=30)
"""How long it is stored that a user registered or logged in from a network."""

CROWD_WINDOW = timedelta(days=1)
CROWD_SIZE = 3
"""So many others who registered from a network within the window are a risk signal."""

BURST_WINDOW = timedelta(hours=1)
MAX_REFERRALS_IN_BURST_WINDOW = 10
"""More referrals of one referrer within the window are a risk signal."""


class RiskLevel(StrEnum):
    """The levels of risk: low, medium and high."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


class RiskCode(StrEnum):
    """The codes of risk signals in the API."""

    SAME_MAILBOX = "same-mailbox"
    DISPOSABLE_DOMAIN = "disposable-domain"
    UNDELIVERABLE = "undeliverable"
    SAME_NETWORK = "same-network"
    BURST = "burst"


class RiskSignal(StrEnum):
    """Risk signals as they are stored."""

    SAME_MAILBOX = "same-mailbox"
    DISPOSABLE_DOMAIN = "disposable-domain"
    UNDELIVERABLE = "undeliverable"
    NETWORK_OF_REFERRER = "network-of-referrer"
    CROWDED_NETWORK = "crowded-network"
    BURST = "burst"

    @property
    def code(self) -> RiskCode:
        """The code in the API."""
        if self in {RiskSignal.NETWORK_OF_REFERRER, RiskSignal.CROWDED_NETWORK}:
            return RiskCode.SAME_NETWORK
        return RiskCode(self.value)

    @property
    def detail(self) -> str:
        """The reason in words, without personal data."""
        return DETAILS[self]


DETAILS = {
    RiskSignal.SAME_MAILBOX: "The addresses of the user and the referrer are spellings of one "
    "mailbox.",
    RiskSignal.DISPOSABLE_DOMAIN: "The domain of the address offers disposable mailboxes.",
    RiskSignal.UNDELIVERABLE: "The address does not accept mail.",
    RiskSignal.NETWORK_OF_REFERRER: "The user comes from a network from which the referrer "
    "registered or logged in within the last 30 days.",
    RiskSignal.CROWDED_NETWORK: "Three or more others registered from the network of the user "
    "within a day.",
    RiskSignal.BURST: "The referrer had more than ten referrals within an hour.",
}


@dataclass(frozen=True, slots=True)
class UserNetwork:
    """A network of a user: the last visit, and the registration, if it was from there."""

    seen_at: datetime
    registered_at: datetime | None


@dataclass(frozen=True, slots=True)
class AddressFacts:
    """What is known about the address of a referred user."""

    email_key: str
    deliverability: Deliverability
    has_disposable_domain: bool


@dataclass(frozen=True, slots=True)
class StoredFacts:
    """What the stored users, networks and referrals tell about a new referral.

    Counts stop where they no longer matter. `referrer_email_key` is None for an erased referrer.
    """

    referrer_email_key: str | None
    is_network_of_referrer: bool
    others_from_network: int
    recent_referrals: int


def find_signals(address: AddressFacts, stored: StoredFacts) -> tuple[RiskSignal, ...]:
    """Return the signals of a new referral."""
    found = same_mailbox(address, stored), same_network(stored), burst(stored)
    return _in_order(*found, *find_address_signals(address))


def find_address_signals(address: AddressFacts) -> tuple[RiskSignal, ...]:
    """Return the signals of a referred user's address alone."""
    return _in_order(disposable_domain(address), undeliverable(address))


def add_signals(
    signals: tuple[RiskSignal, ...], found: tuple[RiskSignal, ...]
) -> tuple[RiskSignal, ...]:
    """Return all signals, each once."""
    return _in_order(*signals, *found)


def same_mailbox(address: AddressFacts, stored: StoredFacts) -> RiskSignal | None:
    """Return a signal if the user's and the referrer's addresses reach one mailbox."""
    other = stored.referrer_email_key
    is_same = other is not None and mailbox_of(address.email_key) == mailbox_of(other)
    return RiskSignal.SAME_MAILBOX if is_same else None


def disposable_domain(address: AddressFacts) -> RiskSignal | None:
    """Return a signal for an address of a provider of disposable mailboxes."""
    is_disposable = address.deliverability is Deliverability.DISPOSABLE
    found = address.has_disposable_domain or is_disposable
    return RiskSignal.DISPOSABLE_DOMAIN if found else None


def undeliverable(address: AddressFacts) -> RiskSignal | None:
    """Return a signal for an address that was verified and does not accept mail."""
    is_invalid = address.deliverability is Deliverability.INVALID
    return RiskSignal.UNDELIVERABLE if is_invalid else None


def same_network(stored: StoredFacts) -> RiskSignal | None:
    """Return a signal if the referrer, or many others, used the network of the user."""
    if stored.is_network_of_referrer:
        return RiskSignal.NETWORK_OF_REFERRER
    is_crowded = stored.others_from_network >= CROWD_SIZE
    return RiskSignal.CROWDED_NETWORK if is_crowded else None


def burst(stored: StoredFacts) -> RiskSignal | None:
    """Return a signal if this is one of many referrals of the referrer in a short time."""
    is_burst = stored.recent_referrals >= MAX_REFERRALS_IN_BURST_WINDOW
    return RiskSignal.BURST if is_burst else None


def risk_level(signals: tuple[RiskSignal, ...]) -> RiskLevel:
    """Return the level: a shared mailbox or two other signals are high, another one is medium."""
    codes = {signal.code for signal in signals}
    if RiskCode.SAME_MAILBOX in codes or len(codes) > 1:
        return RiskLevel.HIGH
    return RiskLevel.MEDIUM if codes else RiskLevel.LOW


@dataclass(frozen=True, slots=True)
class HoldPolicy:
    """From which level on a referral is held until an admin decides; None for never."""

    lowest_level: RiskLevel | None

    def holds(self, signals: tuple[RiskSignal, ...]) -> bool:
        """Return whether a referral with these signals is held."""
        levels = list(RiskLevel)
        lowest = self.lowest_level
        return lowest is not None and levels.index(risk_level(signals)) >= levels.index(lowest)


def _in_order(*signals: RiskSignal | None) -> tuple[RiskSignal, ...]:
    return tuple(signal for signal in RiskSignal if signal in signals)
