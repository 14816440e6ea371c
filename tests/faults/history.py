"""What concurrent clients asked and saw, and what of it cannot be if the rules held.

Every event has the time before the request and the time after the answer; what it did happened
somewhere between. So a code has certainly ended when a request that ends it was answered, and no
request that puts it in force may have come after that one.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

MAX_STALENESS_SECONDS = 1.0
"""How long another process' look-ups may show a code after its end."""


class Change(NamedTuple):
    """A request that put a code in force, and thereby all others of the user out of it, or that
    ended one. Without an answer it may take effect at any time: `ended` is infinity.
    """

    user: str
    code: str
    starts: bool
    process: str
    began: float
    ended: float
    replaced: bool = True
    """False for a new code that may be made only while none is in force."""


class Read(NamedTuple):
    """An answer that showed codes in force: of a look-up, which may remember, or of the truth."""

    user: str
    codes: frozenset[str]
    process: str
    began: float
    ended: float
    cached: bool


class Registration(NamedTuple):
    """A registration with a code that was acknowledged."""

    user: str
    code: str
    email: str
    began: float
    ended: float


@dataclass
class History:
    """All that happened to some users' codes."""

    changes: list[Change] = field(default_factory=list)
    reads: list[Read] = field(default_factory=list)
    registrations: list[Registration] = field(default_factory=list)

    def find_violations(self, uses: Mapping[str, int], accounts: Iterable[str]) -> list[str]:
        """Return what breaks the rules, given the uses and the accounts found at the end."""
        return [
            *self._two_at_once(),
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
        """Return a change that certainly ended the code before a request, if there is one."""
        starts = [each for each in self._of(user) if each.starts and each.code == code]
        for end in self._of(user):
            if (end.code == code) == end.starts:
                continue
            allowed = 0.0 if process in {None, end.process} else bound
            revived = any(s.ended > end.began and s.began < ended for s in starts)
            if end.ended + allowed < began and not revived:
                return end
        return None

    def _two_at_once(self) -> Iterator[str]:
        for sight in self.reads:
            if len(sight.codes) > 1:
                yield f"two codes of {sight.user} in force at {sight.began}: {sorted(sight.codes)}"

    def _made_beside_another(self) -> Iterator[str]:
        """Find codes that were made although another was certainly in force all the time."""
        for new in self.changes:
            if new.replaced or not new.starts:
                continue
            others = [each for each in self._of(new.user) if each.code != new.code and each.starts]
            for other in others:
                if other.ended < new.began and not self._may_have_ended(other, new):
                    yield f"{new.code} was made while {other.code} was in force"

    def _may_have_ended(self, start: Change, new: Change) -> bool:
        return any(
            change is not new
            and (change.code == start.code) != change.starts
            and change.ended > start.began
            and change.began < new.ended
            for change in self._of(start.user)
        )

    def _shown_after_the_end(self) -> Iterator[str]:
        for sight, code in ((each, code) for each in self.reads for code in each.codes):
            process = sight.process if sight.cached else None
            end = self._ended_before(
                sight.user, code, sight.began, sight.ended, MAX_STALENESS_SECONDS, process
            )
            if end is not None:
                late = sight.began - end.ended
                yield f"{sight.process} showed {code} {late:.3f} s after {end.process} ended it"

    def _credited_after_the_end(self) -> Iterator[str]:
        for joining in self.registrations:
            user, code, email, began, ended = joining
            if self._ended_before(user, code, began, ended, 0, None):
                yield f"{email} joined with {code} after its end"

    def _miscounted(self, uses: Mapping[str, int]) -> Iterator[str]:
        counted = Counter(joining.code for joining in self.registrations)
        for code in counted.keys() | uses.keys():
            if counted[code] != uses.get(code, 0):
                yield f"{code} has {uses.get(code, 0)} uses, and {counted[code]} joined with it"

    def _accounts_not_once(self, accounts: Iterable[str]) -> Iterator[str]:
        found = Counter(accounts)
        acknowledged = Counter(joining.email for joining in self.registrations)
        for email, times in acknowledged.items():
            if times > 1 or found[email] != 1:
                yield f"{email} was acknowledged {times} times, and there {found[email]} times"


def count_overlaps(history: History) -> int:
    """Count changes that began while another of that user was on: with none, nothing raced."""
    ordered = sorted(history.changes, key=lambda change: (change.user, change.began))
    return sum(
        one.user == next_one.user and next_one.began < one.ended
        for one, next_one in itertools.pairwise(ordered)
    )
