"""A history of concurrent requests, and the violations of the rules in it.

Every event has the time before the request and the time after the response; its effect happened in
between. A code has certainly ended if a request that ends it has its response, and no request that
activates the code may have come later.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_STALENESS_SECONDS = 1.0
"""Maximum time for which a look-up of another process may show an ended code."""


class Change(NamedTuple):
    """A request that activated a code, which ends the user's other codes, or that ended one.

    Without a response it may take effect at any time: `ended` is infinity.
    """

    user: str
    code: str
    starts: bool
    process: str
    began: float
    ended: float
    replaced: bool = True
    """False for a new code that required that no other was active."""


class Read(NamedTuple):
    """A response that showed active codes, from a look-up, which may be cached, or the database."""

    user: str
    codes: frozenset[str]
    process: str
    began: float
    ended: float
    cached: bool


class Registration(NamedTuple):
    """An acknowledged registration with a code."""

    user: str
    code: str
    email: str
    began: float
    ended: float


@dataclass
class History:
    """The events of some users' codes."""

    changes: list[Change] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)

    def find_violations(self, uses: Mapping[str, int], accounts: Iterable[str]) -> list[str]:
        """Return the violations, given the uses and the accounts found at the end."""
        return [
            *self._two_active(),
            *self._made_beside_another(),
            *self._shown_after_the_end(),
            *self._credited_after_the_end(),
            *self._miscounted(uses),
            *self._accounts_not_once(accounts),
        ]

    def _of(self, user: str) -> Iterator[Change]:
        return (change for change in self.changes if change.user == user)

    def _ended_before(
        self, user: str, code: str, began: float, ended: float, bound: float, process: str | None
    ) -> Change | None:
        """Return a change that certainly ended the code before a request, or None."""
        starts = [change for change in self._of(user) if change.starts and change.code == code]
        for end in self._of(user):
            if (end.code == code) == end.starts:
                continue
            allowed = 0.0 if process in {None, end.process} else bound
            revived = any(s.ended > end.began and s.began < ended for s in starts)
            if end.ended + allowed < began and not revived:
                return end
        return None

    def _two_active(self) -> Iterator[str]:
        for read in self.reads:
            if len(read.codes) > 1:
                yield f"two codes of {read.user} active at {read.began}: {sorted(read.codes)}"

    def _made_beside_another(self) -> Iterator[str]:
        """Find codes that were created while another was certainly active."""
        for new in self.changes:
            if new.replaced or not new.starts:
                continue
            others = [
                change for change in self._of(new.user) if change.code != new.code and change.starts
            ]
            for other in others:
                if other.ended < new.began and not self._may_have_ended(other, new):
                    yield f"{new.code} was created while {other.code} was active"

    def _may_have_ended(self, start: Change, new: Change) -> bool:
        return any(
            change is not new
            and (change.code == start.code) != change.starts
            and change.ended > start.began
            and change.began < new.ended
            for change in self._of(start.user)
        )

    def _shown_after_the_end(self) -> Iterator[str]:
        for read, code in ((observed, code) for observed in self.reads for code in observed.codes):
            process = read.process if read.cached else None
            end = self._ended_before(
                read.user, code, read.began, read.ended, MAX_STALENESS_SECONDS, process
            )
            if end is not None:
                late = read.began - end.ended
                yield f"{read.process} showed {code} {late:.3f} s after {end.process} ended it"

    def _credited_after_the_end(self) -> Iterator[str]:
        for registration in self.registrations:
            user, code, email, began, ended = registration
            if self._ended_before(user, code, began, ended, 0, None):
                yield f"{email} registered with {code} after its end"

    def _miscounted(self, uses: Mapping[str, int]) -> Iterator[str]:
        counted = Counter(registration.code for registration in self.registrations)
        for code in counted.keys() | uses.keys():
            if counted[code] != uses.get(code, 0):
                yield f"{code} has {uses.get(code, 0)} uses and {counted[code]} registrations"

    def _accounts_not_once(self, accounts: Iterable[str]) -> Iterator[str]:
        found = Counter(accounts)
        acknowledged = Counter(registration.email for registration in self.registrations)
        for email, times in acknowledged.items():
            if times > 1 or found[email] != 1:
                yield f"{email} was acknowledged {times} times and has {found[email]} accounts"


def count_overlaps(history: History) -> int:
    """Count changes that started during another of the same user; with none, nothing raced."""
    ordered = sorted(history.changes, key=lambda change: (change.user, change.began))
    return sum(
        one.user == next_one.user and next_one.began < one.ended
        for one, next_one in itertools.pairwise(ordered)
    )
